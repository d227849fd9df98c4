"""Write a cohort's folder atomically: under a temporary name, completed with a marker, then renamed.

Also the few file formats of the demo, written so that equal content gives equal bytes.
"""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.errors import ConfigError

MARKER = ".bhx-synth.json"
BIDS_VERSION = "1.10.0"

#: Calls a function for each subject, as `map` does; `Executor.map` in several processes.
Each = Callable[..., Iterable[None]]


def is_finished(folder: Path, made_by: Mapping[str, Any]) -> bool:
    """Whether `folder` was made by `made_by` and still has every file in its original size."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
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
        What determines the content (version, seed, sizes); written to the marker.
    fill : callable
        Writes everything into the folder that is its argument.
    force : bool
        Make it again in any case, and also in place of a folder that has no marker.

    Returns
    -------
    bool
        False if it was complete already.

    Raises
    ------
    ConfigError
        If `folder` exists and was not made by this function.
    """
    if not force and is_finished(folder, made_by):
        return False
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file() and not force:
        msg = (
            f"{folder} exists and was not made by `bhx synth`: name another folder with --out, or add --force"
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


def for_each(write: Callable[[Any], None], subjects: Sequence[Any], each: Each) -> None:
    """Write the files of all subjects, in this process or in those of `each`."""
    deque(each(write, subjects), maxlen=0)


def write_text(path: Path, text: str) -> None:
    """Write a text file that ends with a newline."""
    with atomic_write(path) as part:
        part.write_text(text.removesuffix("\n") + "\n", encoding="utf-8")


def write_tsv(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray], digits: int = 6) -> None:
    """Write a BIDS table: tab-separated, ``n/a`` for NaN, floats with `digits` significant digits."""

    def text(value: Any) -> str:
        if isinstance(value, float | np.floating):
            return "n/a" if np.isnan(value) else f"{value:.{digits}g}"
        return str(value)

    rows = zip(*columns.values(), strict=True)
    write_text(path, "\n".join(["\t".join(columns), *("\t".join(map(text, row)) for row in rows)]))


def write_nifti(
    path: Path, data: np.ndarray, affine: np.ndarray, *, tr_s: float | None = None, scanner: bool = False
) -> None:
    """Write a gzipped NIfTI with mm and seconds in its header.

    Parameters
    ----------
    path : Path
    data : numpy.ndarray of shape (X, Y, Z) or (X, Y, Z, T)
        Its dtype is kept.
    affine : numpy.ndarray of shape (4, 4)
        Voxel to mm.
    tr_s : float, optional
        Repetition time in seconds, for 4D data.
    scanner : bool
        Scanner coordinates (code 1) in place of MNI ones (code 4).
    """
    image = nib.Nifti1Image(data, affine)
    code = 1 if scanner else 4
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm", "sec")
    if tr_s is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr_s))
    with atomic_write(path) as part:
        image.to_filename(part)


def write_series(path: Path, names: Sequence[str], values: np.ndarray) -> None:
    """Write parcel series (R, T) as a Parquet table: float32, one row a frame, one column a parcel."""
    columns = {name: pa.array(row.astype(np.float32)) for name, row in zip(names, values, strict=True)}
    with atomic_write(path) as part:
        pq.write_table(
            pa.table(columns),
            part,
            compression="zstd",
            use_dictionary=False,
            use_byte_stream_split=True,
            write_statistics=False,
        )


def describe(folder: Path, name: str, text: str, *, derivative: bool, version: str) -> None:
    """Write what makes a folder a BIDS dataset: dataset_description.json and README, both marked as synthetic."""
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
    write_text(folder / "README", f"{name} (synthetic)\n\n{text}")
    if derivative:
        ignore_non_bids(folder)


def ignore_non_bids(folder: Path) -> None:
    """Write .bidsignore as fMRIPrep does: files of the derivatives that BIDS has no rules for yet."""
    names = ("planted.json", "*_boldref.*", "*_hemi-*", "*_timeseries.*")
    write_text(folder / ".bidsignore", "\n".join(names))


#: Description of the columns that are drawn for every participants.tsv.
PARTICIPANT_COLUMNS = {
    "age": {"Description": "Drawn at random", "Units": "years"},
    "sex": {"Description": "Drawn at random", "Levels": {"F": "female", "M": "male"}},
}


def write_participants(
    folder: Path,
    rng: np.random.Generator,
    labels: Sequence[str],
    more: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    described: Mapping[str, Any] | None = None,
) -> None:
    """Draw age and sex, and write participants.tsv and participants.json.

    Parameters
    ----------
    folder : Path
        The cohort's.
    rng : numpy.random.Generator
        Of age and sex.
    labels : sequence of str
        Labels of the subjects, without ``sub-``.
    more : Mapping, optional
        Further columns.
    described : Mapping, optional
        Their description for participants.json.
    """
    columns = {
        "participant_id": [f"sub-{label}" for label in labels],
        "age": rng.uniform(20, 75, len(labels)).round(1),
        "sex": rng.choice(["F", "M"], len(labels)),
        **(more or {}),
    }
    write_tsv(folder / "participants.tsv", columns, digits=4)
    write_json(
        folder / "participants.json",
        {"participant_id": {"Description": "Synthetic subject"}, **PARTICIPANT_COLUMNS, **(described or {})},
    )
