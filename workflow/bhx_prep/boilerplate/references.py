"""References of a text: the BibTeX entries that it cites."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

OWN = Path(__file__).with_name("references.bib")

#: A citation of Pandoc: ``[@key]``, ``[@key; @other]`` or ``@key`` alone; an address of mail is none.
_CITED = re.compile(r"(?<![\w.])@([A-Za-z][\w:-]*)")


def entries(bib: str) -> dict[str, str]:
    """Entries of a file in BibTeX by their keys; braces that are never closed end the last one."""
    found: dict[str, str] = {}
    for match in re.finditer(r"@\w+\s*\{\s*([^,\s}]+)\s*,", bib):
        depth, end = 0, len(bib)
        for at in range(bib.index("{", match.start()), len(bib)):
            depth += {"{": 1, "}": -1}.get(bib[at], 0)
            if depth == 0:
                end = at + 1
                break
        found[match[1]] = bib[match.start() : end]
    return found


def cited(text: str) -> list[str]:
    """Keys that a text cites, each once, in their order."""
    return list(dict.fromkeys(_CITED.findall(text)))


def bibliography(text: str, *known: Mapping[str, str]) -> tuple[str, list[str]]:
    """The entries of what a text cites, and keys that have none.

    Parameters
    ----------
    text : str
    *known : mappings
        Entries by key; the first that has a key decides.
    """
    found: list[str] = []
    missing: list[str] = []
    for key in cited(text):
        entry = next((some[key] for some in known if key in some), None)
        if entry is None:
            missing.append(key)
        else:
            found.append(entry)
    return "\n\n".join(found) + ("\n" if found else ""), missing


def read_entries(files: Iterable[Path]) -> dict[str, str]:
    """Entries of several files; the first that has a key decides."""
    found: dict[str, str] = {}
    for path in files:
        for key, entry in entries(path.read_text(encoding="utf-8", errors="replace")).items():
            found.setdefault(key, entry)
    return found
