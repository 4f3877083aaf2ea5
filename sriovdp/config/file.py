"""The way into the config file: all of it is valid, or all its faults are listed at once."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sriovdp.config.document import MAX_BYTES, Document, KeyPath, write_path
from sriovdp.config.faults import list_faults, write_sentences
from sriovdp.config.flags import NO_FLAGS, Flags
from sriovdp.config.forms import Faults
from sriovdp.config.nodes import NodeIdentity, is_for, select_entries
from sriovdp.config.objects import find_object
from sriovdp.config.rules import find_broken
from sriovdp.config.shadows import find_shadowed
from sriovdp.config.text import read
from sriovdp.config.upstream import correct
from sriovdp.config.values import Config
from sriovdp.errors import ConfigError

_EMPTY = "line 1: the file: is empty; give it physicalFunctions (PFs to split), resourceList (pools) or both"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config for one node, and where in the file its entries are, in the same order."""

    config: Config
    document: Document
    pf_places: tuple[KeyPath, ...]
    pool_places: tuple[KeyPath, ...]

    def tell(self, sentences: Iterable[tuple[KeyPath, str]]) -> list[str]:
        """Sentences about places, by line and path."""
        return write_sentences((self.document.line(place), place, sentence) for place, sentence in sentences)


def load(path: Path, identity: NodeIdentity | None = None, *, key: str = "", flags: Flags = NO_FLAGS) -> Config:
    """Read a config file as it holds for a node, for this one if none is given.

    Of a Kubernetes manifest, the text under `key` is read: if none is given, that of the node's name or the only one.
    Raises ConfigError when it cannot be read, and for all its faults at once.
    """
    return load_with_places(path, identity, key=key, flags=flags).config


def load_with_places(
    path: Path, identity: NodeIdentity | None = None, *, key: str = "", flags: Flags = NO_FLAGS
) -> Loaded:
    """Read a config file as `load` does, and keep where everything was. Raises ConfigError."""
    return load_text(read_text(path), str(path), identity, key=key, flags=flags)


def load_text(
    text: str, source: str, identity: NodeIdentity | None = None, *, key: str = "", flags: Flags = NO_FLAGS
) -> Loaded:
    """Read the text of a config file as `load_with_places` does; `source` is its name in messages."""
    who = identity or NodeIdentity.find()
    config, document = _parse(text, source, flags, key, who.name)
    selected = select_entries(config, who, source)
    pfs = tuple(n for n, entry in enumerate(config.physical_functions) if is_for(entry.nodes, who))
    pools = tuple(n for n, pool in enumerate(config.pools) if is_for(pool.nodes, who))
    return Loaded(
        selected,
        document,
        tuple(("physicalFunctions", n) for n in pfs),
        tuple(("resourceList", n) for n in pools),
    )


def parse(text: str, source: str, *, key: str = "", node: str = "", flags: Flags = NO_FLAGS) -> Config:
    """Read the text of a config file, entries for all nodes; `source` is its name in messages.

    Of a Kubernetes manifest, the text under `key` is read: if none is given, that of the node's name or the only one.
    Raises ConfigError with all faults.
    """
    return _parse(text, source, flags, key, node)[0]


def read_text(path: Path) -> str:
    """Read the text of a file. Raises ConfigError when it cannot be read, or is no text."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        return content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), [f"line {line}: not UTF-8 text ({error.reason})"]) from error


def _parse(text: str, source: str, flags: Flags, key: str, node: str) -> tuple[Config, Document]:
    document, warnings = correct(read(text, source, key=key, node=node))
    flags.fill(document.tree)
    if document.tree in (None, {}):
        raise ConfigError(source, [_EMPTY])
    faults = Faults(list(find_broken(document.tree)))
    config = find_object(Config).read(document.tree, (), faults)
    if faults.found or document.duplicates:
        raise ConfigError(source, list_faults(document, faults.found))
    if isinstance(document.tree, dict) and "resourceList" in document.tree and not config.pools:
        place = ("resourceList",)
        warnings.append((document.line(place), place, "is empty: no device is offered"))
    warnings += [(document.line(place), place, sentence) for place, sentence in _list_shadowed(config)]
    return replace(config, warnings=tuple(write_sentences(warnings))), document


def _list_shadowed(config: Config) -> Iterable[tuple[KeyPath, str]]:
    for number, hiders in find_shadowed(config.pools):
        earlier = " and ".join(write_path(("resourceList", hider)) for hider in hiders)
        yield ("resourceList", number), f"gets no device: {earlier} takes all that it selects; put it before that"
