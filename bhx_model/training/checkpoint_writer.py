"""Write a checkpoint in a separate process, which continues if the training is killed. Needs no torch.

torchrun kills its processes 30 s after it was asked to end, and a large checkpoint on a slow disk takes longer. So the
training hands over the bytes, in a second or two, and this process writes them for as long as it takes, while the training
goes on or ends. Signals that schedulers send before a limit do not end it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import SiteError
from bhx_model.training import checkpoint_folder, heartbeat

_ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Read files from stdin, write them as a checkpoint; what went wrong is one line on stdout."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.training.checkpoint_writer", description=__doc__
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--step", type=int, required=True)
    parser.add_argument("--keep-every", type=int, required=True)
    a = parser.parse_args(argv)
    files = _receive(sys.stdin.buffer)
    if files is None:  # the training was killed before it had handed over all
        return 1
    # where the disk has no locks, the folder stays its training's for as long as this lasts
    threading.Thread(target=heartbeat.renew, args=(a.run, threading.Event()), daemon=True).start()
    try:
        with checkpoint_folder.write_folder(checkpoint_folder.folder(a.run, a.step)) as place:
            for name, content in files.items():
                with atomic_write(place / name) as part:
                    part.write_bytes(content)
    except OSError as error:
        sys.stdout.write(str(checkpoint_folder.not_saved(a.run, a.step, error)))
        return 1
    checkpoint_folder.remove_old(a.run, a.keep_every)
    return 0


class Writing:
    """A checkpoint that is being written by another process.

    Parameters
    ----------
    run : Path
        Run folder.
    step : int
        Updates done.
    files : Mapping[str, bytes]
        The files of the checkpoint.
    keep_every : int
        Keep checkpoints at multiples of it for ever.
    """

    def __init__(self, run: Path, step: int, files: Mapping[str, bytes], keep_every: int):
        self.run, self.step, self.began = run, step, time.monotonic()
        self.seconds: float | None = None
        # as `python -m` of this module, also where the package is found by `sys.path` alone
        call = f"import sys; sys.path.append({str(_ROOT)!r}); from {__name__} import main; sys.exit(main())"
        words = [sys.executable, "-c", call, "--run", str(run)]
        words += ["--step", str(step), "--keep-every", str(keep_every)]
        lock = checkpoint_folder.lock_writing(run)
        try:
            # a session of its own: torchrun kills by session
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                pass_fds=[lock],
            )
        finally:
            os.close(lock)
        assert self._process.stdin is not None
        _send(self._process.stdin, files)

    @property
    def failed(self) -> bool:
        """Whether it has ended, and the checkpoint is not there."""
        return self._ended() not in (None, 0)

    def wait(self) -> None:
        """Wait until it is written.

        Raises
        ------
        SiteError
            If it could not be.
        """
        self._process.wait()
        if self._ended():
            assert self._process.stdout is not None
            said = self._process.stdout.read().decode()
            raise SiteError(
                said or f"the process that wrote step {self.step} in {self.run} was ended: start again"
            )

    def _ended(self) -> int | None:
        code = self._process.poll()
        if code is not None and self.seconds is None:
            self.seconds = time.monotonic() - self.began
        return code


def _send(stream: IO[bytes], files: Mapping[str, bytes]) -> None:
    try:
        with stream:
            stream.write(json.dumps({name: len(content) for name, content in files.items()}).encode() + b"\n")
            for content in files.values():
                stream.write(content)
    except BrokenPipeError:  # it has ended, and says why
        pass


def _receive(stream: IO[bytes]) -> dict[str, bytes] | None:
    """All files, or None if the sender ended before: nothing is written before all is here."""
    sizes = json.loads(stream.readline() or b"null")
    if sizes is None:
        return None
    files = {name: stream.read(size) for name, size in sizes.items()}
    return files if all(len(files[name]) == size for name, size in sizes.items()) else None


if __name__ == "__main__":
    sys.exit(main())
