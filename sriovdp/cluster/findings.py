"""What is wrong with objects, and what changes meaning: sentences, each with the object and its place."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Findings:
    """Faults refuse the whole set of objects; warnings say what differs from the program that had them before."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(self, subject: object, sentence: str) -> None:
        """Note a fault of an object. One that is there already is not noted again."""
        self._add(self.faults, f"{subject}: {sentence}")

    def warn(self, subject: object, sentence: str) -> None:
        """Note a change of meaning. One that is there already is not noted again."""
        self._add(self.warnings, f"{subject}: {sentence}")

    def _add(self, found: list[str], sentence: str) -> None:
        if sentence not in found:
            found.append(sentence)
