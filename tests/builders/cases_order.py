"""Cases of a whole cohort: the order of its ROIs, runs that are there twice, and none that can be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from input_cases import Seen, case
from series_batches import brain_series, schaefer, write_atlas, write_batch

from bhx_prep.config.cohorts import CohortSection
from bhx_prep.features import check_cohort
from bhx_prep.report.study_duplicates import same_folders, same_series

Runs = dict[str, np.ndarray]


def brains(networks: int, n: int = 4) -> Runs:
    return {f"a_sub-{seed}_task-rest": brain_series(seed, networks) for seed in range(n)}


def seen_cohort(folder: Path, runs: Mapping[str, np.ndarray], networks: int = 7, **batch: Any) -> Seen:
    """What the check makes of a cohort whose tables state this order."""
    templates = write_atlas(folder / "templates", networks, known=batch.pop("known", True))
    write_batch(folder / "batch-00000", runs, networks, **batch)
    report = check_cohort.check("a", folder, ["00000"], templates)
    return Seen("note", "; ".join(report["notes"])) if report["notes"] else Seen("read")


@case("Order of ROIs", "series in the order that their names state", "read")
def right_order(folder: Path) -> Seen:
    return seen_cohort(folder, brains(17), 17)


@case(
    "Order of ROIs",
    "names of 17-network order over rows in 7-network order",
    "refused",
    "in 7-network order: .*atlas.networks: 7",
)
def seven_called_seventeen(folder: Path) -> Seen:
    return seen_cohort(folder, brains(7), 17)


@case(
    "Order of ROIs",
    "names of 7-network order over rows in 17-network order",
    "refused",
    "in 17-network order: ",
)
def seventeen_called_seven(folder: Path) -> Seen:
    return seen_cohort(folder, brains(17), 7)


@case("Order of ROIs", "hemispheres swapped in a whole cohort", "refused", "right hemisphere first")
def right_first(folder: Path) -> Seen:
    return seen_cohort(folder, {key: np.roll(x, 50, 0) for key, x in brains(7).items()})


@case("Order of ROIs", "ROIs sorted by their names, as pivot tables are", "refused", "in alphabetical order")
def alphabetical(folder: Path) -> Seen:
    rows = np.argsort(schaefer(7)[1])
    return seen_cohort(folder, {key: x[rows] for key, x in brains(7).items()})


@case("Order of ROIs", "left and right ROIs alternate", "refused", "left and right alternate")
def alternating(folder: Path) -> Seen:
    paired = np.arange(100).reshape(2, 50).T.ravel()
    return seen_cohort(folder, {key: x[paired] for key, x in brains(7).items()})


@case(
    "Order of ROIs",
    "the background in the first row, the last ROI missing",
    "refused",
    "shifted down by 1 row",
)
def background_first(folder: Path) -> Seen:
    rng = np.random.default_rng(0)
    shifted = {
        key: np.concatenate([rng.standard_normal((1, x.shape[1])), x[:-1]]) for key, x in brains(7).items()
    }
    return seen_cohort(folder, shifted)


@case(
    "Order of ROIs",
    "one run of twelve in another order",
    "note",
    "1 of 12 runs are in 17-network order, such as a_sub-0",
)
def one_in_another(folder: Path) -> Seen:
    return seen_cohort(folder, brains(7, 12) | brains(17, 1))


@case(
    "Order of ROIs",
    "tables of another atlas of the same size",
    "note",
    "no order .* stands out.*another atlas",
)
def another_atlas(folder: Path) -> Seen:
    rows = np.random.default_rng(3).permutation(100)
    return seen_cohort(folder, {key: x[rows] for key, x in brains(7).items()})


@case("Order of ROIs", "an atlas that has only names", "note", "nothing but names is known")
def names_alone(folder: Path) -> Seen:
    return seen_cohort(folder, brains(7), known=False)


@case(
    "Order of ROIs",
    "no run can be used, all for the same reason",
    "refused",
    r"none of its 3 BOLD runs .*other names \(3\)",
)
def nothing_usable(folder: Path) -> Seen:
    excluded = [(f"a_sub-{k}", f"sub-{k}_timeseries.npy: other names") for k in range(3)]
    return seen_cohort(folder, {}, excluded=excluded)


@case(
    "Duplicates", "one run under two ids", "note", "1 pair, such as a_sub-1_task-rest and a_sub-9_task-rest"
)
def two_ids(folder: Path) -> Seen:
    return seen_cohort(folder, brains(7) | {"a_sub-9_task-rest": brain_series(1, 7)})


@case(
    "Duplicates",
    "one run twice, once without its first frames and in other units",
    "note",
    "1 pair, such as a_sub-2",
)
def twice_and_cut(folder: Path) -> Seen:
    return seen_cohort(folder, brains(7) | {"a_sub-9_task-rest": 4 * brain_series(2, 7)[:, 4:] + 900})


@case("Duplicates", "one subject in two cohorts under two ids", "note", "a_sub-1_task-rest = b_sub-7")
def two_cohorts(folder: Path) -> Seen:
    write_batch(folder / "a/features/batch-00000", brains(7))
    write_batch(folder / "b/features/batch-00000", {"b_sub-7": brain_series(1, 7)})
    (pair,) = same_series(folder, ["a", "b"]).pairs
    return Seen("note", f"{pair.first} = {pair.second}")


@case("Duplicates", "one folder under two names, once through a link", "note", "a and b")
def one_folder(folder: Path) -> Seen:
    (folder / "data").mkdir()
    (folder / "link").symlink_to("data")
    cohorts = {n: CohortSection(input="bids", root=folder / r) for n, r in (("a", "data"), ("b", "link"))}
    ((one, other, _),) = same_folders(cohorts)
    return Seen("note", f"{one} and {other}")
