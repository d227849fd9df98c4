"""Segments of a run with cuts: canonical, and where they lie in the stored series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhx_model.data import segments


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_segments_are_the_kept_frames(kept):
    found = segments.of_kept(np.array(kept))
    numbers = np.flatnonzero(kept)
    if found is None:
        assert np.all(np.diff(numbers) == 1)
        return
    assert [n for first, stop in found for n in range(first, stop)] == numbers.tolist()
    assert segments.checked(found, sum(kept)) == tuple(map(tuple, found))
    places = segments.places(found, sum(kept))
    for (first, stop), (start, end) in zip(found, places, strict=True):
        np.testing.assert_array_equal(numbers[start:end], range(first, stop))


def test_a_run_in_one_piece_has_none():
    assert segments.of_kept(np.array([False, True, True, False])) is None
    assert segments.checked(None, 7) is None
    assert segments.places(None, 7) == ((0, 7),)


@pytest.mark.parametrize(
    "wrong",
    [
        [[0, 7]], [[0, 4], [3, 6]], [[4, 8], [0, 3]], [[0, 0], [1, 8]], [[0, 3], [4, 7]], [[0], [1]], "x", 3,
        [[-2, 1], [3, 7]],
    ],
)  # fmt: skip
def test_other_ranges_are_refused(wrong):
    with pytest.raises(ValueError, match="not ascending ranges of 7 frames"):
        segments.checked(wrong, 7)


def test_a_run_that_is_joined_to_another_is_a_segment():
    kept = np.array([False, True, True, True, False, True, True])
    assert segments.of_kept(kept, (3,)) == [[1, 3], [3, 4], [5, 7]]
    assert segments.of_kept(kept, (1, 5)) == [[1, 4], [5, 7]]
    assert segments.of_kept(np.ones(7, bool), (3,)) == [[0, 3], [3, 7]]
    assert segments.checked([[0, 3], [3, 7]], 7) == ((0, 3), (3, 7))
