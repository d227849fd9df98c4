"""Section `cohorts`: where the data are, and what of them is used."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bhx_prep.config.features import StrategyName
from bhx_prep.config.section import Label, Section


class CohortSection(Section):
    """One study, in one of three forms."""

    input: Literal["bids", "fmriprep", "timeseries"] = Field(
        description="What the data are: `bids` (raw), `fmriprep` (its derivatives) or `timeseries` (ROI x time tables)."
    )
    root: Path = Field(
        description="Folder of the cohort: raw BIDS, derivatives or tables. Only read, never written."
    )
    tasks: tuple[Label, ...] = Field(default=("rest",), description="fMRI tasks to use.")
    subjects: tuple[Label, ...] | None = Field(
        default=None, description="Only these subjects (labels without `sub-`); all when null."
    )
    participants: Path | None = Field(
        default=None,
        description="Table of phenotypes; `participants.tsv` in the root when null. Never enters a shard.",
    )
    space: Literal["MNI152NLin2009cAsym", "MNI152NLin6Asym", "fsLR", "fsaverage5"] = Field(
        default="MNI152NLin2009cAsym",
        description="Which of fMRIPrep's BOLD outputs to parcellate (`input: fmriprep`).",
    )
    series: str = Field(
        default="sub-{subject}/**/*_timeseries.*",
        description="Where a subject's tables are, below the root (`input: timeseries`); `{subject}` is the label.",
    )
    tr_s: float | None = Field(
        default=None, gt=0.1, lt=20, description="Repetition time (s) for data whose files do not state it."
    )
    strategy: StrategyName | None = Field(
        default=None,
        description="Denoising of this cohort where it is not `features.strategy`, e.g. `none` for denoised data.",
    )
    synthetic: bool = Field(
        default=False, description="The data are simulated, not measured: every result is then labelled so."
    )
    terms: str | None = Field(
        default=None,
        description="Licence or data use agreement, for the model card; `License` of the root's "
        "`dataset_description.json` when null.",
    )

    @property
    def phenotypes(self) -> Path:
        """The table of phenotypes, whether it is there or not."""
        return self.participants or self.root / "participants.tsv"
