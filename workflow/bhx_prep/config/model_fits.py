"""Check before any work that the configured features fit the models of the experiments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bhx_model import config as model_config
from bhx_model import given_weights
from bhx_model.config import FunctionConfig, FusionConfig, StageConfig, StructureConfig
from bhx_model.errors import BhxError, ConfigError
from bhx_prep.config.experiments import ExperimentSection
from bhx_prep.config.features import FeaturesSection


def misfits(raw: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes between the sections `features` and `experiments`, a line each.

    Parameters
    ----------
    raw : Mapping
        The configuration in plain values. Invalid single values are ignored here; other checks report them.
    """
    raw = _mapping(raw)
    features = _mapping(raw.get("features"))
    for name, value in _mapping(raw.get("experiments")).items():
        experiment, path = _mapping(value), f"experiments.{name}"
        if experiment.get("weights") is not None:
            yield from _given(path, experiment["weights"], features)
            continue
        stages = {s: stage_config(experiment, s, features) for s in _stages(experiment)}
        structure, function, fusion = (
            config.model if (config := stages.get(stage)) else None for stage in model_config.STAGES
        )
        if isinstance(structure, StructureConfig):
            yield from _t1w(path, structure.patch, features)
        if isinstance(function, FunctionConfig):
            yield from _series(path, function, features)
            yield from _fixed(path, function, experiment, raw)
            if (
                not function.gradients
                and function.harmonics == "none"
                and features.get("harmonics") != "none"
            ):
                yield f"{path}.overrides.function: gradients and harmonics are off, so that nothing tells the ROIs apart"
        if isinstance(fusion, FusionConfig):
            yield from _fusion(path, fusion, structure, function)


def stage_config(
    experiment: Mapping[str, Any], stage: str, features: Mapping[str, Any]
) -> StageConfig | None:
    """How a stage of an experiment is trained; None where its preset or the changes to it are wrong."""
    preset = experiment.get("preset", ExperimentSection.model_fields["preset"].default)
    changes = dict(_mapping(_mapping(experiment.get("overrides")).get(stage)))
    if stage == "function" and features.get("harmonics") == "none":
        changes["model.harmonics"] = "none"
    try:
        return model_config.load_preset(stage, preset).override(changes)
    except (ConfigError, TypeError):
        return None


def _stages(experiment: Mapping[str, Any]) -> list[str]:
    asked = experiment.get("stages", model_config.STAGES)
    return [s for s in asked if s in model_config.STAGES] if isinstance(asked, list | tuple) else []


def _t1w(path: str, patch: int, features: Mapping[str, Any]) -> Iterator[str]:
    """A T1 grid that is not made of whole patches, or of one alone."""
    grid = features.get("t1w_shape", FeaturesSection.model_fields["t1w_shape"].default)
    if not isinstance(grid, list | tuple) or not all(type(n) is int and n > 0 for n in grid):
        return
    shown = " x ".join(map(str, grid))
    if any(n % patch for n in grid):
        nearest = [max(round(n / patch), 1) for n in grid]
        if set(nearest) == {1}:  # a single patch teaches nothing
            nearest = [2, 2, 2]
        near = " x ".join(str(n * patch) for n in nearest)
        yield (
            f"{path}: features.t1w_shape, {shown} voxels, does not divide into patches of {patch}: "
            f"choose e.g. {near}, or another model.patch"
        )
    elif all(n == patch for n in grid):
        yield f"{path}: features.t1w_shape, {shown} voxels, is a single patch: choose a larger one, or a smaller model.patch"


def _series(path: str, function: FunctionConfig, features: Mapping[str, Any]) -> Iterator[str]:
    """Runs that are let in, but are shorter than a patch; and patches longer than those that cut runs are counted by."""
    window = function.window_s
    counted, shortest = (_number(features, key) for key in ("patch_seconds", "min_seconds"))
    if counted is not None and window > counted + 1e-6:
        yield f"{path}: patches of {window:g} s are longer than features.patch_seconds, {counted:g}: raise that"
    if shortest is not None and shortest < window - 1e-6 and function.tr == "adaptive":
        yield f"{path}: features.min_seconds, {shortest:g}, lets in runs shorter than a patch of {window:g} s: raise it"


def _fixed(
    path: str, function: FunctionConfig, experiment: Mapping[str, Any], raw: Mapping[str, Any]
) -> Iterator[str]:
    """With `tr: fixed` a patch lasts as long as its frames, which `min_seconds` has to hold at the TRs that are stated."""
    shortest = _number(_mapping(raw.get("features")), "min_seconds")
    trained_on = experiment.get("cohorts")
    if function.tr != "fixed" or shortest is None or not isinstance(trained_on, list | tuple):
        return
    cohorts = _mapping(raw.get("cohorts"))
    for cohort in trained_on:
        tr_s = _mapping(cohorts.get(cohort) if isinstance(cohort, str) else None).get("tr_s")
        if (
            isinstance(tr_s, int | float)
            and tr_s > 0
            and (line := short_of_fixed_patch(function, tr_s, shortest))
        ):
            yield f"{path}: {line} (cohort {cohort})"


def short_of_fixed_patch(function: FunctionConfig, tr_s: float, min_seconds: float) -> str | None:
    """What is wrong with `features.min_seconds` at a repetition time (s) for a model of fixed TR; None if nothing."""
    frames = function.base_patch * max(round(function.base_tr_s / tr_s), 1)
    if min_seconds >= frames * tr_s - 1e-6:
        return None
    return (
        f"features.min_seconds, {min_seconds:g}, lets in runs shorter than a patch, which with model.tr: fixed is {frames} "
        f"frames, {frames * tr_s:g} s at TR {tr_s:g} s: raise it"
    )


def _fusion(path: str, fusion: FusionConfig, structure: object, function: object) -> Iterator[str]:
    """A fusion that its encoders' tokens do not fit."""
    where = f"{path}.overrides.fusion"
    if fusion.loss_tokens == "all" and fusion.inputs == "cache":
        yield f"{where}: model.loss_tokens is all, but the cache holds valid tokens only: set model.inputs to online"
    if (
        not fusion.modality_embedding
        and isinstance(structure, StructureConfig)
        and isinstance(function, FunctionConfig)
        and structure.width != function.width
    ):
        yield (
            f"{where}: without model.modality_embedding both encoders must be equally wide, and they are "
            f"{structure.width} and {function.width}: change a width, or set it to true"
        )


def _given(path: str, folder: Any, features: Mapping[str, Any]) -> Iterator[str]:
    """Weights that were trained on other features; of a folder that is not there (yet) nothing is known."""
    if not isinstance(folder, str | Path) or not Path(folder).is_dir():
        return
    try:
        for stage, given in given_weights.find(Path(folder)).items():
            about = given.describe()
            if stage == "structure":
                yield from _other_grid(path, about["model_metadata"]["grid"], features)
            elif stage == "function":
                model = {
                    k: v
                    for k, v in about["config"]["model"].items()
                    if k in ("base_patch", "base_tr_s", "tr")
                }
                yield from _series(path, FunctionConfig(**model, tr_augment=False), features)
    except (BhxError, KeyError, TypeError):  # said by the step that takes them
        return


def _other_grid(path: str, grid: list[int], features: Mapping[str, Any]) -> Iterator[str]:
    asked = features.get("t1w_shape", FeaturesSection.model_fields["t1w_shape"].default)
    if isinstance(asked, list | tuple) and list(asked) != list(grid):
        shown, theirs = (" x ".join(map(str, g)) for g in (asked, grid))
        yield f"{path}.weights: they take T1 volumes of {theirs} voxels, and features.t1w_shape is {shown}: change that"


def _number(section: Mapping[str, Any], key: str) -> float | None:
    value = section.get(key, FeaturesSection.model_fields[key].default)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
