"""Another attempt is made where it may help, after growing pauses, and not longer."""

from __future__ import annotations

import email.utils
import threading
import time

import pytest

from bhx_model.remote import patience
from bhx_model.remote.patience import Patience, StoppedError, asked_pause, may_pass


class Clock(threading.Event):
    """Waits for nothing, and notes how long it should have."""

    def __init__(self):
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        return self.is_set()


def test_pauses_double_and_end():
    clock = Clock()
    patient = Patience(5, clock)
    assert [patient.is_left() for _ in range(5)] == [True] * 4 + [False]
    assert [round(s, 3) for s in clock.waited] == pytest.approx([1, 2, 4, 8], rel=0.2)
    patient.renew()
    assert patient.is_left()
    assert clock.waited[-1] == pytest.approx(1, rel=0.2)


def test_no_pause_is_longer_than_the_longest():
    clock = Clock()
    patient = Patience(12, clock)
    while patient.is_left():
        pass
    assert max(clock.waited) == patience.LONGEST_PAUSE_S
    patient.renew()
    patient.is_left(1e9)
    assert clock.waited[-1] == patience.LONGEST_PAUSE_S


def test_the_servers_wish_counts_where_it_is_longer():
    clock = Clock()
    patient = Patience(5, clock)
    patient.is_left(17.0)
    patient.is_left(0.1)
    assert clock.waited[0] == 17.0
    assert clock.waited[1] == pytest.approx(2, rel=0.2)


def test_a_pause_can_be_ended():
    clock = Clock()
    clock.set()
    patient = Patience(5, clock)
    with pytest.raises(StoppedError):
        patient.check()
    with pytest.raises(StoppedError):
        patient.is_left()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), (" 120 ", 120), (None, 0), ("", 0), ("soon", 0), ("-3", 0), ("1e9", 0), ("²", 0)],
)
def test_a_wish_in_seconds(text, seconds):
    assert asked_pause(text) == seconds


def test_a_wish_as_a_date():
    assert asked_pause(email.utils.formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=2)
    assert asked_pause("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert asked_pause("Wed, 99 Oct 2015 07:28:00 GMT") == 0


def test_answers_that_may_pass():
    assert [code for code in (200, 302, 400, 401, 404, 408, 416, 425, 429, 500, 503) if may_pass(code)] == [
        408,
        425,
        429,
        500,
        503,
    ]
