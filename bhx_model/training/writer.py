"""A thread that writes files while their content is still being computed."""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final

#: Most items in the queue; when it is full, the computing thread waits for the disk.
WAITING: Final = 2
#: Time between two looks at whether the thread is still writing, where it takes nothing, s.
PAUSE_S: Final = 0.2
_END, _STOP = object(), object()


class Writer:
    """Does one work after the other, each on the items given to it, in a thread of its own.

    As a context manager it waits in the end until all is done, and raises what went wrong; after an error of the caller it
    stops at once, and what was begun is undone as its own work does that.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._items: queue.Queue[Any] = queue.Queue(WAITING)
        self._works: deque[Future[None]] = deque()

    def begin(self, work: Callable[[Iterator[Any]], None]) -> None:
        """Have `work` done on the items that are given from now on, until `end`."""
        self._works.append(self._pool.submit(work, iter(self._next, _END)))

    def give(self, item: Any) -> None:
        """Give the work the next item; waits while enough are waiting.

        Raises
        ------
        Exception
            What went wrong with this or an earlier work.
        """
        while True:
            self._raise_what_went_wrong()
            try:
                self._items.put(item, timeout=PAUSE_S)
                return
            except queue.Full:
                continue

    def end(self) -> None:
        """Say that a work has all of its items."""
        self.give(_END)

    def _next(self) -> Any:
        item = self._items.get()
        if item is _STOP:
            raise RuntimeError("what computes ended before its file")
        return item

    def _raise_what_went_wrong(self) -> None:
        while self._works and self._works[0].done():
            self._works[0].result()
            self._works.popleft()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for work in self._works:
                    work.result()
        finally:
            for work in reversed(self._works):  # the last first, so that none begins
                work.cancel()
            with contextlib.suppress(queue.Empty):
                while True:
                    self._items.get_nowait()
            self._items.put(_STOP)
            self._pool.shutdown(wait=True)
