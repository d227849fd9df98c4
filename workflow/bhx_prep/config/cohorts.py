"""Section `cohorts`: where the data are, and which of them are used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from bhx_model.errors import ConfigError
from bhx_prep.config.features import StrategyName
from bhx_prep.config.layouts import KNOWN
from bhx_prep.config.mistakes import nearest
from bhx_prep.config.section import Label, Section, UserPath, Value
from bhx_prep.io.spaces import BY_AGE, MNI152, OTHERS, SURFACES, is_space

#: Known data sets whose files are not laid out as BIDS, see `bhx_prep.ingest`.
Layout = Literal["ukb", "abcd", "hcpya", "hcpa", "abide1", "abide2", "adhd200", "adni", "ppmi"]
Entity = Literal[
    "ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "space", "res", "den", "desc", "seg", "atlas", "stat", "feature"
]  # fmt: skip
Values = Annotated[tuple[Value, ...], Field(min_length=1)]


class TableSettings(Section):
    """How the participants table of a cohort is read; not a section of the configuration, it follows from one."""

    missing: tuple[Value, ...] | None = Field(default=None, description="As of the cohort.")
    family: str | None = Field(default=None, description="As of the cohort.")
    id_column: str | None = Field(default=None, description="As of the cohort.")
    id_columns: tuple[str, ...] = Field(default=(), description="What the data set calls its column of ids.")
    second_header: bool = Field(
        default=False, description="Whether the second line may describe the columns."
    )
    layout: Layout | None = Field(default=None, description="As of the cohort: how it spells ids.")


def _known_space(text: str) -> str:
    if not is_space(text):
        hint = nearest(text, [*MNI152, *SURFACES, *OTHERS])
        more = f"; {text} is one template for every age: {text}:cohort-1" if text in BY_AGE else hint
        raise ConfigError(f"no standard space {text!r}{more}")
    return text


class CohortSection(Section):
    """One study, in one of three forms."""

    input: Literal["bids", "fmriprep", "timeseries"] = Field(
        description="What the data are: `bids` (raw), `fmriprep` (its derivatives) or `timeseries` (ROI x time tables)."
    )
    root: UserPath = Field(
        description="Folder of the cohort: raw BIDS, derivatives or tables. Only read, never written."
    )
    tasks: tuple[Label, ...] = Field(default=("rest",), description="fMRI tasks to use.")
    subjects: tuple[Label, ...] | None = Field(
        default=None, description="Only these subjects (labels without `sub-`); all when null."
    )
    participants: UserPath | None = Field(
        default=None,
        description="Table of phenotypes; `participants.tsv` in the root when null. Never enters a shard.",
    )
    space: Annotated[str, AfterValidator(_known_space)] = Field(
        default=MNI152[0],
        description="Which of the BOLD outputs to parcellate, and the space of the T1w volumes that is preferred: "
        "`MNI152NLin2009cAsym`, `MNI152NLin6Asym`, `fsLR` or `fsaverage5`. Other templates of TemplateFlow are used only "
        "where this names them, e.g. `MNIPediatricAsym:cohort-3`.",
    )
    series: str = Field(
        default="sub-{subject}/**/*_timeseries.*",
        description="Where a subject's tables are, below the root (`input: timeseries`); `{subject}` is the label.",
    )
    orientation: Literal["roi,frame", "frame,roi"] | None = Field(
        default=None,
        description="Axes of tables and arrays without ROI names (`input: timeseries`). Without this key, "
        "a table without names is refused if it is square or if its shape fits both ways.",
    )
    names: UserPath | None = Field(
        default=None,
        description="ROI names, one per line, in the order of tables that contain none (`input: "
        "timeseries`); when null, `names.txt` in the root, if it exists.",
    )
    order_check: Literal["refuse", "note"] = Field(
        default="refuse",
        description="What happens if the connectivity of the series clearly fits another order of ROIs "
        "than they state: the cohort is refused, or a note is written.",
    )
    layout: Layout | None = Field(
        default=None,
        description="Known data set with its own folders and names: files are found, and ids and missing "
        "values are read, as in that data set. When null, BIDS, or `series`.",
    )
    select: dict[Entity, Values] = Field(
        default={},
        description="Only runs with one of these values of a BIDS entity, e.g. `{acq: [mb]}`; `none` "
        "stands for files without the entity. It also selects among T1w images, if a subject has one with "
        "such a value.",
    )
    prefer: dict[Entity, Values] = Field(
        default={},
        description="Files that differ only in these BIDS entities are one scan. The list gives the "
        "values to use, the best first, e.g. `{rec: [norm, none]}`. It decides among several T1w images, too.",
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        description="Scans to exclude: sample keys, file names, or paths of files and folders below the root; `*` stands "
        "for anything. A column `bhx_exclude` or `exclude` of `scans.tsv` does the same, and `.bidsignore` of raw data.",
    )
    tr_s: float | None = Field(
        default=None,
        gt=0.1,
        lt=20,
        description="Repetition time (s) of scans whose files do not state it or contradict each other.",
    )
    tr: Literal["sidecar", "header"] | None = Field(
        default=None,
        description="Which repetition time is right if sidecar and image header differ. When null, the "
        "sidecar decides for fMRIPrep's derivatives, with a note, and other scans are excluded.",
    )
    missing: tuple[Value, ...] | None = Field(
        default=None,
        description="Values of the participants table that mean unknown, e.g. `[-9999, n/a]`; when null, those of the "
        "known data set, else empty cells, `n/a`, `NA`, `NaN`, `null`, `.`, `#`, -999 and -9999. A value that an "
        "endpoint's `classes` name is never missing.",
    )
    id_column: str | None = Field(
        default=None,
        description="Column of the participants table with the subjects' ids; when null, `participant_id`, or what "
        "known data sets call it.",
    )
    family: str | None = Field(
        default=None,
        description="Column of the participants table with an id per family: its members stay in one split, in the "
        "endpoints and in the pretraining's holdout; one id in two cohorts is one family.",
    )
    columns: dict[Literal["age", "sex", "site", "scan_year", "motion"], str] = Field(
        default={},
        description="Columns of the participants table that the methods `age_sex`, `site`, `motion` and "
        "`acquisition` read: `{age: .., sex: .., site: ..}`, `scan_year` (a year, or a date), and `motion`, mean "
        "framewise displacement (mm), if quality control has none.",
    )
    morphometry: UserPath | None = Field(
        default=None,
        description="What the method `volumes` reads: FreeSurfer's folder of subjects, with their `stats`, or a table with "
        "a column per regional volume or thickness. When null, `sourcedata/freesurfer` in the root of derivatives.",
    )
    strategy: StrategyName | None = Field(
        default=None,
        description="Denoising of this cohort, if other than `features.strategy`, e.g. `none` for denoised data.",
    )
    synthetic: bool = Field(
        default=False,
        description="The data are simulated, not measured; every result is then labelled as synthetic.",
    )
    terms: str | None = Field(
        default=None,
        description="Licence or data use agreement, for the model card; `License` of the root's "
        "`dataset_description.json` when null.",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_known_data_set_has_it(cls, values: Any) -> Any:
        """Fill in what the user leaves open, where `layout` names a data set that it is known of."""
        known = KNOWN.get(str(values.get("layout"))) if isinstance(values, dict) else None
        stated = values.get("input") if known is not None else None
        if known is None or not isinstance(stated, str):
            return values
        if stated not in known.inputs:
            raise ConfigError(
                f"{known.title} has no `input: {stated}`; with this layout use {' or '.join(known.inputs)}"
            )
        filled = {"missing": known.unknown_values, "terms": known.terms, **known.inputs[stated].defaults}
        return {**values, **{key: value for key, value in filled.items() if values.get(key) is None}}

    @property
    def phenotypes(self) -> Path:
        """Path of the table of phenotypes, which may not exist."""
        return self.participants or self.root / "participants.tsv"

    @property
    def regions(self) -> Path:
        """Path of the folder or table of regional volumes and thickness, which may not exist."""
        return self.morphometry or self.root / "sourcedata" / "freesurfer"

    @property
    def table(self) -> TableSettings:
        """How the table of phenotypes is read."""
        known = KNOWN.get(self.layout or "")
        named = {"id_columns": known.id_columns, "second_header": known.second_header} if known else {}
        return TableSettings(
            missing=self.missing,
            family=self.family,
            id_column=self.id_column,
            layout=self.layout,
            **named,
        )
