"""What `planted.py` expects, on predictions with a known answer; the study itself takes minutes and is not run here."""

from __future__ import annotations

import numpy as np
import planted
import planted_people
import pytest

from bhx_model.evaluation.intervals import Run

N, TESTED = 200, 40
PEOPLE = np.array([f"people/p{i:03d}" for i in range(N)])
#: Row -> what it reads.
READS = {
    **dict.fromkeys(planted.SERIES, "series"),
    **dict.fromkeys(planted.T1, "T1"),
    **dict.fromkeys(planted.FUSION, "both"),
}


def found(changes=(), seed=0):
    """Rows that see the halves of a label that they read; `changes` says what (endpoint, row) sees instead."""
    random = np.random.default_rng(seed)
    halves = {name: random.standard_normal(N) for name in ("series", "T1")}
    truth = {
        "function": halves["series"] > 0,
        "structure": halves["T1"] > 0,
        "both": halves["series"] + halves["T1"] > 0,
        "none": random.random(N) > 0.5,
        "permuted": random.random(N) > 0.5,
    }
    order = [random.permutation(N) for _ in range(5)]
    noise = {row: 0.5 * random.standard_normal((5, N)) for row in planted.ROWS}
    runs = {}
    for endpoint, label in truth.items():
        for row in planted.ROWS:
            sees = dict(changes).get((endpoint, row), READS[row])
            seen = {"both": halves["series"] + halves["T1"], "truth": 4.0 * label, "nothing": 0, **halves}[
                sees
            ]
            scores = 1 / (1 + np.exp(-(seen + noise[row])))
            runs[endpoint, row] = [
                run_of(label, one, people) for one, people in zip(scores, order, strict=True)
            ]
    return runs


def run_of(label, score, people):
    test, train = people[:TESTED], people[2 * TESTED :]
    return Run(
        PEOPLE[test],
        label[test].astype(np.int64),
        (score[test] > 0.5).astype(np.int64),
        np.stack([1 - score[test], score[test]], axis=1),
        PEOPLE[train],
    )


def failed(verdicts):
    return [verdict.expected for verdict in verdicts if not verdict.holds]


def test_all_holds_where_every_row_sees_what_it_reads(capsys):
    runs = found()
    verdicts = planted.judge(runs)
    assert failed(verdicts) == []
    planted.report(runs, verdicts)
    printed = capsys.readouterr().out
    assert "| fc | series | 0." in printed
    assert "**NO**" not in printed


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ((("none", "fc"), "truth"), ["none: every row at chance"]),
        ((("permuted", "hub_tokens"), "truth"), ["permuted: every row at chance"]),
        (
            (("function", "structure"), "truth"),
            [
                "function: fc, function_regions ahead of structure",
                "function: rows of the T1 at chance",
            ],
        ),
        (
            (("both", "hub_tokens"), "T1"),
            ["both: hub_tokens ahead of fc, function_regions, structure"],
        ),
        (
            (("structure", "structure"), "nothing"),
            [
                "structure: structure above chance",
                "structure: structure ahead of fc, function_regions",
            ],
        ),
    ],
)
def test_a_row_that_sees_something_else_fails(change, fails):
    assert failed(planted.judge(found([change]))) == fails


def test_what_is_planted_is_balanced_and_independent():
    people, labels = planted_people.draw_labels(0, 400)
    site = np.array([person.scanner.site for person in people])
    for name in ("function", "structure", "none"):
        for one in np.unique(site):
            assert labels[name][site == one].mean() == 0.5
    assert labels["both"].sum() == labels["permuted"].sum()
    assert labels["both"].tolist() == [
        int(p.series[1] + p.t1[1] / planted_people.T1_SCORE > 0) for p in people
    ]
    assert labels["function"].tolist() == [p.series[0] for p in people]
    assert labels["structure"].tolist() == [p.t1[0] for p in people]
    planted = [labels["function"], labels["structure"], *np.array([(p.series[1], p.t1[1]) for p in people]).T]
    between = np.corrcoef([*planted, labels["none"], labels["permuted"]])
    assert np.abs(between - np.eye(len(between))).max() < 0.2
