"""Determine the hemisphere of a file from metadata and name; swapped ones are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib

from bhx_model.errors import DataError

_NAMED = {"left": {"l", "lh", "left"}, "right": {"r", "rh", "right"}}
#: Key of GIfTI's metadata, of the file or of an array, and how its values begin.
_STRUCTURE = "AnatomicalStructurePrimary"
_PRIMARY = {"cortexleft": "left", "cortexright": "right"}


def check_side(path: Path, side: str, image: Any = None) -> None:
    """Refuse a file of the other hemisphere.

    Parameters
    ----------
    path : Path
        Its name counts where it says a side: ``lh.``, ``hemi-L``, ``.L.``.
    side : str
        ``left`` or ``right``: what it is given as.
    image : optional
        Its content; a GIfTI says which structure it is of.

    Raises
    ------
    DataError
        If name or metadata say the other side.
    """
    other = "right" if side == "left" else "left"
    if isinstance(image, nib.GiftiImage):
        told = {str(part.meta.get(_STRUCTURE, "")).lower() for part in (image, *image.darrays)}
        if any(_PRIMARY.get(word) == other for word in told):
            msg = (
                f"{path.name} is given as the {side} hemisphere, its {_STRUCTURE} says Cortex{other.capitalize()}:"
                " are the two files swapped?"
            )
            raise DataError(msg)
    sides = {of for word in re.split(r"[._]", path.name) for of in _NAMED if _side_word(word) in _NAMED[of]}
    if sides == {other}:
        msg = f"{path.name} is given as the {side} hemisphere, by its name it is the {other} one: are the two swapped?"
        raise DataError(msg)


def _side_word(word: str) -> str:
    """The part of a word of a file's name that may be a side; single letters count as capitals only."""
    word = word.removeprefix("hemi-")
    return "" if word in ("l", "r") else word.lower()
