"""Choices by dice, in place of a fuzzer."""

import random


class Dice:
    """Choices by a seeded random number generator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._left = self._random.randrange(200)

    def ConsumeIntInRange(self, least: int, most: int) -> int:  # noqa: N802 - the fuzzer's names
        """Give a number."""
        return self._random.randint(least, most)

    def ConsumeUnicode(self, length: int) -> str:  # noqa: N802
        """Give a text."""
        return "".join(chr(self._random.choice((0, 32, 47, 48, 97, 0x300, 0xD800, 0x1F600))) for _ in range(length))

    def ConsumeBytes(self, length: int) -> bytes:  # noqa: N802
        """Give bytes."""
        return self._random.randbytes(length)

    def remaining_bytes(self) -> int:
        """How much is left to decide by."""
        return self._left
