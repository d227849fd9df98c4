"""The user's ``map.yaml``: which series become which BIDS files, and how patients become subjects. It names nobody."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from bhx_model.errors import ConfigError
from bhx_prep.config import yaml_file
from bhx_prep.config.section import Section, UserPath, Value, once_each, read_section
from bhx_prep.dicom.series import Series
from bhx_prep.io import bids_names

#: Suffix -> folder of BIDS.
DATATYPES: Final = {
    **dict.fromkeys(("T1w", "T2w", "FLAIR"), "anat"),
    **dict.fromkeys(("bold", "sbref"), "func"),
    **dict.fromkeys(
        ("epi", "phasediff", "phase1", "phase2", "magnitude", "magnitude1", "magnitude2", "fieldmap"), "fmap"
    ),
}
Suffix = Literal[
    "T1w", "T2w", "FLAIR", "bold", "sbref", "epi", "phasediff", "phase1", "phase2", "magnitude", "magnitude1",
    "magnitude2", "fieldmap",
]  # fmt: skip
#: Entities that the standard allows, by folder.
_ALLOWED: Final = {
    "anat": {"acq", "ce", "rec", "run"},
    "func": {"task", "acq", "ce", "rec", "dir", "run"},
    "fmap": {"acq", "ce", "dir", "run"},
}


def _label(value: str) -> str:
    try:
        return bids_names.check_label(value, "label")
    except ValueError as error:
        raise ConfigError(str(error)) from None


_Label = Annotated[Value, AfterValidator(_label)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


_Patterns = Annotated[tuple[Value, ...], BeforeValidator(_listed), Field(min_length=1)]


class SeriesRule(Section):
    """Which series it is about, and what they become; everything that is named has to fit."""

    description: _Patterns | None = Field(default=None, description="Patterns of SeriesDescription.")
    protocol: _Patterns | None = Field(default=None, description="Patterns of ProtocolName.")
    number: Annotated[tuple[int, ...], BeforeValidator(_listed)] | None = Field(
        default=None, description="Numbers of the series."
    )
    image_type: _Patterns | None = Field(
        default=None, description="Values that ImageType has, all of them, such as NORM or P."
    )
    min_images: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Number of images that it has at least; a mosaic is one."
    )
    incomplete: bool = Field(
        default=False, description="To be converted although images of it seem to be missing."
    )
    ignore: bool = Field(default=False, description="Not to be converted.")
    suffix: Suffix | None = None
    task: _Label | None = None
    acq: _Label | None = None
    ce: _Label | None = None
    rec: _Label | None = None
    dir: _Label | None = None
    run: Annotated[int, Field(ge=1)] | None = None
    intended_for: tuple[_Label, ...] | None = Field(
        default=None, description="Tasks that a field map is for; all runs of the session when null."
    )

    @model_validator(mode="after")
    def _whole(self) -> SeriesRule:
        if not (self.description or self.protocol or self.number or self.image_type):
            raise ConfigError("name the series by description, protocol, number or image_type")
        if self.ignore == (self.suffix is not None):
            raise ConfigError("give either a suffix, such as T1w or bold, or ignore: true")
        if self.suffix is None:
            return self
        datatype = DATATYPES[self.suffix]
        if alien := [entity for entity in self.entities if entity not in _ALLOWED[datatype]]:
            raise ConfigError(f"{self.suffix} has no entity {alien[0]} in BIDS: leave it out")
        if datatype == "func" and self.task is None:
            raise ConfigError(f"{self.suffix} needs a task, such as rest")
        if self.suffix == "epi" and self.dir is None:
            raise ConfigError("epi needs dir, such as AP or PA")
        if self.intended_for is not None and datatype != "fmap":
            raise ConfigError("intended_for is of field maps: leave it out")
        return self

    @property
    def entities(self) -> dict[str, str]:
        """Entities of the file name that it states."""
        stated = {e: getattr(self, e, None) for e in bids_names.SCAN_ENTITIES if e != "ses"}
        return {entity: str(value) for entity, value in stated.items() if value is not None}

    def fits(self, series: Series) -> bool:
        """Whether a series is one of these. Patterns are the shell's, and do not mind capitals."""
        return (
            _fits(self.description, series.description)
            and _fits(self.protocol, series.protocol)
            and (self.number is None or series.number in self.number)
            and (self.min_images is None or series.n_images >= self.min_images)
            and all(value.upper() in series.image_type for value in self.image_type or ())
        )


def _fits(patterns: Sequence[str] | None, text: str) -> bool:
    return patterns is None or any(fnmatchcase(text.lower(), pattern.lower()) for pattern in patterns)


class SeriesMap(Section):
    """All of ``map.yaml``."""

    name: str = Field(default="", description="Name of the dataset; that of its folder when empty.")
    subjects: UserPath = Field(
        default=Path("subjects.tsv"),
        description="Table with patient_id, participant_id and, where needed, session and study_date; beside the map.",
    )
    patient_id: Literal["PatientID", "PatientName"] = Field(
        default="PatientID", description="By which element the table names patients."
    )
    coded_ids: bool = Field(
        default=False, description="The scanner's ids are codes already: labels may be equal to them."
    )
    series: tuple[SeriesRule, ...]
    same_name: Literal["refuse", "number"] = Field(
        default="refuse",
        description="What becomes of series with one name: none is converted, or they get run numbers.",
    )
    participants: Annotated[tuple[Literal["age", "sex"], ...], AfterValidator(once_each)] = Field(
        default=(), description="What of the patient enters participants.tsv: whole years, 89 at most; sex."
    )
    deface: Literal["none", "face"] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default="none",
        description="Faces in anatomical images: left, cut off, or a command of yours, a list with {in} and {out}.",
    )

    @model_validator(mode="after")
    def _whole(self) -> SeriesMap:
        if isinstance(self.deface, tuple):
            text = " ".join(self.deface)
            if "{in}" not in text or "{out}" not in text:
                raise ConfigError("deface: a command needs {in} and {out} among its words")
        return self


def load(path: Path) -> SeriesMap:
    """Read a map; paths in it are below its folder.

    Raises
    ------
    ConfigError
        If it cannot be read (`yaml_file.load`), is empty or has mistakes.
    """
    raw = yaml_file.load(path)
    if not isinstance(raw, dict) or not raw.get("series"):
        raise ConfigError(
            f"{path} maps no series: list them under `series`; `bhx ingest list IN` shows what there is"
        )
    try:
        found = read_section(SeriesMap, raw)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", error.mistakes) from None
    return found.model_copy(update={"subjects": path.parent / found.subjects})
