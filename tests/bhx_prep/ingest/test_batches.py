"""Batches: frozen, and blind to who else is there."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhx_prep.ingest import batches

LABELS = st.text("abcABC0123456789", min_size=1, max_size=8)


def test_the_plan_is_frozen_at_first_planning(tmp_path):
    assert batches.n_batches(tmp_path, "study", 41, 20) == 3
    assert batches.n_batches(tmp_path, "study", 4100, 20) == 3
    assert batches.n_batches(tmp_path, "study", 41, 5) == 3
    assert json.loads((tmp_path / "study/plan.json").read_text()) == {"cohort": "study", "n_batches": 3}
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["plan.json"]
    assert batches.n_batches(tmp_path, "other", 1, 20) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[3]",
        '{"cohort": "study"}',
        '{"cohort": "study", "n_batches": 0}',
        '{"cohort": "study", "n_batches": "3"}',
        '{"cohort": "town", "n_batches": 3}',
    ],
)
def test_a_damaged_plan_is_a_sentence(tmp_path, text):
    (tmp_path / "study").mkdir()
    (tmp_path / "study/plan.json").write_text(text)
    with pytest.raises(ValueError, match="is not a plan of cohort study: restore it"):
        batches.n_batches(tmp_path, "study", 41, 20)


@given(
    st.lists(LABELS, unique=True, max_size=30), st.lists(LABELS, unique=True, max_size=30), st.integers(1, 50)
)
def test_new_subjects_never_move_old_ones(old, new, n):
    before, after = batches.batches("study", old, n), batches.batches("study", [*new, *old], n)
    for number, subjects in before.items():
        assert set(subjects) <= set(after[number])
    all_subjects = sorted(label for subjects in after.values() for label in subjects)
    assert all_subjects == sorted({*old, *new})
    assert all(subjects == sorted(subjects) and 0 <= number < n for number, subjects in after.items())


def test_the_hash_stays_what_it_is():
    # changing it would move the subjects of every study that exists
    assert [batches.batch_of("abide1", label, 1000) for label in ("50002", "50003", "s1")] == [715, 625, 776]
    assert batches.batch_of("abide2", "50002", 1000) != 715


def test_batches_have_about_the_size_that_is_asked_for():
    sizes = [len(subjects) for subjects in batches.batches("study", map(str, range(20_000)), 1000).values()]
    assert len(sizes) == 1000
    assert max(sizes) < 45
