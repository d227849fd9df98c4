"""Paths of the user's that begin with ``~``."""

from __future__ import annotations

from pathlib import Path

from bhx_model.errors import ConfigError


def expanded(path: str | Path) -> Path:
    """A path with the home folder in place of ``~``.

    Raises
    ------
    ConfigError
        If it begins with ``~`` and a name that has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        msg = f"there is no home folder for {Path(path).parts[0]}: write the path itself"
        raise ConfigError(msg) from error
