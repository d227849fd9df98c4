"""Plan each series: its BIDS name, or why it gets none. Nothing is converted here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bhx_prep.dicom import subject_table
from bhx_prep.dicom.series import Series
from bhx_prep.dicom.series_map import DATATYPES, SeriesMap, SeriesRule
from bhx_prep.dicom.subject_table import Visit
from bhx_prep.io import bids_names

#: What becomes of a series.
CONVERT: Final = "convert"
IGNORED: Final = "ignored"
UNKNOWN: Final = "unknown"
NO_IMAGE: Final = "no image"
LEFT_OUT: Final = "left out"
NO_LABEL: Final = "patient not in the table"
FAILED: Final = "failed"
#: Suffixes of images as the scanner acquires them, and what `ImageType` has of those that it computes.
_MEASURED: Final = ("T1w", "T2w", "FLAIR", "bold", "sbref", "epi")
_COMPUTED: Final = frozenset(("DERIVED", "MPR", "MOCO", "PROJECTION IMAGE"))
#: Columns of the table of series.
COLUMNS: Final = (
    "subject", "session", "number", "description", "protocol", "images", "vendor", "outcome", "file", "reason",
)  # fmt: skip


@dataclass
class Planned:
    """A series with what becomes of it.

    Attributes
    ----------
    series : Series
    outcome : str
        One of the above.
    visit : Visit or None
        Row of the subjects' table.
    rule : SeriesRule or None
    entities : dict
        Of its file's name.
    reason : str
        Why it is not converted.
    file : str
        Of the dataset, once it is named; without echo.
    """

    series: Series
    outcome: str
    visit: Visit | None = None
    rule: SeriesRule | None = None
    entities: dict[str, str] | None = None
    reason: str = ""
    file: str = ""

    @property
    def subject(self) -> str:
        """Its label; empty where it has none."""
        return self.visit.subject if self.visit else ""

    @property
    def session(self) -> str:
        """Its label; empty where there are none."""
        return self.visit.session if self.visit else ""

    @property
    def target(self) -> SeriesRule:
        """The rule that names it."""
        assert self.rule is not None
        return self.rule

    def fail(self, reason: str) -> None:
        """Leave it unconverted, for a reason."""
        self.outcome, self.reason = FAILED, reason

    def row(self) -> dict[str, str]:
        """It in the table of series, without what is known to identify the patient."""
        description, protocol = self.series.shown
        number = "" if self.series.number is None else str(self.series.number)
        values = (
            f"sub-{self.subject}" if self.subject else "", f"ses-{self.session}" if self.session else "", number,
            description, protocol, str(len(self.series.files)), self.series.vendor, self.outcome, self.file, self.reason,
        )  # fmt: skip
        return {
            column: " ".join(value.split()) or "n/a" for column, value in zip(COLUMNS, values, strict=True)
        }


def plan(series: Sequence[Series], mapping: SeriesMap, visits: Sequence[Visit]) -> list[Planned]:
    """Decide about every series.

    Parameters
    ----------
    series : sequence of Series
        Of any number of patients.
    mapping : SeriesMap
    visits : sequence of Visit
        The table of subjects.

    Returns
    -------
    list of Planned
        In the order of `series`.
    """
    planned = [_decide(one, mapping, visits) for one in series]
    _refuse_days_in_one(planned)
    _name(planned, mapping)
    return planned


def _decide(series: Series, mapping: SeriesMap, visits: Sequence[Visit]) -> Planned:
    rule = next((rule for rule in mapping.series if rule.fits(series)), None)
    visit = subject_table.visit_of(visits, series, mapping.patient_id)
    found = Planned(series, CONVERT, visit, rule)
    if visit is None:
        found.outcome = NO_LABEL
    elif not visit.subject:
        found.outcome, found.visit = LEFT_OUT, None
    elif not mapping.coded_ids and subject_table.tells(visit, series):
        found.visit = None  # its label must not be shown either
        found.fail(
            f"row {visit.line} of the table: the label tells who it is; choose another, or set coded_ids: true"
        )
    elif not series.images and not series.faults:
        found.outcome = NO_IMAGE
    elif rule is None:
        found.outcome = UNKNOWN
    elif rule.ignore:
        found.outcome = IGNORED
    elif series.faults:
        found.fail(series.faults[0])
    elif rule.suffix in _MEASURED and series.image_type & _COMPUTED and rule.image_type is None:
        kind = ", ".join(sorted(series.image_type & _COMPUTED))
        found.fail(
            f"its ImageType is {kind}: computed of another series? If it is meant, map it by image_type"
        )
    elif series.lost and not rule.incomplete:
        found.fail(
            f"{series.lost} of its images are missing: export it again, or map it as `incomplete: true`"
        )
    return found


def _refuse_days_in_one(planned: Sequence[Planned]) -> None:
    """Refuse visits of several days that one row of the table would throw together."""
    days = defaultdict(set)
    for one in planned:
        if one.visit is not None:
            days[one.visit].add(one.series.date)
    for one in planned:
        if one.outcome == CONVERT and one.visit is not None and len(days[one.visit]) > 1:
            one.fail(
                f"sub-{one.subject} was scanned on {len(days[one.visit])} days: "
                "give each a row with study_date and session"
            )


def _name(planned: Sequence[Planned], mapping: SeriesMap) -> None:
    """Give names to what is to be converted; those that would have one in common get run numbers, or none."""
    by_name = defaultdict(list)
    for one in planned:
        if one.outcome == CONVERT:
            one.entities = dict(one.target.entities)
            if one.session:
                one.entities["ses"] = one.session
            by_name[path(one)].append(one)
    for same in by_name.values():
        if (
            len(same) > 1
            and mapping.same_name == "number"
            and not any("run" in (o.entities or {}) for o in same)
        ):
            for run, one in enumerate(same, 1):
                one.entities = {**(one.entities or {}), "run": str(run)}
        elif len(same) > 1:
            numbers = ", ".join(str(one.series.number) for one in same)
            for one in same:
                one.fail(
                    f"series {numbers} would all be {path(one).name}: tell them apart in the map, "
                    "or set same_name: number"
                )
    for one in planned:
        if one.outcome == CONVERT:
            one.file = f"{path(one)}.nii.gz"


def path(planned: Planned, **more: str) -> Path:
    """Path of a file below the dataset, without its ending.

    Parameters
    ----------
    planned : Planned
    **more : str
        `echo`, and `suffix` where it is not the rule's.
    """
    suffix = more.get("suffix", str(planned.target.suffix))
    echo = f"_echo-{more['echo']}" if more.get("echo") else ""
    stem = bids_names.stem(planned.subject, planned.entities or {})
    folder = Path(f"sub-{planned.subject}")
    if planned.session:
        folder /= f"ses-{planned.session}"
    return folder / DATATYPES[suffix] / f"{stem}{echo}_{suffix}"


def unused(planned: Sequence[Planned], mapping: SeriesMap) -> list[int]:
    """Positions of rules, from 1, that no series fits."""
    used = Counter(id(one.rule) for one in planned if one.rule is not None)
    return [n for n, rule in enumerate(mapping.series, 1) if not used[id(rule)]]
