"""All pictures of a batch in one file, which the page loads as a script when one of its scans is opened.

A page that is opened from a disk may load scripts beside it, but read no other files; and an SVG per scan and kind would be
a quarter of a million files of a large cohort.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import DataError

_FUNCTION: Final = "bhxPicture"

#: A picture: sample key, modality, kind, and the SVG.
Picture = tuple[str, str, str, str]


def write(path: Path, pictures: Iterable[Picture]) -> int:
    """Write pictures, a line each; returns how many."""
    n = 0
    with atomic_write(path) as part, part.open("w", encoding="ascii", newline="\n") as file:
        for picture in pictures:
            file.write(f"{_FUNCTION}({','.join(json.dumps(field) for field in picture)});\n")
            n += 1
    return n


def read(path: Path) -> Iterator[Picture]:
    """Pictures of a file.

    Raises
    ------
    DataError
        If it is none of these.
    """
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            fields = json.loads(f"[{line.removeprefix(f'{_FUNCTION}(').removesuffix(');')}]")
            key, modality, kind, svg = map(str, fields)
            yield key, modality, kind, svg
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read ({type(error).__name__}): remove it, and `snakemake qc` draws it again"
        raise DataError(msg) from error
