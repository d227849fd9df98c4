"""Repetition time of a scan from sidecar and header, and which is used if they contradict."""

from __future__ import annotations

import itertools
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

from bhx_model import contract
from bhx_model.errors import DataError

#: Repetition times (s) that a scanner can have; what lies above is nearly always milliseconds.
MIN_TR_S, MAX_TR_S = contract.TR_RANGE_S
#: Times (s) closer than this are the same: converters round.
TOLERANCE_S: Final = 0.005

_IN_SIDECAR: Final = "RepetitionTime in the sidecar"
_IN_HEADER: Final = "the repetition time in the image header"
_GIVEN: Final = "the repetition time given"


@dataclass
class _Stated:
    """What sidecar and header state, by source: the words, and the seconds or the reason why they cannot be true."""

    words: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    faults: dict[str, DataError] = field(default_factory=dict)

    def add(self, source: str, value: Any, what: str) -> None:
        """Enter a value, whatever it is."""
        if not is_number(value):
            self.words[source] = reprlib.repr(value)
            self.faults[source] = DataError(f"{what} is {reprlib.repr(value)}: expected a number of seconds")
            return
        self.words[source] = f"{value:g} s"
        try:
            self.seconds[source] = _plausible(float(value), what)
        except DataError as error:
            self.faults[source] = error

    def __str__(self) -> str:
        names = {"sidecar": "the sidecar", "header": "the image header"}
        says = [
            f"{names[source]}{'' if i else ' says'} {words}"
            for i, (source, words) in enumerate(self.words.items())
        ]
        return ", ".join(says)


def choose(
    sidecar: Mapping[str, Any],
    measured: float | None = None,
    *,
    frames: int | None = None,
    tr_s: float | None = None,
    tr: str | None = None,
    derivative: bool = False,
) -> tuple[float, str | None]:
    """Seconds between two frames, by sidecar and header, and what was decided where the two contradict each other.

    What both state, or the only one that states anything, holds. Where one is impossible or the two differ, the
    cohort's `tr` decides, else its `tr_s`, else, of fMRIPrep's derivatives, the sidecar.

    Parameters
    ----------
    sidecar : Mapping
        Fields of the scan's sidecars: ``RepetitionTime``, or ``VolumeTiming`` with even steps.
    measured : float, optional
        As the image's header states it, see `metadata.header_repetition_time`. Ignored where ``VoxelSizes`` in the sidecar
        replaces a header that was never filled in.
    frames : int, optional
        Number of frames of the image, to compare ``VolumeTiming`` with.
    tr_s : float, optional
        The cohort's (s): used if neither states it, or if they contradict each other.
    tr : {"sidecar", "header"}, optional
        Which of them is right where they contradict each other.
    derivative : bool
        An output of fMRIPrep: by its documentation the sidecar is right, and some of its versions wrote wrong headers.

    Returns
    -------
    tuple of float and str or None
        Seconds, and a note where something was decided.

    Raises
    ------
    DataError
        If it is stated nowhere, sidecar and header differ and nothing decides, frames are unevenly spaced, or it cannot be
        true.
    """
    stated = _stated(sidecar, None if "VoxelSizes" in sidecar else measured, frames)
    if not stated.words:
        if tr_s is None:
            msg = "no repetition time in sidecar or header: add RepetitionTime (s), or set the cohort's tr_s"
            raise DataError(msg)
        return _plausible(tr_s, _GIVEN), None
    values = list(stated.seconds.values())
    if not stated.faults and max(values) - min(values) <= TOLERANCE_S:
        if tr_s is None or abs(tr_s - values[0]) <= TOLERANCE_S or len(values) == 1:
            return values[0], None
        return values[0], f"{stated}: used, and not the cohort's tr_s of {tr_s:g} s"
    return _decide(stated, tr_s, tr, derivative=derivative)


def _stated(sidecar: Mapping[str, Any], measured: float | None, frames: int | None) -> _Stated:
    stated = _Stated()
    if sidecar.get("RepetitionTime") is not None:
        stated.add("sidecar", sidecar["RepetitionTime"], _IN_SIDECAR)
    elif sidecar.get("VolumeTiming") is not None:
        stated.add("sidecar", _step(sidecar["VolumeTiming"], frames), "the step of VolumeTiming")
    if measured is not None:
        stated.add("header", measured, _IN_HEADER)
    return stated


def _decide(stated: _Stated, tr_s: float | None, tr: str | None, *, derivative: bool) -> tuple[float, str]:
    """Which of two that contradict each other is right, or what replaces one that cannot be true."""
    if tr is not None and tr in stated.words:
        if tr in stated.seconds:
            return stated.seconds[tr], f"{stated}: the {tr}'s is used, as `tr` asks"
        if tr_s is None:
            raise stated.faults[tr]
    if tr_s is not None:
        return _plausible(tr_s, _GIVEN), f"{stated}: the cohort's tr_s of {tr_s:g} s is used"
    if "sidecar" not in stated.seconds:
        raise stated.faults.get("sidecar") or stated.faults["header"]
    if derivative:
        return stated.seconds["sidecar"], f"{stated}: the sidecar's is used, as fMRIPrep documents"
    msg = (
        f"repetition time: {stated}; "
        "fix the wrong one (BIDS wants seconds), or say which is right with the cohort's `tr`"
    )
    raise DataError(msg)


def _step(times: Any, frames: int | None) -> float:
    """The step of VolumeTiming: where it has none, nothing can replace it."""
    if not (isinstance(times, list) and len(times) > 1 and all(is_number(v) for v in times)):
        msg = "VolumeTiming in the sidecar is no list of two or more times (s)"
        raise DataError(msg)
    if frames is not None and len(times) != frames:
        msg = f"VolumeTiming has {len(times)} times, the image {frames} frames"
        raise DataError(msg)
    steps = sorted(later - earlier for earlier, later in itertools.pairwise(times))
    if steps[-1] - steps[0] > TOLERANCE_S:
        msg = f"frames are not evenly spaced (VolumeTiming has steps of {steps[0]:g} to {steps[-1]:g} s)"
        raise DataError(msg)
    return steps[len(steps) // 2]


def _plausible(tr_s: float, what: str) -> float:
    if tr_s > MAX_TR_S:
        msg = f"{what} is {tr_s:g}: milliseconds? expected seconds"
        raise DataError(msg)
    if not tr_s >= MIN_TR_S:  # NaN too
        msg = f"{what} is {tr_s:g} s: no scanner is that fast, expected {MIN_TR_S:g} to {MAX_TR_S:g} s"
        raise DataError(msg)
    return tr_s


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a sidecar is a number that can be computed with."""
    # JSON has whole numbers of any length, which no conversion takes; NaN fails the comparison
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
