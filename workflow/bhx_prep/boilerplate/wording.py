"""Format numbers and lists for text."""

from __future__ import annotations

from collections.abc import Iterable


def several(words: Iterable[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    listed = list(words)
    return f" {last} ".join(filter(None, (", ".join(listed[:-1]), *listed[-1:])))


def count(n: int, one: str, many: str | None = None) -> str:
    """``1 run``, ``12 runs``, ``43,112 subjects``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def share(part: int, whole: int, one: str) -> str:
    """``12 of 14 runs``; ``all 14 runs``."""
    return f"all {count(whole, one)}" if part == whole and whole > 1 else f"{part:,} of {count(whole, one)}"
