"""Read ``.npz`` files without unpickling; damaged files raise a `DataError`. Needs no torch."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import DataError


def read(path: Path | str, remedy: str, only: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Arrays of an ``.npz`` by their names.

    Parameters
    ----------
    path
        File.
    remedy
        What to do if it is broken, for the message.
    only
        Names of those to read, as far as they are there; all if None.

    Raises
    ------
    DataError
        If it is no such file, a damaged one, or holds objects.
    OSError
        If it cannot be read.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if only is None or name in only}
    except OSError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each have their own
        msg = f"{path} is no .npz of plain arrays, or a broken one: {remedy}"
        raise DataError(msg) from error


def object_of(array: NDArray[Any] | None) -> dict[str, Any]:
    """The JSON object that an array of one text, (), holds; empty where it holds none."""
    try:
        value = json.loads(str(array))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def join(files: Sequence[Path], out: Path) -> None:
    """Make an .npz of .npy files, uncompressed; equal arrays give equal bytes."""
    with atomic_write(out) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            member: Any = zipfile.ZipInfo(file.name)
            with file.open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
