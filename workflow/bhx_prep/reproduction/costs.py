"""Estimate the costs of a cohort: measured rates times the scans of its recipe."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import yaml
from pydantic import Field

from bhx_model import config as model_config
from bhx_prep.config import recipes
from bhx_prep.config.recipes import Size
from bhx_prep.config.section import Section, read_section
from bhx_prep.config.splits import PROTOCOLS


class StepRate(Section):
    """CPU seconds and disk of a step of the pipeline, on one core."""

    cpu_s_per_run: float = Field(
        ge=0, description="CPU seconds of a run with its T1w image, if there is one."
    )
    cpu_s_per_job: float = Field(ge=0, description="CPU seconds of a job beside them.")
    mb_per_run: float = Field(ge=0, description="MB that stay.")
    frames: int | None = Field(
        ge=1, description="Frames of the run measured; null: the same for all lengths."
    )
    source: str = Field(description="Where it was measured.")


class EvaluationRate(Section):
    """CPU seconds of the rows that need no model."""

    cpu_s_per_row_and_split: float = Field(
        gt=0, description="Of a row on one split, at `subjects` subjects or fewer."
    )
    cpu_s_per_run: float = Field(ge=0, description="Of the three kinds of connectivity, a run.")
    subjects: int = Field(ge=1, description="Subjects that were measured; more take as much longer.")
    source: str = Field(description="Where it was measured.")

    def seconds(self, size: Size, rows: int, splits: int) -> float:
        """CPU seconds of all rows on all splits."""
        longer = max(1.0, size.subjects / self.subjects)
        return rows * splits * self.cpu_s_per_row_and_split * longer + size.bold * self.cpu_s_per_run


class CountedStep(Section):
    """Operations of a training step, counted."""

    gflop_per_sample: float = Field(gt=0, description="GFLOP of a sample, forward and backward.")
    source: str = Field(description="Where it was counted.")


class Rates(Section):
    """The data file of rates."""

    subjects_per_job: int = Field(ge=1, description="`batch_size` by default.")
    preprocessing: dict[str, StepRate] = Field(
        description="By backend; one that was not measured is not there."
    )
    features: dict[str, StepRate] = Field(description="By what the runs are: `table` or `image`.")
    shards: dict[str, StepRate] = Field(description="Packing, likewise.")
    evaluation: EvaluationRate = Field(description="Rows that need no model.")
    training: dict[str, CountedStep] = Field(description="By stage, at the sizes of preset `base`.")
    gpu_peak_tflops: float = Field(gt=0, description="TFLOP/s of the device that trainings are counted for.")
    gpu: str = Field(description="That device, and where its peak is from.")


@dataclass(frozen=True)
class Cost:
    """What is expected.

    Attributes
    ----------
    core_hours : dict of str to float
        By step.
    disk_gb : float
        Of what BHX writes and keeps, without the downloads.
    gpu_hours : dict of str to float
        Of each training at the device's peak: less than it will take.
    unmeasured : tuple of str
        What is not in it because no rate was measured, sentences.
    sources : tuple of str
        Where the rates were measured.
    """

    core_hours: dict[str, float]
    disk_gb: float
    gpu_hours: dict[str, float]
    unmeasured: tuple[str, ...]
    sources: tuple[str, ...]


_TERA: Final = 1e12


@functools.cache
def rates() -> Rates:
    """Read the data file."""
    path = recipes.folder().parent / "rates.yaml"
    return read_section(Rates, yaml.safe_load(path.read_text(encoding="utf-8")))


def of_cohort(size: Size, kind: str, rows: int) -> Cost:
    """Cost of a cohort up to its table of baselines.

    Parameters
    ----------
    size : Size
        How much there is.
    kind : str
        The cohort's `input`.
    rows : int
        Rows of its endpoint that need no model; 0 without an endpoint.
    """
    known, hours, gb, unmeasured, sources = rates(), {}, 0.0, [], []
    steps: list[tuple[str, StepRate]] = []
    if kind == "bids":
        for backend, rate in known.preprocessing.items():
            steps.append((f"preprocessing ({backend})", rate))
        unmeasured.append(
            "fMRIPrep's hours were not measured: run ten subjects, and read them with `bhx status --jobs`"
        )
    if kind == "fmriprep":
        unmeasured.append("making fMRIPrep's derivatives is not in it")
    runs = "image" if kind != "timeseries" or size.t1w > 0 else "table"
    steps += [("features", known.features[runs]), ("shards", known.shards[runs])]
    jobs = -(-size.subjects // known.subjects_per_job)
    for name, rate in steps:
        longer = size.frames / rate.frames if rate.frames else 1.0
        n = max(size.bold, size.t1w)
        hours[name] = (n * longer * rate.cpu_s_per_run + jobs * rate.cpu_s_per_job) / 3600
        gb += n * longer * rate.mb_per_run / 1000
        sources.append(rate.source)
    if rows:
        splits = PROTOCOLS["paper"].seeds
        hours["connectivity and floors"] = known.evaluation.seconds(size, rows, splits) / 3600
        sources.append(known.evaluation.source)
    return Cost(hours, gb, {}, tuple(unmeasured), tuple(dict.fromkeys(sources)))


def of_training(preset: str) -> Cost:
    """Cost of the paper's three trainings at a device's peak rate.

    Parameters
    ----------
    preset : str
        Whose steps and batch sizes count; operations are those of `base`.
    """
    known, hours, sources = rates(), {}, []
    for stage, counted in known.training.items():
        train = model_config.load_preset(stage, preset).to_dict()["train"]
        flop = train["steps"] * train["batch_size"] * counted.gflop_per_sample * 1e9
        hours[stage] = flop / (known.gpu_peak_tflops * _TERA) / 3600
        sources.append(counted.source)
    why = (
        "no GPU was at hand: GPU-hours are counted operations at the device's peak, which no training reaches"
    )
    return Cost({}, 0.0, hours, (why,), tuple(dict.fromkeys([*sources, known.gpu])))
