"""Models of ``config.yaml``. They check it, and the defaults, the JSON schema and the reference page come from them.

Physical needs of jobs (memory, time, threads) stand in the rules, names of a site (partition, account) in the
profiles; neither belongs here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from bhx_model.errors import ConfigError
from bhx_prep.config import yaml_file
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.cross_checks import disagreements, scored_elsewhere
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.experiments import ExperimentSection
from bhx_prep.config.features import FeaturesSection
from bhx_prep.config.mistakes import sentence
from bhx_prep.config.model_fits import misfits
from bhx_prep.config.preproc import PreprocSection
from bhx_prep.config.renamed import with_new_names
from bhx_prep.config.section import Name, Section, UserPath
from bhx_prep.io.spaces import SURFACES


class Config(Section):
    """All of ``config.yaml``."""

    results: UserPath = Field(default=Path("results"), description="Folder for everything BHX writes.")
    batch_size: int = Field(
        default=50,
        ge=1,
        le=10000,
        description="Subjects per job of the short steps. Fixed when a cohort is first planned.",
    )
    device: Literal["auto", "cpu", "mps"] = Field(
        default="auto",
        description="Where trained weights are used (embedding, probes, fine-tuning, pictures): `auto` on the GPUs that "
        "`experiments.*.gpus` asks for, else the CPU; `mps`: the GPU of an Apple computer, on which nothing is pretrained.",
    )
    qc_decisions: UserPath = Field(
        default=Path("qc_decisions.tsv"),
        description="Table of manual decisions to exclude or keep scans, regardless of their numbers. "
        "It need not exist. `bhx qc decide` writes it.",
    )
    report_scans: Literal["synthetic", "all", "none"] = Field(
        default="synthetic",
        description="Example scans in the report, one per cohort, without faces and labels: of simulated "
        "cohorts, of all, or none. The shape of a brain can identify a person: show scans of measured "
        "cohorts only to those who may see them.",
    )
    cohorts: dict[Name, CohortSection] = Field(min_length=1, description="The cohorts, by name.")
    preproc: PreprocSection = Field(default=PreprocSection(), description="From raw BIDS to derivatives.")
    atlas: AtlasSection = Field(default=AtlasSection(), description="The parcellation.")
    features: FeaturesSection = Field(
        default=FeaturesSection(), description="Series, volumes and per-ROI metadata."
    )
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        default=(),
        description="Where trainings report to, in addition to `metrics.jsonl`. Each tracker has an extra "
        "of its name; its own environment variables state where it sends reports (`MLFLOW_TRACKING_URI`, "
        "`WANDB_MODE`). No result depends on it.",
    )
    experiments: dict[Name, ExperimentSection] = Field(default={}, description="The trainings, by name.")
    endpoints: dict[Name, EndpointSection] = Field(
        default={}, description="The phenotypes to predict, by name."
    )

    @property
    def volume_spaces(self) -> tuple[str, ...]:
        """Standard spaces of the volumes that cohorts come in."""
        spaces = {
            c.space for c in self.cohorts.values() if c.input != "timeseries" and c.space not in SURFACES
        }
        return tuple(sorted(spaces))

    @property
    def makes_surfaces(self) -> bool:
        """Whether the embedded preprocessing makes surfaces of any cohort."""
        raw = any(cohort.input == "bids" for cohort in self.cohorts.values())
        return raw and self.preproc.backend == "embedded" and self.preproc.surfaces != "none"


def load(path: Path) -> Config:
    """Read and check a configuration file.

    Raises
    ------
    ConfigError
        If the file cannot be read (`yaml_file.read`) or has mistakes: all of them, one line each.
    """
    return check(yaml_file.read(path))


def check(raw: Mapping[str, Any]) -> Config:
    """Check a configuration given as plain values.

    Raises
    ------
    ConfigError
        With one line per mistake: dotted path, what is wrong, the nearest known key where one is misspelt, the new name of
        one of an earlier version.
    """
    raw, lines = with_new_names(raw)
    checked = None
    try:
        checked = Config.model_validate(raw)
    except ValidationError as error:
        lines += [sentence(e, Config) for e in error.errors(include_url=False)]
    lines += [*disagreements(raw), *misfits(raw)]
    if checked is not None:
        lines += scored_elsewhere(checked.experiments, checked.endpoints)
    if checked is None or lines:
        count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        msg = "\n".join([f"{count} in the configuration:", *(f"  {line}" for line in lines)])
        raise ConfigError(msg, lines)
    return checked
