"""Schedules of a training."""

from __future__ import annotations

import itertools

import pytest

from bhx_model.config import PRESETS, load_preset
from bhx_model.training import schedules


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine():
    rates = [schedules.warmup_cosine(s, steps=110, warmup=10, peak=2.0, end=0.5) for s in range(111)]
    assert rates[:10] == pytest.approx([0.2 * (s + 1) for s in range(10)])
    assert rates[10] == 2.0
    assert rates[60] == pytest.approx((2.0 + 0.5) / 2)
    assert rates[35] == pytest.approx(0.5 + 1.5 * (1 + 2**-0.5) / 2)
    assert rates[110] == pytest.approx(0.5)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))


@pytest.mark.parametrize("schedule", [schedules.cosine, schedules.linear])
def test_a_schedule_runs_from_start_to_end_and_then_stays_constant(schedule):
    at = [schedule(s, steps=10, start=0.04, end=0.4) for s in (0, 5, 10, 12)]
    assert at == pytest.approx([0.04, 0.22, 0.4, 0.4])
    quarter = schedule(1, steps=4, start=0.0, end=1.0)
    assert quarter == pytest.approx(0.25 if schedule is schedules.linear else (1 - 2**-0.5) / 2)


@pytest.mark.parametrize("momenta", [(0.98, 1.0), (0.5, 0.9), (1.0, 0.9), (0.0, 1.0), (1.0, 1.0)])
def test_the_share_of_the_start_is_what_an_average_still_holds(momenta):
    """Of weights that start at 1 and follow zeros, the share is what is left."""
    held = 1.0
    for step in range(30):
        momentum = schedules.linear(step, steps=30, start=momenta[0], end=momenta[1])
        held = momentum * held + (1 - momentum) * 0.0
    assert schedules.share_of_start(30, momenta) == pytest.approx(held, rel=1e-12)
    assert (schedules.share_of_start(30, momenta) == 1) == (momenta == (1.0, 1.0))


def test_a_single_step_takes_the_first_momentum():
    assert schedules.share_of_start(1, (0.25, 1.0)) == 0.25


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_leaves_the_target_at_its_start(preset):
    t = load_preset("function", preset).train
    assert schedules.share_of_start(t.steps, t.ema) < 0.1
