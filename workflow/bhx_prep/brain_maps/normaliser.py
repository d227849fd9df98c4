"""Median and interquartile range of every ROI over all samples of the training subjects.

The order statistics are exact and do not depend on the order of the runs. They are found by radix selection: floats
are mapped to integers that sort alike, and three passes over the shards count their upper 11, then the next 11, then
the last 10 bits, each time only within the bin where a wanted rank lies. Memory is R x 6 x 2048 counters (40 MB for
400 ROIs) whatever the size of the cohorts; 50 GB of UK Biobank and ABCD need not fit in memory, nor be written
again column by column.

The paper's code takes both over the subjects' temporal means instead, which do not reflect the size of the
fluctuations, and does not normalise the other cohorts at all.

Examples
--------
::

    python -m bhx_prep.brain_maps.normaliser --shards results/lemon/shards/index.json --split pretrain.json --out N.parquet
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from bhx_model.errors import DataError
from bhx_prep.brain_maps import training_table
from bhx_prep.shards import read

#: First quartile, median, third quartile.
QUANTILES = (0.25, 0.5, 0.75)
#: Bits that each pass looks at; together 32.
_DIGITS = (11, 11, 10)
#: What a NaN is mapped to: behind every number.
_NAN = np.uint32(0xFFFFFFFF)
#: Frames that are counted together; a counting pass over R x 2048 bins is not paid for each run of 490 frames.
_BLOCK = 4096


def quantiles(runs: Callable[[], Iterable[np.ndarray]], n_rois: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact quartiles per ROI of many runs, linear between the two nearest samples as in `numpy.quantile`.

    Parameters
    ----------
    runs : callable
        Gives the runs anew at each call: arrays (R, T) of float32; samples that are NaN do not count.
    n_rois : int
        R.

    Returns
    -------
    values : ndarray, (3, R) float64
        At `QUANTILES`; NaN for an ROI without a sample.
    n : ndarray, (R,) int64
        Samples counted.

    Raises
    ------
    DataError
        If a sample is infinite, or a run has another number of ROIs.
    """
    shift = 32 - _DIGITS[0]
    counts = np.zeros((1, n_rois, 1 << _DIGITS[0]), np.int64)
    missing = np.zeros(n_rois, np.int64)
    for keys in _sortable(runs, n_rois):
        missing += (keys == _NAN).sum(axis=1)
        _count(counts[0], keys >> shift, np.arange(n_rois))
    n = counts[0].sum(axis=1) - missing  # NaN sorts last, so that no rank below n meets it
    exact = np.array(QUANTILES)[:, None] * np.maximum(n - 1, 0)
    # the two neighbouring ranks between which each quantile lies: K = 6
    ranks = np.concatenate([np.floor(exact), np.ceil(exact)]).astype(np.int64)
    prefix, ranks = _descend(np.repeat(counts, len(ranks), axis=0), ranks)
    for bits in _DIGITS[1:]:
        counts = np.zeros((len(ranks), n_rois, 1 << bits), np.int64)
        # ranks often lie in the same bin: the first of them counts for all
        owner = np.argmax(prefix[:, None] == prefix[None], axis=1)
        for keys in _sortable(runs, n_rois):
            for k in range(len(ranks)):
                roi = np.flatnonzero(owner[k] == k)
                within = keys[roi]
                row, column = np.nonzero((within >> shift) == prefix[k, roi, None])
                digits = (within[row, column] >> (shift - bits)) & ((1 << bits) - 1)
                _count(counts[k], digits, roi[row])
        counts = np.take_along_axis(counts, owner[..., None], axis=0)
        digit, ranks = _descend(counts, ranks)
        prefix = (prefix << bits) | digit
        shift -= bits
    samples = _from_sortable(prefix).astype(np.float64)
    low, high = samples[: len(QUANTILES)], samples[len(QUANTILES) :]
    values = low + (high - low) * (exact - np.floor(exact))
    return np.where(n > 0, values, np.nan), n


def _sortable(runs: Callable[[], Iterable[np.ndarray]], n_rois: int) -> Iterator[np.ndarray]:
    """Blocks (R, N) of uint32 that sort as the floats do, NaN last; several runs together, for speed."""
    block: list[np.ndarray] = []
    for series in runs():
        if series.shape[0] != n_rois or series.dtype != np.float32:
            msg = f"run of {series.dtype} with {series.shape[0]} ROIs, expected float32 with {n_rois}: pack it again"
            raise DataError(msg)
        if np.isinf(series).any():
            raise DataError("a run holds infinite values: find it with `bhx shards verify` and exclude it")
        block.append(series)
        if sum(part.shape[1] for part in block) >= _BLOCK:
            yield _to_sortable(np.concatenate(block, axis=1))
            block = []
    if block:
        yield _to_sortable(np.concatenate(block, axis=1))


def _to_sortable(values: np.ndarray) -> np.ndarray:
    # + 0 makes one number of the two zeros; negative floats sort backwards as integers, so all their bits turn
    bits = (values + np.float32(0)).view(np.uint32)
    keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return np.where(np.isnan(values), _NAN, keys)


def _from_sortable(keys: np.ndarray) -> np.ndarray:
    keys = keys.astype(np.uint32)
    return np.where(keys >> 31, keys & np.uint32(0x7FFFFFFF), ~keys).view(np.float32)


def _count(counts: np.ndarray, digits: np.ndarray, roi: np.ndarray) -> None:
    """Add `digits` to the histograms `counts` (R, bins); `roi` is the row, of each row or of each digit."""
    if digits.ndim == 2:
        roi = roi[:, None]
    flat = (digits + roi * counts.shape[1]).ravel()
    counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)


def _descend(counts: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bin of each rank and the rank within it; `counts` (K, R, bins), `ranks` (K, R)."""
    below = np.cumsum(counts, axis=2)
    digit = (below <= ranks[..., None]).sum(axis=2)
    digit = np.minimum(digit, counts.shape[2] - 1)  # where an ROI has no sample at all
    before = np.take_along_axis(below - counts, digit[..., None], axis=2)[..., 0]
    return digit, ranks - before


def fit(cohorts: Sequence[read.PackedCohort], subjects: Sequence[str]) -> tuple[dict, dict]:
    """Columns and metadata of the normaliser's table.

    An ROI that no run covers, or that never changes, cannot be scaled: it gets scale 1 (and median 0 where there is
    no sample), and it is listed in the metadata.

    Parameters
    ----------
    cohorts : sequence of PackedCohort
    subjects : sequence of str
        ``cohort/subject`` of the pretraining's train split.

    Raises
    ------
    DataError
        If not one ROI of the split varies.
    """
    wanted = set(subjects)
    names = cohorts[0].index["roi_names"]
    (low, median, high), n = quantiles(
        lambda: (run.series for run in read.iter_series(cohorts, wanted)), len(names)
    )
    empty = n == 0
    median = np.where(empty, 0, median).astype(np.float32)
    # in float32 first: a range that vanishes there would divide by zero in the model
    iqr = np.where(empty, 0, high - low).astype(np.float32)
    constant = ~empty & (iqr <= 0)
    if not (iqr > 0).any():
        raise DataError(
            f"no ROI of the {len(wanted)} subjects of the training split varies: is the split empty, or are the series zero?"
        )
    metadata = {
        "n_subjects": len(wanted),
        "uncovered": [name for name, flag in zip(names, empty, strict=True) if flag],
        "constant": [name for name, flag in zip(names, constant, strict=True) if flag],
        "cohorts": [cohort.name for cohort in cohorts],
        "synthetic": any(cohort.index["synthetic"] for cohort in cohorts),
    }
    columns = {"name": names, "median": median, "iqr": np.where(iqr > 0, iqr, np.float32(1)), "n": n}
    return columns, metadata


def main(argv: Sequence[str] | None = None) -> int:
    """Fit the normaliser on the shards given on the command line."""
    args = training_table.parser("bhx_prep.brain_maps.normaliser", __doc__).parse_args(argv)
    return training_table.run(
        args,
        fit,
        {"uncovered": "ROIs without coverage get scale 1", "constant": "constant ROIs get scale 1"},
    )


if __name__ == "__main__":
    sys.exit(main())
