"""Which existing files a command may replace: those that BHX wrote, never the user's."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.errors import ConfigError


def check_table(path: Path) -> None:
    """Refuse to write a table where there is a file that is no table of BHX's.

    Raises
    ------
    ConfigError
        If it is somebody's own.
    """
    if not path.exists():
        return
    try:
        ours = b"bhx" in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        ours = False
    if not ours:
        raise ConfigError(f"{path} is there, and BHX did not make it: give another --out, or remove it first")


def check_dataset(folder: Path, program: str) -> None:
    """Refuse to write into a folder with files, unless it is a BIDS dataset that a program of ours made.

    Parameters
    ----------
    folder : Path
    program : str
        As its ``dataset_description.json`` has it in `GeneratedBy`.

    Raises
    ------
    ConfigError
        If the folder has files, and no such description.
    """
    # what is left of a killed process is nobody's
    if not folder.is_dir() or all(path.name.startswith(".part") for path in folder.iterdir()):
        return
    try:
        described = json.loads((folder / "dataset_description.json").read_text(encoding="utf-8"))
        made_by = {one["Name"] for one in described["GeneratedBy"]}
    except (OSError, ValueError, KeyError, TypeError):
        made_by = set()
    if program not in made_by:
        raise ConfigError(f"{folder} has files that `{program}` did not make: give an empty folder to --out")
