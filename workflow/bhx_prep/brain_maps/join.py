"""Tables with one row per ROI, and their join into ``rois.npz``, whose arrays become buffers of the model.

Harmonics, gradients and normaliser come from three jobs. They are joined by ROI name; tables whose orders or atlases
differ are refused, because a shifted row would pair the geometry of one place with the signal of another. An atlas
without a surface has no harmonics: its ROIs come from the description of the atlas then.

Examples
--------
::

    python -m bhx_prep.brain_maps.join --harmonics H.parquet --gradients G.parquet --normaliser N.parquet --out rois.npz
    python -m bhx_prep.brain_maps.join --atlas atlas.json --gradients G.parquet --normaliser N.parquet --out rois.npz
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model import contract
from bhx_model.atomic_write import atomic_write, read_json
from bhx_model.command_line import run_command
from bhx_model.errors import DataError

logger = logging.getLogger(__name__)


def write_table(path: Path, atlas: str, columns: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write a table of ROIs as Parquet, in one step.

    Parameters
    ----------
    path : Path
    atlas : str
        Label of the atlas, e.g. ``Schaefer17n400p``.
    columns : Mapping
        Column name to R values; ``name`` holds the ROI names in the order of the series.
    metadata : Mapping
        Becomes the schema's metadata ``bhx`` (canonical JSON), with ``atlas`` and ``roi_sha256`` added.
    """
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    known = {"atlas": atlas, "roi_sha256": contract.roi_sha256(atlas, list(columns["name"]))}
    table = table.replace_schema_metadata({"bhx": contract.canonical_json(dict(metadata) | known)})
    with atomic_write(path) as part:
        pq.write_table(table, part, compression="zstd")


def read_table(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_table` wrote: columns as arrays (R), and the metadata.

    Raises
    ------
    DataError
        If it is missing, no such table, or its names do not match their hash.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        msg = f"cannot read {path} as Parquet ({error}): run the step that makes it again"
        raise DataError(msg) from error
    metadata = json.loads((table.schema.metadata or {}).get(b"bhx", b"{}"))
    if "roi_sha256" not in metadata or "name" not in table.column_names:
        raise DataError(f"{path} is no table of ROIs: it has no ROI names or no `bhx` metadata")
    columns = {name: table[name].to_numpy() for name in table.column_names}
    if contract.roi_sha256(metadata["atlas"], columns["name"].tolist()) != metadata["roi_sha256"]:
        raise DataError(f"{path}: ROI names and their hash disagree: run the step that makes it again")
    return columns, metadata


def join(
    gradients: Path, normaliser: Path, *, harmonics: Path | None = None, atlas: Path | None = None
) -> dict[str, np.ndarray]:
    """Join the tables to the arrays of `contract.ROI_ARRAYS`.

    Parameters
    ----------
    gradients, normaliser : Path
        Tables of ROIs.
    harmonics : Path, optional
        Table of ROIs; None for an atlas without harmonics.
    atlas : Path, optional
        Its ``atlas.json``, in the place of `harmonics`.

    Raises
    ------
    DataError
        If atlases, names or orders differ, a value is not finite, or a scale is not positive.
    ValueError
        If neither `harmonics` nor `atlas` is given.
    """
    first = harmonics or atlas
    if first is None:
        raise ValueError("neither harmonics nor an atlas: whose ROIs are they?")
    h, metadata = read_table(harmonics) if harmonics else _described(first)
    names = h["name"].tolist()
    tables = [(path, *read_table(path)) for path in (gradients, normaliser)]
    for path, columns, its in tables:
        _check_same(first, path, names, columns["name"].tolist(), metadata, its)
    (g, n) = (columns for _, columns, _ in tables)
    modes = _matrix(h, "mode_") if harmonics else np.zeros((len(names), 0), np.float32)
    arrays = {
        "atlas": np.array(metadata["atlas"]),
        "names": np.array(names),
        "hemisphere": h["hemisphere"].astype(np.int8),
        "harmonics": modes,
        "eigenvalues": np.array(
            [metadata["eigenvalues"]["left"], metadata["eigenvalues"]["right"]], np.float64
        ),
        "gradients": _matrix(g, "gradient_"),
        "median": n["median"].astype(np.float32),
        "iqr": n["iqr"].astype(np.float32),
    }
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{name} holds values that are no numbers: run the step that makes it again")
    if not (arrays["iqr"] > 0).all():
        bad = names[int(np.argmin(arrays["iqr"]))]
        raise DataError(f"the scale of ROI {bad} is not positive: fit the normaliser again")
    return arrays


def _described(atlas: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """ROIs of an ``atlas.json``, as a table of harmonics without any."""
    described = read_json(atlas, "run the step that makes it again")
    columns = {
        name: np.array(described[key]) for name, key in (("name", "names"), ("hemisphere", "hemisphere"))
    }
    return columns, {"atlas": described["label"], "eigenvalues": {"left": [], "right": []}}


def _check_same(
    first: Path, path: Path, names: list[str], other: list[str], metadata: Mapping, other_metadata: Mapping
) -> None:
    if metadata["atlas"] != other_metadata["atlas"]:
        msg = f"{first} is of atlas {metadata['atlas']}, {path} of {other_metadata['atlas']}: compute both with one atlas"
        raise DataError(msg)
    if names == other:
        return
    if sorted(names) == sorted(other):
        row = next(i for i, (a, b) in enumerate(zip(names, other, strict=True)) if a != b)
        msg = f"{first} and {path} hold the same ROIs in different orders (row {row}: {names[row]}, {other[row]})"
    else:
        msg = f"{first} and {path} hold different ROIs ({len(names)} and {len(other)})"
    raise DataError(f"{msg}: compute both from the same results/templates")


def _matrix(columns: Mapping[str, np.ndarray], prefix: str) -> np.ndarray:
    names = sorted((c for c in columns if c.startswith(prefix)), key=lambda c: int(c.removeprefix(prefix)))
    return np.stack([columns[name] for name in names], axis=1).astype(np.float32)


def main(argv: Sequence[str] | None = None) -> int:
    """Join the tables given on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.brain_maps.join",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rois = parser.add_mutually_exclusive_group(required=True)
    rois.add_argument("--harmonics", type=Path)
    rois.add_argument("--atlas", type=Path, help="atlas.json, for an atlas without harmonics")
    parser.add_argument("--gradients", required=True, type=Path)
    parser.add_argument("--normaliser", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path, help="rois.npz")
    args = parser.parse_args(argv)
    return run_command(lambda: _write(args))


def _write(args: argparse.Namespace) -> None:
    arrays = join(args.gradients, args.normaliser, harmonics=args.harmonics, atlas=args.atlas)
    with atomic_write(args.out) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    logger.info("%s: %d ROIs of atlas %s", args.out, len(arrays["names"]), arrays["atlas"])


if __name__ == "__main__":
    sys.exit(main())
