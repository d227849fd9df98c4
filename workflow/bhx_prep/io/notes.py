"""Notes: assumptions made while a scan is read, shown in the index, the status and the report.

A note is one line of text, ``<kind>: <detail>``. Rows of the index and of the quality control carry a list of them;
they are counted by kind in ``bhx index``, ``bhx status`` and on the report's page.
"""

from __future__ import annotations

from enum import StrEnum

#: Characters of a file's content that a reason or a note quotes at most.
QUOTED = 40


class Kind(StrEnum):
    """Kinds of notes."""

    ROI_ORDER = "ROI order taken as given"
    REORDERED = "ROIs reordered by name"
    TABLE = "table read with an assumption"
    TR = "repetition time chosen"
    CHOICE = "file chosen among several"
    CONFOUNDS = "confounds missing"
    MOTION = "motion not measured as usual"
    NO_MOTION = "motion not known"
    SPACE = "space assumed"
    SUBJECT = "subject's label is like another's"
    MASK = "BOLD without a brain mask"
    T1W = "T1w volume read with an assumption"
    ORDER = "ROI order not confirmed by the series"
    DUPLICATES = "runs of one scan"
    SURFACES = "surfaces not made"
    SAME_T1W = "one T1w image of two subjects"
    NO_RUNS = "cohort without BOLD runs"
    DECISION = "kept by a decision"
    SLICES = "slice timing not corrected"
    DISTORTION = "distortion not corrected"
    ORIENTATION = "orientation assumed"


def note(kind: Kind, detail: str) -> str:
    """Text of a note."""
    return f"{kind}: {detail}"


def kind_of(text: str) -> str:
    """Kind of a note, as `Kind` has it."""
    return text.partition(": ")[0]


def quote(content: object, length: int = QUOTED) -> str:
    """At most `length` characters of a file's content, on one line and in quotes, for a reason or a note."""
    return repr(brief(content, length))


def brief(content: object, length: int = QUOTED) -> str:
    """At most `length` characters of a file's content, on one line, such as the name of a column."""
    text = " ".join(str(content).split())
    return text if len(text) <= length else f"{text[: length - 2]}.."


def short(name: str) -> str:
    """At most `QUOTED` characters of a file's name, from its more specific end, for a reason or a note."""
    return name if len(name) <= QUOTED else f"..{name[2 - QUOTED :]}"
