"""Check the frames of a raw run one by one: whether each can be read and shows a head."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from bhx_model.errors import DataError

#: Errors of nibabel, gzip and numpy where a file is damaged.
DAMAGED = (OSError, EOFError, ValueError, OverflowError, zlib.error, ImageFileError, HeaderDataError)
#: A frame or slice varies less than this share of what is usual in the run: there is no head in it.
EMPTY = 0.1
#: More frames than this share lack a slice: the series has a hole. Single ones are spikes for denoising to find.
MOST_WITHOUT_SLICES = 0.1
#: More frames than this share repeat the one before: nothing was measured.
MOST_REPEATED = 0.25
#: Least mean of all values, in their standard deviations: a head that fills a tenth of the image has 0.3.
LEAST_MEAN = 0.1


def damaged(error: Exception) -> DataError:
    """What to say of a file that cannot be read to its end."""
    return DataError(f"the image is damaged or cut short ({type(error).__name__})")


def frames_of(image: Any) -> Iterator[NDArray[Any]]:
    """Frames of a 4D image of nibabel's, (X, Y, Z) each; read one at a time.

    Raises
    ------
    DataError
        If the file cannot be read to its end.
    """
    for t in range(image.shape[3]):
        try:
            frame = np.asanyarray(image.dataobj[..., t])
        except DAMAGED as error:
            raise damaged(error) from error
        yield frame


def check_brightness(mean: float, deviation: float) -> None:
    """Refuse values that are no brightness: images of a head are dark outside of it, and never far below zero.

    Parameters
    ----------
    mean, deviation : float
        Of all values of the image.

    Raises
    ------
    DataError
        If they are negative on average, or centred on zero.
    """
    if mean < LEAST_MEAN * deviation:
        msg = (
            f"the values are negative or centred on zero (mean {mean:.3g}, deviation {deviation:.3g}): was a mean taken"
            " out, or did whole numbers overflow? Give the image as the scanner made it"
        )
        raise DataError(msg)


@dataclass
class _Seen:
    """State of the check of a run's frames."""

    ever: NDArray[np.bool_]  # voxels that are finite in some frame
    holes: list[int] = field(default_factory=list)  # voxels that are not, per frame
    spread: list[NDArray[np.floating]] = field(default_factory=list)  # of each slice, per frame
    means: list[float] = field(default_factory=list)  # of each frame
    squares: list[float] = field(default_factory=list)
    repeated: int = 0
    low: float = np.inf
    high: float = -np.inf


def check_series(image: Any) -> None:
    """Read a run to its end and refuse one that does not hold a head in every frame.

    Parameters
    ----------
    image : nibabel image, (X, Y, Z, T)

    Raises
    ------
    DataError
        If frames have NaN, are empty, lack slices or repeat each other, with their number; or if values are no brightness.
    """
    seen = _Seen(np.zeros(image.shape[:3], bool))
    before = None
    for frame in frames_of(image):
        finite = np.isfinite(frame)
        whole = bool(finite.all())
        seen.ever |= finite
        seen.holes.append(0 if whole else int((~finite).sum()))
        values = frame if whole else np.where(finite, frame, 0)
        if finite.any():
            inside = values if whole else frame[finite]
            seen.low, seen.high = min(seen.low, inside.min()), max(seen.high, inside.max())
        spread, mean = (np.asarray(f(values, axis=(0, 1), dtype=np.float64)) for f in (np.std, np.mean))
        seen.spread.append(spread)
        seen.means.append(float(mean.mean()))
        seen.squares.append(float((spread**2 + mean**2).mean()))
        seen.repeated += before is not None and np.array_equal(before, values)
        before = values
    _judge(seen, image.shape[3])


def _judge(seen: _Seen, n: int) -> None:
    # voxels that are never finite are background that some program masked with NaN; they become 0
    background = int((~seen.ever).sum())
    bad = sum(count > background for count in seen.holes) if seen.ever.any() else n
    if bad:
        msg = f"{bad} of {n} frames have NaN or infinite values"
        raise DataError(msg)
    if seen.low == seen.high:
        msg = "the image is empty: all voxels are the same"
        raise DataError(msg)
    spread = np.asarray(seen.spread)  # (T, Z)
    whole = np.sqrt((spread**2).mean(axis=1))
    empty = whole < EMPTY * _usual(whole)
    if empty.any():
        first = int(np.argmax(empty))
        msg = f"{int(empty.sum())} of {n} frames are empty (first: {first}): cut them off, or exclude the run"
        raise DataError(msg)
    usual = np.array([_usual(column) for column in spread.T])
    # a slice above the head is always empty
    lacking = ((spread < EMPTY * usual) & (usual > EMPTY * usual.max())).any(axis=1)
    if lacking.sum() > MOST_WITHOUT_SLICES * n:
        msg = f"{int(lacking.sum())} of {n} frames have empty slices that are full in others: the run is not complete"
        raise DataError(msg)
    if seen.repeated > MOST_REPEATED * n:
        msg = f"{seen.repeated} of {n} frames repeat the frame before them exactly: nothing was measured in them"
        raise DataError(msg)
    mean = float(np.mean(seen.means))
    check_brightness(mean, float(np.sqrt(max(np.mean(seen.squares) - mean**2, 0))))


def _usual(values: NDArray[np.floating]) -> float:
    """What is usual where up to nine tenths may be empty."""
    usual = float(np.percentile(values, 90))
    return usual if usual > 0 else float(values.max())
