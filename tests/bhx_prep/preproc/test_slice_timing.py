"""Slice times that a sidecar states, and series brought to one time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bhx_model.errors import DataError
from bhx_prep.preproc.embedded.slice_timing import correct, slice_times

SHAPE = (4, 5, 12)
TR = 3.2
ASCENDING = [i * TR / 12 for i in range(12)]
INTERLEAVED = [ASCENDING[i // 2 if i % 2 == 0 else 6 + i // 2] for i in range(12)]
MULTIBAND = [0.0, 1.2, 0.6] * 4


def _sampled(times, axis, tr_s=TR, frames=80) -> Any:
    """Equal slow signals in every voxel, each sampled when its slice was."""
    rng = np.random.default_rng(1)
    tones = rng.uniform(0.01, 0.09, 12), rng.uniform(0, 2 * np.pi, 12)

    def signal(t):
        return 1000 + 10 * sum(np.sin(2 * np.pi * f * t + p) for f, p in zip(*tones, strict=True))

    when = np.arange(frames) * tr_s + np.reshape(times, [-1 if a == axis else 1 for a in range(3)] + [1])
    return np.broadcast_to(signal(when), (*SHAPE, frames)).astype(np.float32), signal


@pytest.mark.parametrize(
    ("given", "direction", "in_order"),
    [
        (ASCENDING, "k", ASCENDING),
        (ASCENDING, "k-", ASCENDING[::-1]),
        (INTERLEAVED, "k", INTERLEAVED),
        (MULTIBAND, "k", MULTIBAND),
        (ASCENDING[:4], "i", ASCENDING[:4]),
        (ASCENDING[:5], "j-", ASCENDING[4::-1]),
    ],
)
def test_every_slice_has_the_signal_of_the_reference_time(given, direction, in_order):
    axis = "ijk".index(direction[0])
    times = slice_times({"SliceTiming": given, "SliceEncodingDirection": direction}, SHAPE, TR)
    assert times is not None
    assert times.axis == axis
    assert times.reference_s == pytest.approx((min(given) + max(given)) / 2, abs=6e-4)
    values, signal = _sampled(in_order, axis)
    fixed = correct(values, times, 0, TR, 0)
    wanted = signal(np.arange(80) * TR + times.reference_s)
    inner = slice(6, -6)  # mirrored at the ends
    error = np.abs(fixed[..., inner] - wanted[inner]).max()
    assert error < 0.02 * np.abs(values[..., inner] - wanted[inner]).max()


def test_parts_and_frames_that_are_not_steady():
    times = slice_times({"SliceTiming": ASCENDING}, SHAPE, TR)
    assert times is not None
    values, _ = _sampled(ASCENDING, 2)
    values[..., :3] += 5000
    whole = correct(values, times, 0, TR, 3)
    np.testing.assert_array_equal(whole[..., :3], values[..., :3])
    assert whole[..., 3:].max() < 2000  # nothing of them has spread
    np.testing.assert_array_equal(correct(values[:, :, 5:9], times, 5, TR, 3), whole[:, :, 5:9])


@pytest.mark.parametrize(
    ("sidecar", "words"),
    [
        ({"SliceTiming": ASCENDING[:11]}, "11 times, the image 12 slices along k"),
        ({"SliceTiming": ASCENDING, "SliceEncodingDirection": "j"}, "12 times, the image 5 slices along j"),
        ({"SliceTiming": []}, "0 times"),
        ({"SliceTiming": [1000 * t for t in ASCENDING]}, "milliseconds"),
        ({"SliceTiming": [t / 1000 for t in ASCENDING]}, "spans 2.93 ms"),
        ({"SliceTiming": [1.5 * t for t in ASCENDING]}, "beyond the repetition time"),
        ({"SliceTiming": [-0.1, *ASCENDING[1:]]}, "begins at -0.1 s"),
        ({"SliceTiming": [float("nan"), *ASCENDING[1:]]}, "1 values that are not finite"),
        ({"SliceTiming": [None, *ASCENDING[1:]]}, "no list of numbers"),
        ({"SliceTiming": 0.5}, "no list of numbers"),
        ({"SliceTiming": [10**400, *ASCENDING[1:]]}, "no list of numbers"),
        ({"SliceTiming": [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]}, "order of the slices"),
        ({"SliceTiming": sorted(MULTIBAND)}, "adjacent slices 0 and 1"),
        ({"SliceTiming": MULTIBAND, "MultibandAccelerationFactor": 1}, "4 slices at one time"),
        ({"SliceTiming": ASCENDING, "SliceEncodingDirection": "z"}, "expected i, j or k"),
        ({"SliceTiming": ASCENDING, "DelayTime": 1.0}, "a DelayTime of 1 s leaves"),
        ({"SliceTiming": [str(t) for t in ASCENDING]}, "no list of numbers"),
    ],
)
def test_what_cannot_be_slice_times_is_refused(sidecar, words):
    with pytest.raises(DataError, match=words) as refused:
        slice_times(sidecar, SHAPE, TR)
    assert len(str(refused.value)) <= 200


def test_no_times_and_all_slices_at_once():
    assert slice_times({}, SHAPE, TR) is None
    at_once = slice_times({"SliceTiming": [0.0] * 12}, SHAPE, TR)
    assert at_once is not None
    assert at_once.span_s == 0
    real = slice_times({"SliceTiming": MULTIBAND, "MultibandAccelerationFactor": 4}, SHAPE, TR)
    assert real is not None


def test_slices_of_a_sparse_run_end_before_its_pause():
    sparse = [t / 2 for t in ASCENDING]
    found = slice_times({"SliceTiming": sparse, "DelayTime": TR / 2}, SHAPE, TR)
    assert found is not None
    assert found.times_s == tuple(sparse)
