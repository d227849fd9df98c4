"""Log how long each step of a subject takes."""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping
from typing import Protocol

logger = logging.getLogger(__name__)


class Named(Protocol):
    """A node of nipype's."""

    name: str


class StepTimes:
    """What nipype calls before and after every node.

    Parameters
    ----------
    subject : str
        Label, for the log.
    seconds : mutable mapping
        Step -> s, which is added to.
    """

    def __init__(self, subject: str, seconds: MutableMapping[str, float]) -> None:
        self.subject, self.seconds = subject, seconds
        self._begun: dict[str, float] = {}

    def __call__(self, node: Named, status: str) -> None:
        """Take the time; `status` is ``start``, ``end`` or ``exception``.

        Nodes that follow a failed one are not started, and reported as ended all the same.
        """
        if status == "start":
            self._begun[node.name] = time.monotonic()
            return
        begun = self._begun.pop(node.name, None)
        if begun is None:
            return
        step, stem = node.name.split("_", 1)
        seconds = time.monotonic() - begun
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        ended = "failed" if status == "exception" else "done"
        logger.info("sub-%s: %s %s: %s in %.0f s", self.subject, step, stem, ended, seconds)
