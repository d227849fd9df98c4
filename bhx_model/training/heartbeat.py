"""A folder lock for file systems without locks: a file that its holder keeps renewing. Needs no torch.

The system releases a lock when its process ends; nobody removes the file of a process that was killed. So it counts only as
long as it is renewed: who sees it unchanged for `STALE_S`, by the own clock, takes it over.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Time between two renewals, s.
BEAT_S: Final = 10.0
#: Time after which a file that nobody renews is nobody's, s; disks of a network may show a change a minute late.
STALE_S: Final = 150.0
#: Time after which a new file is looked at again: another process may have taken the place of a stale one as well, s.
SETTLE_S: Final = 0.5

_NAME: Final = ".holder"


def renew(folder: Path, ended: threading.Event) -> None:
    """Renew a folder's lock file, if it has one, until `ended`; whichever process holds it."""
    while not ended.wait(BEAT_S):
        with suppress(OSError):
            os.utime(folder / _NAME)


class Heartbeat:
    """The lock of one process on a folder.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    other_lives : bool
        Whether another process was seen to renew its lock, or to take the folder.
    """

    def __init__(self, folder: Path):
        self.other_lives = False
        self._file = folder / _NAME
        self._mine = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}".encode()
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None
        self._seen: tuple[bytes, int] | None = None
        self._since = 0.0

    def take(self) -> bool:
        """Take the lock of the folder if it is free; returns whether this process has it.

        Raises
        ------
        OSError
            If the file cannot be read or written.
        """
        if self._create() or (self._is_stale() and self._create()):
            time.sleep(SETTLE_S)
            if (found := self._look()) is not None and found[0] == self._mine:
                self._renewing = threading.Thread(
                    target=renew, args=(self._file.parent, self._ended), daemon=True
                )
                self._renewing.start()
                return True
        return False

    def release(self) -> None:
        """Give the folder back, if this process has it."""
        if self._renewing is not None:
            self._ended.set()
            self._renewing.join()
            if (found := self._look()) is not None and found[0] == self._mine:
                self._file.unlink(missing_ok=True)

    def _create(self) -> bool:
        try:
            with self._file.open("xb") as file:
                file.write(self._mine)
        except FileExistsError:
            return False
        return True

    def _is_stale(self) -> bool:
        """Whether the lock file was not renewed for so long that its holder must be dead; then it is removed."""
        now = self._look()
        if now is None:  # given back just now
            return True
        if now != self._seen:
            self.other_lives = self._seen is not None
            self._seen, self._since = now, time.monotonic()
        if time.monotonic() - self._since < STALE_S:
            return False
        self._file.unlink(missing_ok=True)
        return True

    def _look(self) -> tuple[bytes, int] | None:
        """What the file says, and when it was renewed; opening it, a disk of a network looks again."""
        try:
            with self._file.open("rb") as file:
                return file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None
