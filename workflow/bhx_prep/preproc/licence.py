"""Check FreeSurfer's licence file without FreeSurfer."""

from __future__ import annotations

from pathlib import Path


def licence_mistake(file: Path | None) -> str | None:
    """Why a file cannot be a licence; None where it may be one.

    A licence has the owner's address in its first line and codes in the next ones; only FreeSurfer knows whether they are
    genuine.

    Parameters
    ----------
    file : Path or None
    """
    if file is None:
        return "not named"
    if not file.is_file():
        return f"no file {file}"
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return f"{file} is no text"
    if not lines:
        return f"{file} is empty"
    return None
