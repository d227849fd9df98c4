"""Section `preproc`: from raw BIDS to derivatives."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bhx_prep.config.section import Section


class PreprocSection(Section):
    """From raw BIDS to derivatives (`input: bids` only), one job per subject."""

    backend: Literal["embedded", "fmriprep-docker", "fmriprep-apptainer"] = Field(
        default="embedded",
        description="`embedded`: a short nipype workflow on ANTs, no container and no substitute for fMRIPrep; "
        "`fmriprep-docker` and `fmriprep-apptainer`: fMRIPrep itself.",
    )
    image: str = Field(
        default="nipreps/fmriprep:25.2.7", description="fMRIPrep's container; pin it by digest for a study."
    )
    fs_license: Path | None = Field(
        default=None, description="Your FreeSurfer licence file; fMRIPrep asks for it."
    )
    output_spaces: tuple[str, ...] = Field(
        default=("MNI152NLin2009cAsym:res-2",), description="fMRIPrep's `--output-spaces`."
    )
    fmriprep_args: tuple[str, ...] = Field(
        default=(), description="More arguments for fMRIPrep, as they are."
    )
    templateflow_home: Path | None = Field(
        default=None, description="A filled TemplateFlow folder, so that jobs need no network."
    )
    on_failure: Literal["exclude", "stop"] = Field(
        default="exclude",
        description="If the preprocessing of a subject fails: `exclude` it with the reason, or `stop` the run.",
    )
    embedded_resolution_mm: float = Field(
        default=2.0, ge=1, le=4, description="Grid (mm) of the embedded workflow's standard-space images."
    )
