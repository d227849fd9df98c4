"""Read scans from files for `embed`: series tables, BOLD images with an atlas, T1 images. nibabel and pandas are extras."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bhx_model.atomic_write import read_json
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import ConfigError, DataError, SiteError
from bhx_model.release.series_input import by_names, numbers_of, texts

logger = logging.getLogger(__name__)

#: Endings of tables of series.
TABLES: Final = (".parquet", ".tsv", ".tsv.gz", ".csv", ".csv.gz")
#: Endings of volumes.
VOLUMES: Final = (".nii", ".nii.gz")
#: Endings of series on a surface, or of parcels.
CIFTI: Final = (".dtseries.nii", ".ptseries.nii")
#: Share of a parcel's voxels with signal below which its series is NaN, as `features.min_coverage` has it.
MIN_COVERAGE: Final = 0.5
#: Seconds in the units of time that a NIfTI header may state.
_SECONDS: Final = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}


def is_path(value: Any) -> bool:
    """Whether it names a file."""
    return isinstance(value, str | os.PathLike)


def is_image(value: Any) -> bool:
    """Whether it is an image of nibabel."""
    return hasattr(value, "dataobj") and hasattr(value, "affine")


def needed(name: str, what: str) -> ModuleType:
    """Import a package that BHX's extra `prep` installs.

    Raises
    ------
    SiteError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"{what} needs {name}: pip install {name}, or 'bhx[prep]'"
        raise SiteError(msg) from error


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file in it")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file: check the name")


def open_image(value: Any, what: str) -> Any:
    """Image of a path, or the image itself.

    Raises
    ------
    DataError
        If there is no such file, or it is no image.
    """
    if is_image(value):
        return value
    if not is_path(value):
        raise DataError(f"{what} is given as {type(value).__name__}: give a path, or an image of nibabel")
    nib = needed("nibabel", what)
    path = Path(value)
    _check_file(path)
    try:
        return nib.load(path)
    except nib.filebasedimages.ImageFileError as error:
        raise DataError(f"{path} is no image that nibabel reads: give NIfTI") from error


def voxels(image: Any, what: str, ndim: int) -> NDArray[np.float32]:
    """Voxels of an image, with so many axes.

    Raises
    ------
    DataError
        If it is damaged, or has other axes.
    """
    dtype = image.get_data_dtype()
    if dtype.kind not in "fiu":
        raise DataError(f"{what} holds {str(dtype)[:40]}: give real numbers")
    try:
        data = np.asarray(image.dataobj, np.float32)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        why = str(error).splitlines()[0][:80]
        raise DataError(f"{what} is truncated or damaged ({why}): copy it again") from error
    while data.ndim > ndim and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != ndim or not data.size:
        raise DataError(f"{what} has shape {data.shape}: {ndim} axes are expected")
    return data


def affine_of(image: Any, what: str) -> NDArray[np.float64]:
    """Voxel to space (mm) of an image, (4, 4).

    Raises
    ------
    DataError
        If it cannot be inverted.
    """
    affine = np.asarray(image.affine, float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise DataError(f"{what}: the affine of its header cannot be inverted, so its place is unknown")
    return affine


def open_series(
    series: Any, tr_s: Any, roi_names: Any, atlas: Any, rois: RoiMetadata
) -> tuple[Any, Any, Any]:
    """Series, repetition time and ROI names of a file or image; other things as they were given.

    Parameters
    ----------
    series : path, image, or anything else
        A table (Parquet, TSV, CSV), an array (``.npy``), series of parcels (``.ptseries.nii``), or a BOLD volume, as a
        path in a BIDS data set or as an image.
    tr_s : float or None
        None takes the one that the file's sidecar, header or metadata states.
    roi_names : sequence of str or None
        Of a BOLD volume with a bare label image: names of its labels, rising.
    atlas : path, image or None
        For BOLD: a label image in the same space, or a folder of templates that ``fetch_templates`` wrote.
    rois : RoiMetadata

    Raises
    ------
    DataError, ConfigError, SiteError
        If a file cannot be read, something is missing, or a package is.
    """
    if is_path(series):
        path = Path(series)
        _check_file(path)
        stated = _stated_tr(path) if tr_s is None else None
        if path.name.endswith(TABLES):
            series, of_table = _read_table(path)
            stated = of_table if stated is None else stated
        elif path.name.endswith(".npy"):
            series = read_array(path)
        elif path.name.endswith(CIFTI):
            series, of_table = _of_parcels(open_image(path, "a CIFTI image"), path.name, roi_names, rois)
            stated = of_table if stated is None else stated
            roi_names = rois.names
        elif path.name.endswith(VOLUMES):
            return _of_bold(open_image(path, "a BOLD image"), path.name, tr_s, stated, roi_names, atlas, rois)
        else:
            kinds = ", ".join((*TABLES, ".npy", ".ptseries.nii", *VOLUMES))
            msg = f"{path.name} is none of {kinds}: `bhx parcellate` makes a table of other images"
            raise DataError(msg)
        tr_s = stated if tr_s is None else tr_s
    elif is_image(series):
        return _of_bold(series, "the series", tr_s, None, roi_names, atlas, rois)
    elif hasattr(series, "header") and hasattr(series, "to_filename"):  # another image of nibabel
        series, stated = _of_parcels(series, "the image", roi_names, rois)
        tr_s, roi_names = stated if tr_s is None else tr_s, rois.names
    if atlas is not None:
        raise ConfigError(
            "an atlas is for BOLD images alone, these series are of parcels already: leave it out"
        )
    return series, tr_s, roi_names


def _of_parcels(
    image: Any, name: str, roi_names: Any, rois: RoiMetadata
) -> tuple[NDArray[np.float64], float | None]:
    """Series of a CIFTI image of parcels, rows in the model's order, and its repetition time, s."""
    cifti2 = needed("nibabel", "a CIFTI image").cifti2
    axes = (
        [image.header.get_axis(i) for i in range(image.ndim)] if isinstance(image, cifti2.Cifti2Image) else []
    )
    if [type(axis) for axis in axes] != [cifti2.SeriesAxis, cifti2.ParcelsAxis]:
        msg = f"{name} is no volume and no CIFTI series of parcels: `bhx parcellate` makes a table of it"
        raise DataError(msg)
    frames, parcels = axes
    names = texts(parcels.name, f"{name}'s parcels")
    if roi_names is not None and sorted(texts(roi_names, "roi_names")) != sorted(names):
        raise DataError(f"{name} has names of its own, other than roi_names: leave roi_names out")
    data = voxels(image, name, 2)
    tr_s = float(frames.step) if frames.unit == "SECOND" else None
    return by_names(data.T.astype(np.float64), names, rois), tr_s


def _read_table(path: Path) -> tuple[Any, float | None]:
    pandas = needed("pandas", "a table")
    try:
        if path.name.endswith(".parquet"):
            table = pandas.read_parquet(path)
            about = importlib.import_module("pyarrow.parquet").read_schema(path).metadata or {}
            try:
                return table, float(json.loads(about[b"bhx"])["tr_s"])
            except (KeyError, TypeError, ValueError):
                return table, None
        sep, kind = (",", "commas") if ".csv" in path.suffixes else ("\t", "tabs")
        table = pandas.read_csv(path, sep=sep)
    except (OSError, EOFError, ValueError, ImportError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as a table ({str(error)[:60]}): check the file") from error
    if table.shape[1] == 1 and re.search(r"[,;\t ]", str(table.columns[0]).strip()):
        raise DataError(
            f"{path.name} has one column: its name promises {kind} between columns, save it with them"
        )
    return table, None


def read_array(path: Path) -> NDArray[Any]:
    """Array of an ``.npy``.

    Raises
    ------
    DataError
        If it is none, or holds objects.
    """
    _check_file(path)
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is no .npy of plain numbers: save it with numpy.save") from error


def _of_bold(
    image: Any, name: str, tr_s: Any, stated: float | None, roi_names: Any, atlas: Any, rois: RoiMetadata
) -> tuple[NDArray[np.float64], Any, tuple[str, ...]]:
    if atlas is None:
        msg = (
            f"{name} is a BOLD image: give atlas=, a label image of {rois.atlas} in its space, or a study's "
            "results/templates"
        )
        raise ConfigError(msg)
    header = _header_tr(image)
    if tr_s is None:
        tr_s = header if stated is None else stated
        if tr_s is None:
            raise DataError(f"neither sidecar nor header of {name} states a repetition time: give tr_s")
        if header is not None and abs(tr_s - header) > 0.01 * header:
            logger.warning(
                "%s: sidecar states a TR of %g s, header %g: the sidecar counts", name, tr_s, header
            )
    labels, names = _open_atlas(atlas, roi_names, rois)
    logger.warning("%s: means of parcels as they are; denoise it first, as the weights' data were", name)
    data = voxels(image, name, 4)
    means = parcel_means(data, affine_of(image, name), labels, len(names))
    return by_names(means, names, rois), tr_s, rois.names


def _open_atlas(atlas: Any, roi_names: Any, rois: RoiMetadata) -> tuple[Any, list[str]]:
    if is_path(atlas) and Path(atlas).is_dir():
        folder = Path(atlas)
        try:
            about = read_json(folder / "atlas.json", "run the step fetch_templates again")
        except OSError as error:
            msg = f"{folder} is no folder of templates (no atlas.json): name one, or a label image"
            raise DataError(msg) from error
        return open_image(folder / "atlas_volume.nii.gz", "an atlas"), texts(about.get("names"), "atlas.json")
    if roi_names is None:
        msg = (
            f"the labels of the atlas have no names: give roi_names= in rising order of the labels ({len(rois)} names; "
            "model.roi_names if they are in the model's order)"
        )
        raise DataError(msg)
    return open_image(atlas, "an atlas"), texts(roi_names, "roi_names")


def parcel_means(
    data: NDArray[np.float32], affine: NDArray[np.float64], atlas: Any, n_rois: int
) -> NDArray[np.float64]:
    """Mean series of every label of an atlas, on the grid of the data.

    Parameters
    ----------
    data : (I, J, K, T) float32
    affine : (4, 4)
        Voxel to space, mm.
    atlas : image of nibabel
        Whole numbers from 0, in the same space on any grid; the nearest voxel counts.
    n_rois : int
        How many labels there have to be.

    Returns
    -------
    (R, T) float64
        By rising label; NaN where fewer than half of a parcel's voxels have a signal.

    Raises
    ------
    DataError
        If it has other labels, or covers little of the data.
    """
    numbers = np.nan_to_num(voxels(atlas, "the atlas", 3))
    found = np.unique(numbers[numbers != 0])
    if (found < 0).any() or (found != np.round(found)).any():
        raise DataError(
            "the atlas holds numbers that are no labels: give whole numbers from 0, not interpolated"
        )
    if len(found) != n_rois:
        msg = f"the atlas has {len(found)} labels, there are {n_rois} names: take the label image of the model's atlas"
        raise DataError(msg)
    place = np.linalg.inv(affine_of(atlas, "the atlas")) @ affine
    index = np.stack(np.meshgrid(*map(np.arange, data.shape[:3]), indexing="ij"), axis=-1).reshape(-1, 3)
    at = np.rint(index @ place[:3, :3].T + place[:3, 3]).astype(np.int64)
    inside = ((at >= 0) & (at < numbers.shape)).all(axis=1)
    label = np.zeros(len(at), np.int64)
    ranked = np.where(numbers > 0, np.searchsorted(found, numbers) + 1, 0)
    label[inside] = ranked[tuple(at[inside].T)]
    chosen = np.flatnonzero(label)
    series = data.reshape(-1, data.shape[3])[chosen]
    signal = np.asarray(np.isfinite(series).all(axis=1))
    signal &= np.ptp(np.where(signal[:, None], series, 0), axis=1) > 0
    rows, series = label[chosen][signal] - 1, series[signal]
    count = np.bincount(rows, minlength=n_rois)
    volume = abs(np.linalg.det(place[:3, :3]))  # of a voxel of the data, in voxels of the atlas
    expected = np.bincount(ranked.ravel(), minlength=n_rois + 1)[1:] / volume
    covered = (count > 0) & (count >= MIN_COVERAGE * np.floor(expected))
    if covered.mean() < MIN_COVERAGE:
        msg = (
            f"{int(covered.sum())} of {n_rois} parcels of the atlas have a signal in the BOLD image: give an atlas in its "
            "space"
        )
        raise DataError(msg)
    means = np.full((n_rois, data.shape[3]), np.nan)
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], np.flatnonzero(count))
    sums = np.add.reduceat(series[order].astype(np.float64), starts, axis=0)
    means[count > 0] = sums / count[count > 0, None]
    means[~covered] = np.nan
    return means


def _header_tr(image: Any) -> float | None:
    """Repetition time of a header, s; None where it was never filled in, and programs leave 0 or, without a unit, 1."""
    zooms = [float(zoom) for zoom in image.header.get_zooms()]
    if len(zooms) < 4 or zooms[3] <= 0 or all(zoom == 1 for zoom in zooms):
        return None
    try:
        unit = image.header.get_xyzt_units()[1]
    except (AttributeError, KeyError):  # another format, or a code that the standard does not know
        unit = "unknown"
    if unit not in _SECONDS or (unit == "unknown" and zooms[3] == 1):
        return None
    return zooms[3] * _SECONDS[unit]


def _stated_tr(path: Path) -> float | None:
    """``RepetitionTime`` of the nearest JSON that applies to a file, by BIDS's rule of inheritance."""
    for sidecar in _sidecars(path):
        about = read_json(sidecar, "correct the sidecar")
        value = about.get("RepetitionTime")
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def _sidecars(path: Path) -> Iterator[Path]:
    entities, suffix = _entities(path)
    same = path.with_name(f"{path.name.split('.')[0]}.json")
    if same.is_file():
        yield same
    folder = path.absolute().parent
    for above in (folder, *list(folder.parents)[:4]):
        for file in sorted(above.glob(f"*_{suffix}.json")) if suffix else []:
            if file.name != same.name and _entities(file)[0].items() <= entities.items():
                yield file
        if (above / "dataset_description.json").exists():
            return


def _entities(path: Path) -> tuple[Mapping[str, str], str]:
    *pairs, suffix = path.name.split(".")[0].split("_")
    found = dict(pair.split("-", 1) for pair in pairs if re.fullmatch(r"[a-zA-Z]+-.+", pair))
    return found, suffix if found else ""


def open_t1w(
    t1w: Any, mask: Any
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32] | None, str]:
    """Voxels (X, Y, Z) and affine (4, 4), to mm, of a T1 image, voxels of its mask, and what it is called.

    Raises
    ------
    DataError
        If a file cannot be read, or the mask is on another grid.
    """
    name = Path(t1w).name if is_path(t1w) else "the T1"
    image = open_image(t1w, "a T1 image")
    data, affine = voxels(image, name, 3), affine_of(image, name)
    if mask is None:
        return data, affine, None, name
    if not (is_path(mask) or is_image(mask)):
        inside = np.asarray(_of_array(mask), np.float32)
    else:
        mask_image = open_image(mask, "a brain mask")
        inside = voxels(mask_image, "the brain mask", 3)
        if inside.shape == data.shape and not np.allclose(mask_image.affine, affine, atol=1e-2):
            raise DataError(f"the brain mask has another affine than {name}: give the mask of this image")
    if inside.shape != data.shape:
        raise DataError(
            f"the brain mask has shape {inside.shape}, {name} has {data.shape}: give the mask of this image"
        )
    return data, affine, inside, name


def _of_array(mask: Any) -> NDArray[np.float64]:
    """A mask as numbers: truth values, which no series or T1 may have, are 0 and 1."""
    if str(getattr(mask, "dtype", "")) in ("bool", "torch.bool"):
        mask = mask * 1
    return numbers_of(mask, "the brain mask")
