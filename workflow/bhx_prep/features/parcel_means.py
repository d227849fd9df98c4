"""What parcellation of volumes and surfaces shares: the result type, and means over the rows of a parcel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Parcellated:
    """Series of one run.

    Attributes
    ----------
    series : (R, T) float32
        Mean over the voxels (vertices) with signal of each parcel; rows of NaN where coverage is too low.
    coverage : (R,) float32
        Share of each parcel's voxels (vertices) with signal, inside the brain mask where there is one.
    """

    series: np.ndarray
    coverage: np.ndarray


@dataclass(frozen=True)
class Groups:
    """Positions of an array's elements sorted by parcel: parcel `parcels[i]` owns `order[starts[i]:starts[i + 1]]`."""

    order: np.ndarray
    starts: np.ndarray
    parcels: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, inside: np.ndarray | None = None) -> Groups:
        """Group the elements of `labels` (V,) int (0 = none, parcel r + 1), those `inside` (V,) bool only."""
        wanted = labels > 0 if inside is None else (labels > 0) & inside
        index = np.flatnonzero(wanted)
        order = index[np.argsort(labels[index], kind="stable")]
        parcels, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
        return cls(order, starts, parcels - 1, sizes)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums of gathered `values` (elements,) per group: small integers exactly, others in double precision."""
        if not self.starts.size:
            return np.zeros(0)
        exact = values.dtype.kind in "iub" and values.itemsize < 8
        return np.add.reduceat(values, self.starts, dtype=np.int64 if exact else np.float64)


def mean_rows(values: np.ndarray, labels: np.ndarray, series: np.ndarray, coverage: np.ndarray) -> None:
    """Fill `series` (R, T) and `coverage` (R,) from `values` (V, T) with `labels` (V,), a few parcels at a time."""
    groups = Groups.of(labels)
    for i, parcel in enumerate(groups.parcels):
        rows = np.asarray(values[groups.order[groups.starts[i] : groups.starts[i] + groups.sizes[i]]])
        high, low = rows.max(axis=1), rows.min(axis=1)
        finite = np.isfinite(high) & np.isfinite(low)  # both are NaN where one value is
        whole = finite.all()
        if not whole:
            finite = np.isfinite(rows)
            high = np.where(finite, rows, -np.inf).max(axis=1)
            low = np.where(finite, rows, np.inf).min(axis=1)
        alive = high > low
        coverage[parcel] = alive.mean()
        if not alive.any():
            continue
        if whole:
            # a choice of all rows would copy them
            series[parcel] = (rows if alive.all() else rows[alive]).mean(axis=0, dtype=np.float64)
        else:
            count = finite[alive].sum(axis=0)
            total = np.where(finite[alive], rows[alive], 0).sum(axis=0, dtype=np.float64)
            series[parcel] = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
