"""Read ROI x time tables made by other software, and reorder their rows to the atlas's order.

Names decide the order, wherever they stand: along either axis of the table, in a sidecar beside it, or in the cohort's
`names`. A table for which nobody states names is refused, and so is one whose axes fit both ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.features import roi_names
from bhx_prep.features.parcel_means import Parcellated
from bhx_prep.features.parcellate import refuse_blank_frames
from bhx_prep.features.roi_names import match_names
from bhx_prep.io import axis_labels, notes, series_table
from bhx_prep.io.axis_labels import Axis
from bhx_prep.io.series_table import SeriesTable
from bhx_prep.io.stated_axes import AXES, StatedAxes, roi_axis
from bhx_prep.io.text_table import number


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


def read_series(
    path: Path, atlas: Atlas, stated: StatedAxes | None = None, *, sidecar: Path | None = None
) -> GivenSeries:
    """Read one run.

    Parameters
    ----------
    path : Path
    atlas : Atlas
    stated : StatedAxes, optional
        What the cohort states about tables without names.
    sidecar : Path, optional
        JSON file that applies to the table; one of its own name is found without it.

    Raises
    ------
    DataError
        If the table is unreadable, its ROIs are not the atlas's, or nothing in it varies.
    """
    table = series_table.read(path)
    assumed = [notes.note(notes.Kind.TABLE, text) for text in table.notes]
    axis = _named_axis(table, atlas, path)
    if axis is not None:
        values, names = _by_own_names(table, axis, atlas, path, assumed)
    else:
        values, names = _by_stated_names(table, stated or StatedAxes(), path, sidecar, assumed)
    order = match_names(names, atlas, notes.short(path.name))
    if not np.array_equal(order, np.arange(order.size)):
        assumed.append(notes.note(notes.Kind.REORDERED, f"to the order of {atlas.label}"))
        values = values[order]
    return GivenSeries(_checked(values, path, assumed), assumed)


def _named_axis(table: SeriesTable, atlas: Atlas, path: Path) -> int | None:
    """The axis whose labels are names of ROIs: the atlas's, or those of an atlas that is not known."""
    labels = [list(names or ()) for names in (table.rows, table.columns)]
    known = roi_names.places(atlas)
    shape = table.values.shape
    hits = [
        0
        if _are_counts(names) and (names != [*map(str.strip, atlas.names)] or shape[0] == shape[1])
        else sum(key in known for key in roi_names.keys(names, atlas))
        for names in labels
    ]
    is_symmetric = shape[0] == shape[1] and np.allclose(table.values, table.values.T, equal_nan=True)
    if min(hits) > 1 or is_symmetric:
        raise DataError(f"{notes.short(path.name)} is a matrix of ROI x ROI (connectivity), no series")
    if max(hits) > 0:
        return hits.index(max(hits))
    named = [i for i, names in enumerate(labels) if names and axis_labels.kind(names) is Axis.NAMES]
    varied = [i for i in named if not axis_labels.alike(labels[i])] or named
    return varied[0] if varied else None


def _are_counts(labels: Sequence[str]) -> bool:
    """Whether labels are the numbers 0, 1, 2, .. or 1, 2, 3, ..: names of an atlas may be numbers, but not these."""
    numbers = [n for label in labels if (n := number(label)) is not None]
    return len(numbers) == len(labels) and axis_labels.counts(numbers)


def _by_own_names(
    table: SeriesTable, axis: int, atlas: Atlas, path: Path, assumed: list[str]
) -> tuple[np.ndarray, Sequence[str]]:
    """Values (R, T) and the names of their rows, of a table with names along one axis."""
    values, names, frames = table.values, table.rows, table.columns
    if axis == 1:
        values, names, frames = values.T, table.columns, table.rows
    names = list(names or ())
    known = roi_names.places(atlas)
    extra = [
        i
        for i, key in enumerate(roi_names.keys(names, atlas))
        if key not in known and _only_counts(names[i], values[i].tolist())
    ]
    for i in reversed(extra):
        assumed.append(
            notes.note(notes.Kind.TABLE, f"{notes.quote(names[i])} only counts frames and is left out")
        )
        values, names = np.delete(values, i, axis=0), names[:i] + names[i + 1 :]
    if frames is not None:
        _check_frames(frames, AXES[1 - axis], path)
    return values, names


def _only_counts(label: str, values: Sequence[float]) -> bool:
    return axis_labels.counts(values) or (
        label.lower() in axis_labels.INDEX_HEADERS and axis_labels.steps(values)
    )


def _check_frames(labels: Sequence[str], axis: str, path: Path) -> None:
    """Refuse an axis of frames that holds something else, or frames out of order."""
    if axis_labels.kind(labels) is Axis.NAMES and not axis_labels.alike(labels):
        patterns = [axis_labels.pattern(label) for label in labels]
        rarest = min(patterns, key=Counter(patterns).__getitem__)
        odd = labels[patterns.index(rarest)]
        raise DataError(
            f"{notes.short(path.name)}: {axis[:-1]} {notes.quote(odd)} is neither ROI nor frame: remove it"
        )
    _check_rising(labels, f"{notes.short(path.name)}: frames", "sort them")


def _check_rising(labels: Sequence[str], what: str, remedy: str) -> None:
    if pair := axis_labels.out_of_order(labels):
        raise DataError(
            f"{what} are out of order ({notes.quote(pair[0])} before {notes.quote(pair[1])}): {remedy}"
        )


def _by_stated_names(
    table: SeriesTable, stated: StatedAxes, path: Path, sidecar: Path | None, assumed: list[str]
) -> tuple[np.ndarray, Sequence[str]]:
    """Values (R, T) and names of the rows, of a table without names, from stated ones."""
    possible = [axis for axis in (0, 1) if _may_be_rois(table, axis)]
    axis, names, said = roi_axis(table.values.shape, stated, path, sidecar, possible)
    for i, labels in enumerate((table.rows, table.columns)):
        if labels is not None:
            what, remedy = ("ROIs", "give names") if i == axis else ("frames", "sort them")
            _check_rising(labels, f"{notes.short(path.name)}: {what}", remedy)
            if i == axis and (gap := axis_labels.first_gap(labels)):
                detail = (
                    f"numbers of its ROIs are skipped ({notes.quote(gap[0])} before {notes.quote(gap[1])})"
                )
                assumed.append(notes.note(notes.Kind.TABLE, detail))
    assumed.append(said)
    return (table.values if axis == 0 else table.values.T), names


def _may_be_rois(table: SeriesTable, axis: int) -> bool:
    """Whether an axis can be ROIs by its labels and the other axis's."""
    labels = (table.rows, table.columns)
    mine, other = labels[axis], labels[1 - axis]
    if mine is not None and axis_labels.kind(mine) is Axis.FRAMES:
        return False
    return other is None or axis_labels.kind(other) is not Axis.ROIS


def _checked(values: np.ndarray, path: Path, assumed: list[str]) -> Parcellated:
    """Series (R, T) with NaN where a row has no signal."""
    if values.shape[1] < 2:
        msg = f"{notes.short(path.name)} has {values.shape[1]} frame(s): a series is expected"
        raise DataError(msg)
    with np.errstate(over="ignore"):
        series = values.astype(np.float32)
    finite = np.isfinite(series)
    covered = finite.any(axis=1)
    empty = ~finite[covered].any(axis=0)
    if covered.any() and empty.any():
        msg = (
            f"{notes.short(path.name)}: frame {np.flatnonzero(empty)[0]} (counted from 0) holds no value: where frames"
            " are censored, cut them off or interpolate them"
        )
        raise DataError(msg)
    gaps = int((covered & ~finite.all(axis=1)).sum())
    if gaps:
        assumed.append(notes.note(notes.Kind.TABLE, f"{gaps} ROIs have gaps and are taken as not covered"))
    good = finite.all(axis=1) & (series.max(axis=1) > series.min(axis=1))
    if not good.any():
        msg = f"{notes.short(path.name)} holds no signal: every row is constant, or not a number"
        raise DataError(msg)
    refuse_blank_frames(series[good], path)
    return Parcellated(np.where(good[:, None], series, np.float32(np.nan)), good.astype(np.float32))
