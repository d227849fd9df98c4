"""When another attempt may help, and how long to wait for it: one way for all that is downloaded. Needs no packages."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from typing import Final

#: Attempts in a row that bring nothing, and the seconds between the first two; the pause doubles from one to the next.
ATTEMPTS: Final = 5
PAUSE_S = 1.0
LONGEST_PAUSE_S: Final = 60.0
#: No byte for so many seconds is a lost connection.
TIMEOUT_S: Final = 60.0

#: So that many jobs do not ask again at once; apart from the numbers that a training draws.
_chance: Final = random.Random()
#: Answers of a server that another attempt may change, beside all of 500 and more.
_PASSING: Final = (408, 425, 429)


class StoppedError(Exception):
    """Another file cannot be had, or the user has had enough."""


class Patience:
    """Attempts at one file.

    Parameters
    ----------
    attempts : int
        In a row that bring nothing, before it is given up.
    stop : threading.Event, optional
        Ends a pause early.
    """

    def __init__(self, attempts: int = ATTEMPTS, stop: threading.Event | None = None):
        self.failures = 0
        self._attempts, self._stop = attempts, stop or threading.Event()

    def check(self) -> None:
        """Raise `StoppedError` if it was stopped."""
        if self._stop.is_set():
            raise StoppedError

    def renew(self) -> None:
        """Count from the beginning: something has come."""
        self.failures = 0

    def is_left(self, after_s: float = 0.0) -> bool:
        """Count a failure, and wait for the next attempt.

        Parameters
        ----------
        after_s : float
            Seconds that the server asks to wait; `LONGEST_PAUSE_S` at most count.

        Returns
        -------
        bool
            False where there is no next one.

        Raises
        ------
        StoppedError
            If it was stopped meanwhile.
        """
        self.failures += 1
        if self.failures >= self._attempts:
            return False
        pause = PAUSE_S * 2 ** (self.failures - 1) * _chance.uniform(0.8, 1.2)
        if self._stop.wait(min(max(pause, after_s), LONGEST_PAUSE_S)):
            raise StoppedError
        return True


def may_pass(status: int) -> bool:
    """Whether another attempt may change such an answer of a server."""
    return status >= 500 or status in _PASSING


def asked_pause(retry_after: str | None) -> float:
    """Seconds that a server asks to wait, from its ``Retry-After``: a number, or a date."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0
