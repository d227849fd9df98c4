"""The order of rows is found in the connectivity of series; series that say nothing of it are not refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from series_batches import brain_series, schaefer

from bhx_prep.atlas.atlas import hemispheres
from bhx_prep.atlas.reference import Reference
from bhx_prep.features import roi_order

HALF = 50
REORDERED = {
    "17-network order": lambda x: x,  # made below
    "an order with the right hemisphere first": lambda x: np.roll(x, HALF, 0),
    "an order in which left and right alternate": lambda x: (
        x.reshape(2, HALF, -1).swapaxes(0, 1).reshape(100, -1)
    ),
    "reversed order": lambda x: x[::-1],
    "the stated order shifted down by 1 row": lambda x: np.roll(x, 1, 0),
    "the stated order shifted up by 1 row": lambda x: np.roll(x, -1, 0),
    "the stated order shifted down by 19 rows": lambda x: np.roll(x, 19, 0),
}


def compare(runs, networks: int = 7, *, group: bool = True) -> roi_order.Comparison:
    _, names, known = schaefer(networks)
    if not group:
        known = Reference(known.centroids, np.full_like(known.group, np.nan), known.stated, known.others)
    orders = roi_order.known_orders(known, hemispheres(names))
    return roi_order.compare(known, orders, [(f"run-{k}", run) for k, run in enumerate(runs)])


@pytest.mark.parametrize("networks", [7, 17])
@pytest.mark.parametrize("group", [True, False], ids=["group", "distance"])
def test_the_stated_order_is_confirmed(networks: int, group: bool) -> None:
    found = compare([brain_series(seed, networks) for seed in range(4)], networks, group=group)
    assert found.verdict == "confirmed"
    assert found.best == f"{networks}-network order"
    assert not found.others


@pytest.mark.parametrize("order", REORDERED)
@pytest.mark.parametrize("group", [True, False], ids=["group", "distance"])
def test_another_order_is_named(order: str, group: bool) -> None:
    networks = 17 if order.startswith("17") else 7
    found = compare([REORDERED[order](brain_series(seed, networks)) for seed in range(4)], group=group)
    assert (found.verdict, found.best) == ("other", order)


def test_the_subcortex_may_be_last() -> None:
    _, names, known = schaefer(7)
    places = np.concatenate([known.centroids[:16] * 0.3, known.centroids])
    reference = Reference(places, np.full((116, 116), np.nan, np.float32), "stated order", {})
    orders = roi_order.known_orders(reference, [0] * 16 + hemispheres(names), range(1, 17))
    runs = []
    for seed in range(4):
        cortex = brain_series(seed, 7)
        noise = np.random.default_rng(seed + 9).standard_normal((16, cortex.shape[1]))
        runs.append((str(seed), np.concatenate([cortex, cortex[:16] + noise])))
    assert roi_order.compare(reference, orders, runs).best == "an order with the subcortex last"


def test_rois_of_no_side_stay_where_they_are() -> None:
    _, names, known = schaefer(7)
    group = np.full((103, 103), np.nan)
    group[:100, :100] = known.group
    reference = Reference(np.full((103, 3), np.nan), group, "7-network order", {})
    orders = roi_order.known_orders(reference, [*hemispheres(names), -1, -1, -1])
    rng = np.random.default_rng(0)
    runs = [
        (str(seed), np.concatenate([np.roll(brain_series(seed, 7), HALF, 0), rng.standard_normal((3, 120))]))
        for seed in range(3)
    ]
    assert roi_order.compare(reference, orders, runs).best == "an order with the right hemisphere first"


def series_that_say_nothing(kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((100, 60))
    return {
        "noise": lambda: noise,
        "smooth over rows": lambda: gaussian_filter1d(noise, 3, axis=0),
        "walk over rows": lambda: np.cumsum(noise, axis=0),
        "walk over time": lambda: np.cumsum(noise, axis=1),
        "blocks of rows": lambda: noise[np.arange(100) // 10] + 0.5 * rng.standard_normal((100, 60)),
        "one signal": lambda: noise[:1] + 0.1 * rng.standard_normal((100, 60)),
        "three frames": lambda: noise[:, :3],
        "another atlas": lambda: brain_series(seed, 7)[np.random.default_rng(5).permutation(100)],
        "constant": lambda: np.ones((100, 60)),
    }[kind]()


@pytest.mark.parametrize("group", [True, False], ids=["group", "distance"])
@pytest.mark.parametrize(
    "kind",
    [
        *("noise", "smooth over rows", "walk over rows", "walk over time", "blocks of rows"),
        *("one signal", "three frames", "another atlas", "constant"),
    ],
)
def test_series_that_say_nothing_are_not_refused(kind: str, group: bool) -> None:
    for seed in range(3):
        runs = [series_that_say_nothing(kind, 10 * seed + k).astype(np.float32) for k in range(3)]
        found = compare(runs, group=group)
        assert found.verdict == "unclear"
        assert not found.others


def test_no_runs_and_no_reference_are_no_verdict() -> None:
    assert compare([]).verdict == "unclear"
    unknown = Reference(np.full((4, 3), np.nan), np.full((4, 4), np.nan), "stated order", {})
    runs = [("a", np.random.default_rng(0).standard_normal((4, 50)))]
    assert roi_order.compare(unknown, roi_order.known_orders(unknown, []), runs).verdict == "skipped"


def test_single_runs_in_another_order_are_named_and_a_tenth_stops_the_cohort() -> None:
    right = [brain_series(seed, 7) for seed in range(20)]
    one = compare([*right[1:], brain_series(0, 17)])
    assert one.verdict == "confirmed"
    assert one.others == {"17-network order": ["run-19"]}
    several = compare([*right[3:], *(brain_series(seed, 17) for seed in range(3))])
    assert (several.verdict, several.best) == ("other", "17-network order")


def test_rois_without_coverage_do_not_matter() -> None:
    runs = [brain_series(seed, 17) for seed in range(3)]
    for run in runs:
        run[5:12] = np.nan
    assert compare(runs, 17).verdict == "confirmed"
    assert compare(runs, 7).best == "17-network order"


def test_few_rois_are_never_refused() -> None:
    rng = np.random.default_rng(3)
    places = rng.uniform(-50, 50, (8, 3))
    known = Reference(places, np.full((8, 8), np.nan), "stated order", {})
    orders = roi_order.known_orders(known, [0] * 4 + [1] * 4)
    for seed in range(10):
        run = np.random.default_rng(seed).standard_normal((8, 20))
        assert roi_order.compare(known, orders, [("a", run)]).verdict == "unclear"


def test_real_series_are_in_seven_network_order_and_rows_in_seventeen_pass_by_names(shared) -> None:
    """Patients' runs of Schaefer-400, rows in 7-network order, and CBIG's own table from one order to the other."""
    stored = np.load(shared("data/stages_schaefer400/series.npz"))
    to_17 = np.loadtxt(shared("data/atlas/schaefer400_7n_to_17n_index.txt"), dtype=int) - 1
    seven = [np.asarray(stored[key][:400], np.float32) for key in stored.files[::12]]
    lists = {}
    for networks in (7, 17):
        text = shared(f"data/atlas/Schaefer2018_400Parcels_{networks}Networks_order.txt").read_text()
        lists[networks] = [line.split("\t")[1] for line in text.splitlines() if line.strip()]
        _, names, known = schaefer(networks, 400)
        assert list(names) == lists[networks]
        orders = roi_order.known_orders(known, hemispheres(names))
        found = roi_order.compare(known, orders, [(str(k), run) for k, run in enumerate(seven)])
        assert found.best == "7-network order"
        assert found.verdict == ("confirmed" if networks == 7 else "other")
        assert set(found.others) <= {"7-network order"}
        if networks == 17:
            correct = [(str(k), run[np.argsort(to_17)]) for k, run in enumerate(seven)]
            assert roi_order.compare(known, orders, correct).verdict == "confirmed"
            # what is joined to the rows is the same for the same parcel
            _, _, in_seven = schaefer(7, 400)
            np.testing.assert_array_equal(known.centroids[to_17], in_seven.centroids)


@pytest.mark.parametrize("moved", [0, 1])
def test_small_rois_whose_neighbours_in_the_table_are_neighbours_in_the_brain(moved: int) -> None:
    rng = np.random.default_rng(0)
    turns = np.cumsum(0.35 * rng.standard_normal((3, 240)), axis=1)
    steps = 6 * np.stack([np.cos(turns[0]), np.sin(turns[0]) * np.cos(turns[1]), np.sin(turns[2])], axis=1)
    places = (np.cumsum(steps, axis=0) % 120 - 60).astype(np.float32)
    reference = Reference(places, np.full((240, 240), np.nan, np.float32), "stated order", {})
    near = np.exp(-np.linalg.norm(places[:, None] - places[None], axis=2) / 20)
    runs = [
        (f"run-{seed}", np.roll(np.linalg.cholesky(near) @ rng.standard_normal((240, 200)), moved, 0))
        for seed in range(2)
    ]
    found = roi_order.compare(reference, roi_order.known_orders(reference, ()), runs)
    r = sorted(found.beyond_rows["the distance of the ROIs"].values())
    assert r[-2] > 0.6 * r[-1]
    assert found.verdict == ("other" if moved else "confirmed")
    assert found.best == ("the stated order shifted down by 1 row" if moved else "stated order")
