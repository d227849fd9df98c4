"""A cohort's folder: made beside its final name, finished with a marker, never half there.

Also the few file formats of the demo, written so that equal content gives equal bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.errors import ConfigError

MARKER = ".bhx-synth.json"
BIDS_VERSION = "1.10.0"


def is_finished(folder: Path, made_by: Mapping[str, Any]) -> bool:
    """Whether `folder` was made by `made_by` and still holds every file that it had then, in its size."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if {key: marker.get(key) for key in made_by} != dict(made_by):
        return False
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    return all(sizes.get(name) == size for name, size in marker["files"].items())


def make(
    folder: Path, made_by: Mapping[str, Any], fill: Callable[[Path], Any], *, force: bool = False
) -> bool:
    """Make a folder with `fill` unless it is finished.

    Parameters
    ----------
    folder : Path
        Its final name.
    made_by : Mapping
        What decides the content (version, seed, sizes); stands in the marker.
    fill : callable
        Writes everything into the folder that it is given.
    force : bool
        Make it again in any case, and also in place of a folder that has no marker.

    Returns
    -------
    bool
        False if there was nothing to do.

    Raises
    ------
    ValueError
        If `folder` is somebody else's.
    """
    if not force and is_finished(folder, made_by):
        return False
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file() and not force:
        msg = (
            f"{folder} exists and was not made by `bhx synth`: name another folder with --out, or say --force"
        )
        raise ConfigError(msg)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    files = {str(p.relative_to(partial)): p.stat().st_size for p in sorted(partial.rglob("*")) if p.is_file()}
    write_json(partial / MARKER, {**made_by, "files": files})
    if folder.exists():
        shutil.rmtree(folder)
    partial.replace(folder)
    return True


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people: sorted, indented, with a final newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def write_tsv(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray], digits: int = 6) -> None:
    """Write a BIDS table: tab-separated, ``n/a`` for NaN, floats with `digits` significant digits."""

    def text(value: Any) -> str:
        if isinstance(value, float | np.floating):
            return "n/a" if np.isnan(value) else f"{value:.{digits}g}"
        return str(value)

    rows = zip(*columns.values(), strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(columns), *("\t".join(map(text, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_nifti(
    path: Path, data: np.ndarray, affine: np.ndarray, *, tr_s: float | None = None, scanner: bool = False
) -> None:
    """Write a gzipped NIfTI with mm and seconds in its header.

    Parameters
    ----------
    data : numpy.ndarray of shape (X, Y, Z) or (X, Y, Z, T)
        Its dtype is kept.
    affine : numpy.ndarray of shape (4, 4)
        Voxel to mm.
    tr_s : float, optional
        Repetition time in seconds, for 4D data.
    scanner : bool
        Scanner coordinates (code 1) in place of MNI ones (code 4).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    code = 1 if scanner else 4
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm", "sec")
    if tr_s is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr_s))
    image.to_filename(path)


def write_series(path: Path, names: Sequence[str], values: np.ndarray) -> None:
    """Write parcel series (R, T) as a Parquet table: float32, one row a frame, one column a parcel."""
    columns = {name: pa.array(row.astype(np.float32)) for name, row in zip(names, values, strict=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table(columns),
        path,
        compression="zstd",
        use_dictionary=False,
        use_byte_stream_split=True,
        write_statistics=False,
    )


def describe(folder: Path, name: str, text: str, *, derivative: bool, version: str) -> None:
    """Write what makes a folder a BIDS dataset: dataset_description.json and README, both saying `synthetic`."""
    write_json(
        folder / "dataset_description.json",
        {
            "Name": f"{name} (synthetic)",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative" if derivative else "raw",
            "License": "CC0",
            "Synthetic": True,
            "GeneratedBy": [{"Name": "bhx synth", "Version": version, "Description": text.split("\n\n")[0]}],
        },
    )
    (folder / "README").write_text(f"{name} (synthetic)\n\n{text}\n", encoding="utf-8")
    if derivative:
        ignore_non_bids(folder)


def ignore_non_bids(folder: Path) -> None:
    """Write .bidsignore as fMRIPrep does: files of the derivatives that BIDS has no rules for yet."""
    names = ("planted.json", "*_boldref.*", "*_bold.func.gii", "*_timeseries.*")
    (folder / ".bidsignore").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


#: Facts about the drawn columns of every participants.tsv.
PARTICIPANT_COLUMNS = {
    "age": {"Description": "Drawn at random: nobody has this age", "Units": "years"},
    "sex": {"Description": "Drawn at random", "Levels": {"F": "female", "M": "male"}},
}


def write_participants(
    folder: Path,
    columns: Mapping[str, Sequence[Any] | np.ndarray],
    described: Mapping[str, Any] | None = None,
) -> None:
    """Write participants.tsv and a participants.json that says what was drawn."""
    write_tsv(folder / "participants.tsv", columns, digits=4)
    write_json(
        folder / "participants.json",
        {
            "participant_id": {"Description": "Synthetic person"},
            **{name: PARTICIPANT_COLUMNS[name] for name in columns if name in PARTICIPANT_COLUMNS},
            **(described or {}),
        },
    )
