"""What all commands share: logging to stderr, and the user's errors as one line. Needs no torch."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from bhx_model import gpus, home_folder
from bhx_model.errors import BhxError, ConfigError, format_error
from bhx_model.extras import how_to_install

logger = logging.getLogger(__name__)

#: Time and level first, so that the logs of many jobs can be sorted and searched.
FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"
#: A module that runs as a command (`python -m`) logs as ``__main__``.
PACKAGES: Final = ("bhx_prep", "bhx_model", "__main__")
#: Number of seeds that NumPy, scikit-learn and PyTorch all take.
SEEDS: Final = 2**32


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is when a line is logged."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter(FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))

    @property
    def stream(self) -> TextIO:
        """The current standard error stream."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """Ignored: the stream is always standard error."""


def start_logging(verbosity: int | None = None) -> None:
    """Log both packages to stderr.

    Parameters
    ----------
    verbosity : int, optional
        Below 0 warnings and errors only, 0 events, above 0 details. None keeps what a command has chosen; events where
        none has.
    """
    for name in PACKAGES:
        package = logging.getLogger(name)
        started = any(isinstance(handler, _StderrHandler) for handler in package.handlers)
        if not started:
            package.addHandler(_StderrHandler())
        if verbosity is not None or not started:
            package.setLevel(_level(verbosity or 0))


def _level(verbosity: int) -> int:
    if verbosity < 0:
        return logging.WARNING
    return logging.DEBUG if verbosity > 0 else logging.INFO


class CommandParser(argparse.ArgumentParser):
    """Parser whose paths (``type=Path``) are checked: ``--out "$OUT"`` without a value would mean the current folder.

    ``~`` is the home folder, which shells leave as it is in ``--out=~/derivatives``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("type", Path, user_path)


def user_path(text: str) -> Path:
    """Read a path of the user's, as a `type` of argparse.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is empty, or there is no such home folder.
    """
    if not text:
        msg = "the path is empty: is a variable of the shell not set?"
        raise argparse.ArgumentTypeError(msg)
    try:
        return home_folder.expanded(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add ``-v`` and ``-q``; their sum is `verbosity`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-v", "--verbose", dest="verbosity", action="store_const", const=1, default=0, help="log details"
    )
    group.add_argument(
        "-q", "--quiet", dest="verbosity", action="store_const", const=-1, help="log warnings and errors only"
    )


def json_file(name: str) -> Any:
    """Read a JSON file, as a `type` of argparse: settings reach jobs by path, whatever their size."""
    try:
        return json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {name}: {error.strerror}") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{name} is not JSON: {error}") from None


def json_object(text: str) -> dict[str, Any]:
    """Read names and values in JSON, as a `type` of argparse."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        msg = f'expected names and values in JSON, {{"name": value}}, got {text!r}'
        raise argparse.ArgumentTypeError(msg)
    return value


def whole_number(text: str) -> int:
    """Read a number of 0 or more, as a `type` of argparse."""
    if not text.isdecimal():
        msg = f"expected a whole number of 0 or more, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def positive_number(text: str) -> int:
    """Read a whole number of 1 or more, as a `type` of argparse."""
    if not text.isdecimal() or int(text) < 1:
        msg = f"expected a whole number of 1 or more, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def minutes(text: str) -> float:
    """Read a time of 0 minutes or more, as a `type` of argparse."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        msg = f"expected minutes, 0 or more, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return number


def seed_number(text: str) -> int:
    """Read a seed, a whole number below `SEEDS`, as a `type` of argparse."""
    number = whole_number(text)
    if number >= SEEDS:
        msg = f"expected a seed from 0 to {SEEDS - 1}, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return number


def run_command(command: Callable[[], int | None], *, verbosity: int = 0, extras: Sequence[str] = ()) -> int:
    """Run a command with its log on stderr, on as many GPUs as its job was planned with.

    Parameters
    ----------
    command : callable
        Does the work; returns its exit code, None for 0.
    verbosity : int
        See `start_logging`.
    extras : sequence of str
        Extras of BHX that the command needs: what to install where a package is missing.

    Returns
    -------
    int
        The exit code; 1 after an error that the user can fix, which is logged as one line. Any other exception is a bug
        and passes with its traceback.
    """
    start_logging(verbosity)
    try:
        gpus.reserve_asked(os.environ)
        return command() or 0
    except BrokenPipeError:  # piped into `head`
        return 0
    except (BhxError, OSError) as error:
        logger.error("%s", format_error(error))
        return 1
    except ModuleNotFoundError as error:
        if (sentence := how_to_install(error.name, extras)) is None:
            raise
        logger.error("%s", sentence)
        return 1
