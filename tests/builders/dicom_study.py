"""Maps and tables of a study whose DICOM files become BIDS; needs no pydicom."""

from __future__ import annotations

from pathlib import Path

import yaml

SERIES = [
    {"description": "*mprage*", "suffix": "T1w"},
    {"description": "ep2d*rest*", "suffix": "bold", "task": "rest"},
]


def write_map(study: Path, series: object = None, **more: object) -> None:
    """Write ``map.yaml`` of a study."""
    values = {"series": SERIES if series is None else series, **more}
    (study / "map.yaml").write_text(yaml.safe_dump(values))


def write_table(study: Path, *rows: str) -> None:
    """Write ``subjects.tsv``, the columns of each row separated by blanks."""
    (study / "subjects.tsv").write_text("".join("\t".join(row.split()) + "\n" for row in rows))
