"""Classify the labels along an axis of a table: names, counted ROIs, counted frames, or plain counting.

Running numbers are never data: a column of 0, 1, 2, .. is an index, and so is a row of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from enum import Enum
from itertools import pairwise

from bhx_prep.io.text_table import number


class Axis(Enum):
    """What the labels of an axis are."""

    NAMES = "names"
    ROIS = "counted ROIs"
    FRAMES = "counted frames"
    NUMBERS = "numbers"


#: Words before numbers that count ROIs, frames, or columns of any kind.
_ROIS = {
    "#",
    "mean",
    "nzmean",
    "roi",
    "rois",
    "region",
    "parcel",
    "label",
    "node",
    "area",
    "seg",
    "component",
    "comp",
    "ic",
    "voi",
}
_FRAMES = {"t", "time", "timepoint", "tp", "frame", "volume", "vol", "tr", "scan", "dyn"}
_COLUMNS = {"", "x", "v", "c", "col", "column", "var", "unnamed:", "field", "feature", "f", "row", "r"}
#: Headers of columns that count or time frames.
INDEX_HEADERS = {
    "", "index", "frame", "frames", "time", "t", "tr", "volume", "vol", "timepoint", "time_point", "unnamed: 0",
    "unnamed:0", "#", "row", "id", "onset", "timestamp", "sub-brick",
}  # fmt: skip

_NUMBERED = re.compile(r"(\D*?)[ ._-]*(\d+(?:\.\d+)?)")
_BYTES = re.compile(r"""b(['"]).*\1""")


def clean(label: object) -> str:
    """A label as text: bytes decoded (also where they were written as ``b'..'``), without quotes and blanks."""
    text = label.decode("utf-8", errors="replace") if isinstance(label, bytes) else str(label)
    text = text.replace("\ufeff", "").replace("\xa0", " ").strip()
    if _BYTES.fullmatch(text):
        try:
            return ast.literal_eval(text).decode("utf-8", errors="replace").strip()
        except (ValueError, SyntaxError):
            return text[2:-1]
    while len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].strip()
    return text


def counts(values: Sequence[float]) -> bool:
    """Whether three or more numbers run 0, 1, 2, .. or 1, 2, 3, .."""
    return len(values) > 2 and values[0] in (0, 1) and all(b - a == 1 for a, b in pairwise(values))


def steps(values: Sequence[float]) -> bool:
    """Whether numbers can only count or time something: they run evenly, or are whole and rise."""
    if len(values) < 3 or not all(b > a for a, b in pairwise(values)):
        return False
    return _run_evenly(values) or (len(values) > 4 and all(float(v).is_integer() and v >= 0 for v in values))


def are_labels(values: Sequence[float], others: Sequence[float]) -> bool:
    """Whether numbers at the edge of a table are labels or times of its rows or columns, not data.

    Parameters
    ----------
    values : sequence of float
        The edge, e.g. the first column.
    others : sequence of float
        The line beside it, of the same length.

    Returns
    -------
    bool
        Five or more are whole and none occurs twice, where most beside them have decimals (numbers of labels, such as
        2001, 2002, 2101); or they run evenly, and those beside them do not (times).
    """
    if len(values) < 5 or not all(abs(v) < 1e15 for v in values):
        return False
    if all(float(v).is_integer() for v in values):
        decimals = sum(not float(v).is_integer() for v in others)
        return len(set(values)) == len(values) and 2 * decimals > len(others)
    return _run_evenly(values) and not _run_evenly(others)


def _run_evenly(values: Sequence[float]) -> bool:
    step = (values[-1] - values[0]) / (len(values) - 1)
    return step > 0 and all(abs(b - a - step) <= 1e-3 * step for a, b in pairwise(values))


def kind(labels: Sequence[str]) -> Axis:
    """What cleaned labels are."""
    numbers = [number(label) for label in labels]
    if all(n is not None and n == n for n in numbers):
        return Axis.NUMBERS
    found = [_NUMBERED.fullmatch(label) for label in labels]
    words = {m[1].lower() if m else None for m in found}
    if len(words) == 1 and len(labels) > 1:
        (word,) = words
        for known, what in ((_ROIS, Axis.ROIS), (_FRAMES, Axis.FRAMES), (_COLUMNS, Axis.NUMBERS)):
            if word in known:
                return what
    return Axis.NAMES


def is_frame(label: str) -> bool:
    """Whether a cleaned label counts frames: ``t1``, ``timepoint_1``."""
    found = _NUMBERED.fullmatch(label)
    return found is not None and found[1].lower() in _FRAMES


def out_of_order(labels: Sequence[str]) -> tuple[str, str] | None:
    """The first two neighbours whose numbers do not rise (``t1, t10, t2``), of labels that differ in one number only."""
    numbers = [re.findall(r"\d+(?:\.\d+)?", label) for label in labels]
    if not alike(labels) or any(len(n) != 1 for n in numbers):
        return None
    values = [float(n[0]) for n in numbers]
    return next(((labels[i], labels[i + 1]) for i, (a, b) in enumerate(pairwise(values)) if b <= a), None)


def first_gap(labels: Sequence[str]) -> tuple[str, str] | None:
    """The first two neighbours between whose numbers one is skipped, of labels that count."""
    numbers = [re.findall(r"\d+", label) for label in labels]
    if any(len(n) != 1 for n in numbers):
        return None
    values = [int(n[0]) for n in numbers]
    return next(((labels[i], labels[i + 1]) for i, (a, b) in enumerate(pairwise(values)) if b != a + 1), None)


def pattern(label: str) -> str:
    """A label with its numbers replaced, as names of frames share it."""
    return re.sub(r"[\d.]+", "0", label)


def alike(labels: Sequence[str]) -> bool:
    """Whether labels differ in their numbers only."""
    return len(set(map(pattern, labels))) <= 1
