"""Methods text on models: what was trained, on which inputs, and how endpoints were predicted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bhx_model.evaluation.methods import METHODS
from bhx_prep.boilerplate.wording import count, several
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.experiments import ExperimentSection
from bhx_prep.report.collect import json_if_whole

#: What a stage is.
STAGES: Final = {
    "structure": "a masked autoencoder of T1-weighted volumes [@mae]",
    "function": "a joint-embedding predictive model of parcel series [@ijepa]",
    "fusion": "hub tokens that compress the tokens of both encoders",
}
#: References of rows of a table beside scikit-learn's.
ROW_REFERENCES: Final = {
    "fc_partial": "ledoit2004",
    "fc_tangent": "ledoit2004",
    "brainnetcnn": "brainnetcnn",
    "brainnettf": "brainnettf",
}


def experiment(name: str, section: ExperimentSection, folder: Path) -> str:
    """What was trained in an experiment; empty where nothing is.

    Parameters
    ----------
    name : str
    section : ExperimentSection
    folder : Path
        Its own, in the results.
    """
    runs = {stage: found for stage in STAGES if (found := json_if_whole(folder / stage / "run.json"))}
    if not runs:
        return ""
    preset = f" (preset `{section.preset}`)" if section.preset else ""
    if section.weights is not None:
        said = [
            f"Experiment {name}: weights of BrainHarmonix [@brainharmony] were taken from another training."
        ]
        return " ".join(said)
    cohorts = several(runs[next(iter(runs))].get("cohorts", ()))
    said = [
        f"Experiment {name}{preset}: the model of BrainHarmonix [@brainharmony] was trained on {cohorts}."
    ]
    said += [_stage(stage, run) for stage, run in runs.items()]
    if "function" in runs:
        said += _positions(runs["function"])
    torch = several(sorted({str(run.get("machine", {}).get("torch")) for run in runs.values()}))
    said.append(f"Trainings ran in PyTorch {torch} [@pytorch].")
    return " ".join(said)


def _stage(stage: str, run: dict[str, Any]) -> str:
    settings, counts = run.get("config", {}), run.get("counts", {})
    train = settings.get("train", {})
    return (
        f"Stage {stage}, {STAGES[stage]}, has {counts.get('parameters', 0):,} parameters and was trained for "
        f"{train.get('steps', 0):,} steps of {train.get('batch_size', 0)} samples (AdamW, learning rate "
        f"{train.get('lr', 0):g}, seed {run.get('seed')}) on {count(counts.get('train_subjects', 0), 'subject')}."
    )


def _positions(run: dict[str, Any]) -> Iterator[str]:
    """What the function encoder knew of the regions."""
    model, about = run.get("config", {}).get("model", {}), run.get("model_metadata", {})
    if model.get("harmonics", "none") != "none" and about.get("modes"):
        modes = about["modes"]
        n = modes if isinstance(modes, int) else len(modes)
        yield (
            f"Positions of regions were coded by {n} geometric harmonics of the cortex, the Laplace-Beltrami modes of the "
            "template's midthickness by finite elements [@reuter2006; @pang2023]."
        )
    if model.get("gradients") and about.get("gradients"):
        gradients = about["gradients"]
        n = gradients if isinstance(gradients, int) else len(gradients)
        yield (
            f"Beside them stood {n} gradients of the mean connectivity of the training subjects, a diffusion map "
            "[@coifman2006; @brainspace]."
        )


def endpoint(name: str, section: EndpointSection, results: Path) -> str:
    """How an endpoint was predicted; empty where nothing is scored.

    Parameters
    ----------
    name : str
    section : EndpointSection
    results : Path
        Folder of the results.
    """
    scored: dict[str, int] = {}
    for path in sorted(
        (
            *results.glob(f"endpoints/{name}/*/metrics.json"),
            *results.glob(f"experiments/*/endpoints/{name}/*/metrics.json"),
        )
    ):
        found = json_if_whole(path)
        if found and found.get("method") in METHODS:
            scored[found["method"]] = scored.get(found["method"], 0) + 1
    if not scored:
        return ""
    rows = [row for row in METHODS if row in scored]
    keys = list(dict.fromkeys(f"@{ROW_REFERENCES[row]}" for row in rows if row in ROW_REFERENCES))
    linear = any(not METHODS[row].has_epochs for row in rows)
    keys = [*(["@sklearn"] if linear else []), *keys]
    kind = {"binary": "two classes", "multiclass": "several classes", "regression": "a regression"}[
        section.kind
    ]
    cited = f" [{'; '.join(keys)}]" if keys else ""
    labels = several(f"{METHODS[row].label} ({count(scored[row], 'split')})" for row in rows)
    return f"Endpoint {name} ({kind}, cohort {section.cohort}) was predicted by: {labels}{cited}."
