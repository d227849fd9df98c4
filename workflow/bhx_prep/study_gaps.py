"""What a study requests but its scans cannot provide, reported when it is planned."""

from __future__ import annotations

from bhx_model.config import FunctionConfig, load_preset
from bhx_model.evaluation.methods import METHODS
from bhx_prep.config.experiments import ExperimentSection
from bhx_prep.config.model_fits import short_of_fixed_patch
from bhx_prep.study import Study


def untrainable(study: Study) -> list[str]:
    """A line for every experiment that is to learn from scans of which its cohorts have none, or from short runs."""
    trained = {name: one for name, one in study.config.experiments.items() if one.weights is None}
    lacking = [(name, _without_scans(study, section)) for name, section in trained.items()]
    lines = [f"experiments.{name}.stages: {line}" for name, line in lacking if line]
    return [*lines, *_short_patches(study)]


def _without_scans(study: Study, section: ExperimentSection) -> str:
    """What scans an experiment needs that none of its cohorts has, and what to do; empty where there are some."""
    plans = [study.cohorts[cohort] for cohort in section.cohorts]
    there = {modality for plan in plans for modality in plan.modalities}
    of = ", ".join(section.cohorts)
    if "fusion" in section.stages and not any(plan.has_t1w() for plan in plans):
        alone = "structure" if "bold" not in there else "function"
        return f"no BOLD run of {of} has a T1 image, which structure and fusion need: set `stages: [{alone}]`"
    if "function" in section.stages and "bold" not in there:
        return f"{of} has no usable BOLD run, which function needs: set `stages: [structure]`"
    if "structure" in section.stages and "t1w" not in there:
        return f"{of} has no usable T1 image, which structure needs: set `stages: [function]`"
    return ""


def _short_patches(study: Study) -> list[str]:
    """A line for every experiment of fixed TR whose cohorts may have runs shorter than a patch."""
    lines = []
    for name, section in study.config.experiments.items():
        if section.weights is not None or "function" not in section.stages:
            continue
        changes = study.overrides(name, "function")
        model = load_preset("function", section.preset).override(changes).model
        assert isinstance(model, FunctionConfig)
        if model.tr != "fixed":
            continue
        times = {tr for cohort in section.cohorts for tr in study.cohorts[cohort].repetition_times()}
        short = [
            line for tr in sorted(times)
            if (line := short_of_fixed_patch(model, tr, study.config.features.min_seconds))
        ]  # fmt: skip
        lines += [f"experiments.{name}: {short[-1]}"] if short else []
    return lines


def without_rows(study: Study) -> list[str]:
    """A line for every endpoint with methods that give no row, as its cohort has not the scans that they read."""
    lines = []
    for name, section in study.config.endpoints.items():
        models = [m for one in study.config.experiments.values() for m in one.methods(section)]
        asked = dict.fromkeys([*section.baselines, *models])
        lacking = [method for method in asked if not study.can_read(name, method)]
        if lacking:
            has = " and ".join(sorted(study.cohorts[section.cohort].modalities)) or "nothing"
            reads = " and ".join(dict.fromkeys(METHODS[method].reads for method in lacking))
            lines.append(
                f"endpoints.{name}.methods: {', '.join(lacking)} give no row: they read {reads}, and of "
                f"{section.cohort} there is {has} alone"
            )
    return lines
