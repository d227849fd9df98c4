"""Read ROI x time tables that were made elsewhere, and bring their rows to the atlas's order.

Known shapes: CSV or TSV (also gzipped) and Parquet with ROI names in the first column (UK Biobank's published
parcellation) or as column names (XCP-D), CIFTI ``.ptseries.nii``, and ``.npy`` or nameless tables of ROI x time.
Names decide the order. A table without names is believed if its number of ROIs is right, and a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.features.parcel_means import Parcellated
from bhx_prep.features.parcellate import refuse_blank_frames
from bhx_prep.io import cifti, notes
from bhx_prep.io.reading import reading

_NETWORKS = re.compile(r"^(7|17)networks_", re.IGNORECASE)


@dataclass(frozen=True)
class GivenSeries:
    """A table in the atlas's order.

    Attributes
    ----------
    parcellated : Parcellated
        Coverage is 1 where a row has values that vary, else 0 and the row is NaN.
    notes : list of str
        What was assumed or changed, see `bhx_prep.io.notes`.
    """

    parcellated: Parcellated
    notes: list[str]


def read_series(path: Path, atlas: Atlas) -> GivenSeries:
    """Read one run.

    Raises
    ------
    DataError
        If the table is unreadable, its ROIs are not the atlas's, or nothing in it varies.
    """
    names, values = _read(path)
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        msg = f"{path.name} holds an array of shape {values.shape} and type {values.dtype}: ROI x time numbers are expected"
        raise DataError(msg)
    assumed: list[str] = []
    if names is None:
        if values.shape[0] != atlas.n_rois:
            msg = (
                f"{path.name} has {values.shape[0]} rows without names where the atlas {atlas.label} has"
                f" {atlas.n_rois} ROIs: rows are ROIs, columns are frames; give names if it is another order"
            )
            raise DataError(msg)
        assumed.append(
            notes.note(notes.Kind.ROI_ORDER, f"the table has no ROI names, {atlas.label} is assumed")
        )
    else:
        order = match_names(names, atlas, path.name)
        if not np.array_equal(order, np.arange(order.size)):
            assumed.append(notes.note(notes.Kind.REORDERED, f"to the order of {atlas.label}"))
        values = values[order]
    if values.shape[1] < 2:
        msg = f"{path.name} has {values.shape[1]} frame(s): a series is expected"
        raise DataError(msg)
    with np.errstate(over="ignore"):
        series = values.astype(np.float32)
    good = np.isfinite(series).all(axis=1) & (series.max(axis=1) > series.min(axis=1))
    if not good.any():
        msg = f"{path.name} holds no signal: every row is constant, or not a number"
        raise DataError(msg)
    refuse_blank_frames(series[good], path)
    return GivenSeries(
        Parcellated(np.where(good[:, None], series, np.float32(np.nan)), good.astype(np.float32)), assumed
    )


def match_names(names: Sequence[str], atlas: Atlas, where: str) -> np.ndarray:
    """Index of each ROI of the atlas among `names`, (R,).

    The prefix ``17Networks_`` may be missing on either side.

    Raises
    ------
    DataError
        If names are of the other network order, missing, more than the atlas has, or given twice.
    """
    wanted_order = re.search(r"Schaefer(7|17)n", atlas.label)
    orders = {m[1] for name in names if (m := _NETWORKS.match(name.strip()))}
    if wanted_order and orders - {wanted_order[1]}:
        msg = (
            f"{where}: ROI names are of the {'- and '.join(sorted(orders))}-network order ({names[0]!r}), the atlas"
            f" {atlas.label} is of the {wanted_order[1]}-network order: set atlas.networks, or use other tables"
        )
        raise DataError(msg)
    given = [_bare(name) for name in names]
    place = {name: i for i, name in enumerate(given)}
    if len(place) != len(given):
        twice = next(name for i, name in enumerate(given) if place[name] != i)
        msg = f"{where}: ROI {twice!r} stands there twice"
        raise DataError(msg)
    wanted = [_bare(name) for name in atlas.names]
    missing = [name for name in wanted if name not in place]
    extra = [name for name in given if name not in set(wanted)]
    if missing or extra:
        parts = [f"{len(missing)} missing, such as {missing[0]!r}"] if missing else []
        parts += [f"{len(extra)} unknown, such as {extra[0]!r}"] if extra else []
        msg = f"{where}: {len(given)} ROIs, {atlas.label} has {len(wanted)}: {' and '.join(parts)}"
        raise DataError(msg)
    return np.array([place[name] for name in wanted])


def _bare(name: str) -> str:
    return _NETWORKS.sub("", name.strip())


def _read(path: Path) -> tuple[list[str] | None, np.ndarray]:
    """ROI names, if there are any, and values (R, T)."""
    if path.name.endswith(".ptseries.nii"):
        axes, rows = cifti.read_series(path)
        if len(axes.parcels) != rows.shape[0]:
            msg = f"{path.name}: {len(axes.parcels)} parcels in its header, {rows.shape[0]} rows"
            raise DataError(msg)
        return list(axes.parcels), rows
    if path.suffix == ".npy":
        with reading(
            path, "is no array of numbers"
        ):  # mapped: a damaged header takes no memory for what is not there
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path.name} is an archive of arrays, one array is expected")
        return None, np.asarray(array)
    if path.suffix == ".parquet":
        with reading(path, "cannot be read as a Parquet table"):
            table = pd.read_parquet(path)
        return _orient(table, path)
    separator = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ","
    with reading(path, "cannot be read as a table"):
        table = pd.read_csv(path, sep=separator, na_values=["n/a"], encoding="utf-8-sig")
    if _is_data([str(c) for c in table.columns]):
        with reading(path, "cannot be read as a table"):
            table = pd.read_csv(path, sep=separator, na_values=["n/a"], encoding="utf-8-sig", header=None)
    return _orient(table, path)


def _is_data(header: list[str]) -> bool:
    """Whether the first line is a row of numbers, and not frames counted from 0 or 1."""
    numbers = [_number(cell) for cell in header]
    if any(n is None for n in numbers):
        return False
    return numbers not in (list(range(len(header))), list(range(1, len(header) + 1)))


def _number(cell: str) -> float | None:
    try:
        # pandas appends .1 to a name that it sees again
        return float(cell)
    except ValueError:
        return None


def _orient(table: pd.DataFrame, path: Path) -> tuple[list[str] | None, np.ndarray]:
    if not table.columns.is_unique:
        raise DataError(f"{path.name} has two columns of the same name")
    texts = [c for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
    if len(texts) == 1 and table.columns[0] == texts[0]:
        return [str(n) for n in table[texts[0]]], _numbers(table.drop(columns=texts), path)
    if texts:
        msg = (
            f"{path.name}: column {str(texts[-1])!r} holds text; ROI names may stand in the first column only"
        )
        raise DataError(msg)
    columns = [str(c) for c in table.columns]
    if columns and any(re.match(r"(\d+networks_)?[LR]H_", c.strip(), re.IGNORECASE) for c in columns):
        return columns, _numbers(table, path).T
    return None, _numbers(table, path)


def _numbers(table: pd.DataFrame, path: Path) -> np.ndarray:
    with reading(path, "holds values that are no numbers"):
        return table.to_numpy(np.float64, na_value=np.nan)
