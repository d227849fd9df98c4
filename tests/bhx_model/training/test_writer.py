"""Files are written in a thread, in order, and an error on either side ends both."""

from __future__ import annotations

import threading
import time

import pytest

from bhx_model.training import writer
from bhx_model.training.writer import Writer


def test_works_are_done_in_order_each_on_its_items():
    found = []
    with Writer() as thread:
        for name in "abc":
            thread.begin(lambda items, name=name: found.append((name, list(items))))
            for number in range(5):
                thread.give(number)
            thread.end()
    assert found == [(name, [0, 1, 2, 3, 4]) for name in "abc"]


def test_computing_continues_during_writing_up_to_a_limit():
    begun, go, given = threading.Event(), threading.Event(), []

    def slowly(items):
        for item in items:
            begun.set()
            assert go.wait(10)
            given.append(("written", item))

    def release():
        assert begun.wait(10)
        time.sleep(0.05)
        given.append(("released", None))
        go.set()

    threading.Thread(target=release).start()
    with Writer() as thread:
        thread.begin(slowly)
        for number in range(writer.WAITING + 3):
            thread.give(number)
            given.append(("given", number))
        thread.end()
    at = given.index(("released", None))
    assert ("given", 1) in given[:at]  # the first is being written meanwhile
    assert ("given", writer.WAITING + 2) not in given[:at]


@pytest.mark.parametrize("items", [0, 1, 9])
def test_an_error_of_the_thread_ends_what_computes(items):
    before = threading.active_count()

    def broken(items):
        raise OSError(28, "No space left on device")

    def compute():
        with Writer() as thread:
            for _ in range(3):
                thread.begin(broken)
                for number in range(items):
                    thread.give(number)
                thread.end()

    with pytest.raises(OSError, match="No space left"):
        compute()
    assert threading.active_count() == before


@pytest.mark.parametrize("given", [0, 1, 2])
def test_an_error_of_what_computes_ends_the_thread_and_undoes_its_file(given):
    before, undone = threading.active_count(), []

    def write(items):
        try:
            list(items)
        finally:
            undone.append(True)

    def compute():
        with Writer() as thread:
            thread.begin(write)
            for number in range(given):
                thread.give(number)
            thread.begin(write)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        compute()
    assert threading.active_count() == before
    assert len(undone) <= 1
