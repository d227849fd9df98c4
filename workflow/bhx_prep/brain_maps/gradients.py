"""Connectivity gradients: a diffusion map of the mean connectivity of the training subjects.

The steps are BrainSpace's (Vos de Wael et al. 2020): keep the strongest 10 % of every row, compare rows by their
normalised angle, diffusion map with alpha 0.5 over all scales. One thing differs: BrainSpace 0.3 hands the random-walk
matrix, which is not symmetric, to a solver for symmetric ones, so that its gradients of the HCP group change by up to
8 % of their range with the seed. Here the symmetric conjugate is decomposed, which has the same eigenvalues and gives
the eigenvectors exactly; BrainSpace with an exact solver gives the same numbers (1e-9). There is one map for all subjects,
of their mean connectivity, so that only signs need aligning: the entry of largest magnitude is positive.

Coifman and Lafon 2006, doi:10.1016/j.acha.2006.04.006; Vos de Wael et al. 2020, doi:10.1038/s42003-020-0794-7.

Examples
--------
::

    python -m bhx_prep.brain_maps.gradients --shards results/lemon/shards/index.json --split pretrain.json --out G.parquet
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import numpy as np

from bhx_model.errors import ConfigError, DataError
from bhx_prep.brain_maps import training_table
from bhx_prep.shards import read

#: Fraction of every row of the connectivity that is set to zero.
SPARSITY = 0.9
ALPHA = 0.5
#: Fisher's z is infinite at 1: correlations are clipped to what float32 series resolve.
_MAX_R = 1 - 1e-7


def connectivity(series: np.ndarray) -> np.ndarray:
    """Fisher-z correlation of the rows of a run; NaN for rows without coverage or without variation.

    Parameters
    ----------
    series : ndarray, (R, T)

    Returns
    -------
    ndarray, (R, R) float64
        The diagonal is NaN.
    """
    centred = series.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    varying = _varying(series, length[:, 0])[:, None]
    unit = np.divide(centred, length, out=np.full_like(centred, np.nan), where=varying)
    z = np.arctanh(np.clip(unit @ unit.T, -_MAX_R, _MAX_R))
    np.fill_diagonal(z, np.nan)
    return z


def varying(series: np.ndarray) -> np.ndarray:
    """Which rows of a run have coverage and variation: (R,) bool.

    Parameters
    ----------
    series : ndarray, (R, T)
    """
    centred = series.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    return _varying(series, np.linalg.norm(centred, axis=1))


def _varying(series: np.ndarray, length: np.ndarray) -> np.ndarray:
    # rounding leaves a constant row a little variation
    largest = np.abs(series).max(axis=1, initial=0)
    return length > 1e-6 * largest * np.sqrt(series.shape[1])


def mean_connectivity(runs: Iterable[np.ndarray], n_rois: int) -> tuple[np.ndarray, int]:
    """Mean of the Fisher-z connectivity of many runs, as correlation.

    Parameters
    ----------
    runs : iterable of ndarray, (R, T)
        A pair of ROIs counts in the runs that cover both.
    n_rois : int
        R.

    Returns
    -------
    mean : ndarray, (R, R) float64
        1 on the diagonal; NaN for pairs that no run covers.
    n : int
        Number of runs.
    """
    total, count, n = np.zeros((n_rois, n_rois)), np.zeros((n_rois, n_rois), np.int64), 0
    for series in runs:
        z = connectivity(series)
        known = np.isfinite(z)
        total[known] += z[known]
        count += known
        n += 1
    mean = np.tanh(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0))
    np.fill_diagonal(mean, 1)
    return mean, n


def affinity(connectivity: np.ndarray, sparsity: float = SPARSITY) -> np.ndarray:
    """Normalised angle between the rows of a connectivity matrix, each cut to its strongest entries.

    Parameters
    ----------
    connectivity : ndarray, (R, R)
    sparsity : float
        Fraction of each row that is set to zero, the smallest values first.

    Returns
    -------
    ndarray, (R, R)
        ``1 - angle / pi``: 1 for equal rows, 0.5 for orthogonal ones.

    Raises
    ------
    ConfigError
        If there are too few ROIs.
    """
    # 1 - 0.9 is a little below 0.1: BrainSpace keeps 39 of 400, and so do we
    keep = int(len(connectivity) * (1 - sparsity))
    if keep < 1:
        raise ConfigError(
            f"a sparsity of {sparsity} leaves no entry in rows of {len(connectivity)} ROIs: use an atlas of more parcels"
        )
    order = np.argsort(connectivity, axis=1, kind="stable")[:, -keep:]
    cut = np.zeros_like(connectivity)
    np.put_along_axis(cut, order, np.take_along_axis(connectivity, order, axis=1), axis=1)
    unit = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    return 1 - np.arccos(np.clip(unit @ unit.T, -1, 1)) / np.pi


def diffusion_map(
    affinity: np.ndarray, n_components: int, alpha: float = ALPHA
) -> tuple[np.ndarray, np.ndarray]:
    """Embed the nodes of a graph by its diffusion process, over all diffusion times.

    Parameters
    ----------
    affinity : ndarray, (R, R)
        Symmetric, not negative.
    n_components : int
    alpha : float
        How far the density of nodes is divided out, 0 to 1.

    Returns
    -------
    embedding : ndarray, (R, n_components)
        Eigenvectors of the random walk divided by the constant one, times ``w / (1 - w)``. The entry of largest
        magnitude of each column is positive.
    eigenvalues : ndarray, (n_components,)
        ``w / (1 - w)``, descending.

    Raises
    ------
    ConfigError
        If there are too few ROIs for `n_components`.
    """
    if not 1 <= n_components <= len(affinity) - 2:
        msg = f"{n_components} gradients of {len(affinity)} ROIs: ask for 1 to {len(affinity) - 2} (features.gradients)"
        raise ConfigError(msg)
    density = affinity.sum(axis=1) ** -alpha
    weight = affinity * density[:, None] * density
    root = np.sqrt(weight.sum(axis=1))
    # D^-1/2 W D^-1/2 has the eigenvalues of the random walk D^-1 W, and D^-1/2 turns its vectors into the walk's
    values, vectors = np.linalg.eigh(weight / root[:, None] / root)
    values, vectors = values[::-1][: n_components + 1], vectors[:, ::-1][:, : n_components + 1]
    vectors = vectors / root[:, None]
    vectors /= np.linalg.norm(
        vectors, axis=0
    )  # of length 1, as BrainSpace has them, and not in the metric of D
    vectors /= vectors[:, [0]]
    values = values / values[0]
    values, vectors = values[1:] / (1 - values[1:]), vectors[:, 1:]
    embedding = vectors * values
    largest = embedding[np.abs(embedding).argmax(axis=0), np.arange(n_components)]
    return embedding * np.sign(largest), values


def compute(
    cohorts: Sequence[read.PackedCohort], subjects: Sequence[str], n_components: int
) -> tuple[dict, dict]:
    """Columns and metadata of the gradients' table.

    ROIs that no run covers are set to 0, the middle of the map, and are listed in the metadata; a pair of ROIs that no run
    covers together counts as not connected.

    Parameters
    ----------
    cohorts : sequence of PackedCohort
    subjects : sequence of str
        ``cohort/subject`` of the pretraining's train split.
    n_components : int

    Raises
    ------
    DataError
        If no run of the split is in the shards.
    ConfigError
        If there are too few ROIs.
    """
    names, wanted = cohorts[0].index["roi_names"], set(subjects)
    mean, n_runs = mean_connectivity((run.series for run in read.iter_series(cohorts, wanted)), len(names))
    if n_runs == 0:
        raise DataError(
            "no BOLD run of the training split is in the shards: are these the split's own cohorts?"
        )
    off_diagonal = ~np.eye(len(names), dtype=bool)
    covered: np.ndarray = np.any(np.isfinite(mean) & off_diagonal, axis=1)
    known = np.nan_to_num(mean[np.ix_(covered, covered)])
    embedding, values = diffusion_map(affinity(known), n_components)
    gradients = np.zeros((len(names), n_components))
    gradients[covered] = embedding
    metadata = {
        "method": "diffusion map",
        "kernel": "normalized_angle",
        "sparsity": SPARSITY,
        "alpha": ALPHA,
        "lambdas": values.tolist(),
        "runs": n_runs,
        "n_subjects": len(wanted),
        "uncovered": [name for name, flag in zip(names, covered, strict=True) if not flag],
        "cohorts": [cohort.name for cohort in cohorts],
        "synthetic": any(cohort.index["synthetic"] for cohort in cohorts),
    }
    columns = {"name": names} | {f"gradient_{k + 1:02d}": gradients[:, k] for k in range(n_components)}
    return columns, metadata


def main(argv: Sequence[str] | None = None) -> int:
    """Compute the gradients of the shards given on the command line."""
    parser = training_table.parser("bhx_prep.brain_maps.gradients", __doc__)
    parser.add_argument("--components", type=int, default=30, help="number of gradients (30)")
    args = parser.parse_args(argv)
    return training_table.run(
        args,
        lambda cohorts, subjects: compute(cohorts, subjects, args.components),
        {"uncovered": "ROIs without coverage are set to 0"},
    )


if __name__ == "__main__":
    sys.exit(main())
