"""Checks across sections of the configuration, and of sections against model presets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bhx_model import config as model_config
from bhx_model import strict_fields
from bhx_model.errors import ConfigError
from bhx_prep.config import preproc
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.experiments import ExperimentSection
from bhx_prep.config.features import FeaturesSection
from bhx_prep.config.fmriprep_arguments import (
    argument_mistakes,
    given_words,
    is_of_release,
    parse,
    space_mistakes,
    stated_twice,
    value_of,
)
from bhx_prep.config.mistakes import nearest
from bhx_prep.config.paper_tables import ABLATIONS, PAPER_TABLES
from bhx_prep.config.preproc import PreprocSection
from bhx_prep.io.spaces import MNI152

#: Columns of the participants table of which a method needs one.
_COLUMNS = {"site": ("site",), "age_sex": ("age", "sex")}
#: Columns of the participants table that methods read.
_READS = {**_COLUMNS, "motion": ("motion",), "acquisition": ("scan_year",)}
#: Names of a column that says where subjects were scanned, in small letters without what is no letter.
_SITE = frozenset(
    {
        "site",
        "siteid",
        "sitename",
        "sitecode",
        "sitenum",
        "siteno",
        "studysite",
        "scansite",
        "scanningsite",
        "imagingsite",
        "acquisitionsite",
        "center",
        "centre",
        "centerid",
        "centreid",
        "institution",
        "institutionname",
        "scanner",
        "scannerid",
    }
)


def disagreements(raw: Mapping[str, Any]) -> Iterator[str]:
    """Contradictions between sections, or with presets, found in plain values, so that they are listed with all others."""
    cohorts = _mapping(_mapping(raw).get("cohorts"))
    yield from _preprocessing(raw)
    for name, experiment in _sections(raw, "experiments"):
        path = f"experiments.{name}"
        if _mapping(_mapping(raw).get("features")).get("harmonics") == "none":
            yield from _harmonics(f"{path}.overrides.function", _mapping(experiment.get("overrides")))
        trained_on = experiment.get("cohorts")
        for cohort in trained_on if isinstance(trained_on, list | tuple) else ():
            if cohort not in cohorts:
                yield f"{path}.cohorts: no cohort {cohort!r}{nearest(str(cohort), cohorts)}"
        endpoints = _mapping(_mapping(raw).get("endpoints"))
        for endpoint in _mapping(experiment.get("exclude_test_of")):
            if endpoint not in endpoints:
                yield f"{path}.exclude_test_of: no endpoint {endpoint!r}{nearest(str(endpoint), endpoints)}"
        for stage, changes in _mapping(experiment.get("overrides")).items():
            preset = experiment.get("preset", ExperimentSection.model_fields["preset"].default)
            if stage in model_config.STAGES and preset in model_config.PRESETS:
                yield from _overrides(f"{path}.overrides.{stage}", stage, preset, _mapping(changes))
    for name, endpoint in _sections(raw, "endpoints"):
        path = f"endpoints.{name}"
        if name in (*PAPER_TABLES, ABLATIONS):
            yield f"{path}: {name} is the name of a table of the whole study: call the endpoint otherwise"
        cohort = endpoint.get("cohort")
        if isinstance(cohort, str) and cohort not in cohorts:
            yield f"{path}.cohort: no cohort {cohort!r}{nearest(cohort, cohorts)}"
        others = endpoint.get("test_on")
        others = others if isinstance(others, list | tuple) else ()
        for one in others:
            other = _mapping(one).get("cohort", one)
            if isinstance(other, str) and other not in cohorts:
                yield f"{path}.test_on: no cohort {other!r}{nearest(other, cohorts)}"
        asked = [cohort, *(_mapping(one).get("cohort", one) for one in others)]
        for one in [c for c in asked if isinstance(c, str)]:
            yield from _columns(path, endpoint, one, _mapping(cohorts.get(one)))
        yield from _own_label(path, endpoint, _mapping(cohorts.get(str(cohort))))
        changes = _mapping(endpoint.get("finetune"))
        known = [field.name for field in dataclasses.fields(model_config.EvaluationConfig)]
        yield from _unknown(f"{path}.finetune", changes, known)
        taken = {k: v for k, v in changes.items() if k in known}
        yield from _refusal(
            f"{path}.finetune",
            lambda taken=taken: strict_fields.from_dict(model_config.EvaluationConfig, taken, "finetune"),
        )


def scored_elsewhere(
    experiments: Mapping[str, ExperimentSection], endpoints: Mapping[str, EndpointSection]
) -> Iterator[str]:
    """Rows that are chosen on test subjects, of endpoints whose validation subjects are no others of the same kind."""
    for name, section in endpoints.items():
        what = "test_on" if section.test_on else f"splits.scheme: {section.splits.scheme}"
        if not section.test_on and section.splits.scheme != "leave-one-site-out":
            continue
        for experiment, asked in experiments.items():
            on_test = [method for method in asked.methods(section) if asked.chooses_on_test(section, method)]
            if on_test:
                yield (
                    f"endpoints.{name}.{what}: {on_test[0]} of experiment {experiment} is chosen on test subjects "
                    "and scored on validation ones, not those left out: use another preset, or `choose_on: val`"
                )


def _columns(
    path: str, endpoint: Mapping[str, Any], cohort: str, section: Mapping[str, Any]
) -> Iterator[str]:
    """Non-imaging methods whose columns the cohort does not define."""
    methods, columns = endpoint.get("methods"), _mapping(section.get("columns"))
    given = {m for m in methods if isinstance(m, str)} if isinstance(methods, list | tuple) else set()
    for method, keys in _COLUMNS.items():
        if method in given and not columns.keys() & set(keys):
            named = ", ".join(f"{key}: .." for key in keys)
            yield f"{path}.methods: {method} reads a column of the table: name it, cohorts.{cohort}.columns: {{{named}}}"
    if "motion" in given and section.get("input") == "timeseries" and "motion" not in columns:
        yield (
            f"{path}.methods: of tables of series the motion is not known: name its column, "
            f"cohorts.{cohort}.columns: {{motion: ..}}, or leave motion out"
        )
    if "volumes" in given and section.get("input") != "fmriprep" and not section.get("morphometry"):
        yield (
            f"{path}.methods: volumes reads what FreeSurfer found: name its folder, or a table, as "
            f"cohorts.{cohort}.morphometry"
        )


def is_called_site(column: str) -> bool:
    """Whether a column's name says that it holds where subjects were scanned."""
    return re.sub("[^a-z]", "", column.lower()) in _SITE


def _own_label(path: str, endpoint: Mapping[str, Any], cohort: Mapping[str, Any]) -> Iterator[str]:
    """A label that is no phenotype, or that another variable determines."""
    column, columns = endpoint.get("column"), _mapping(cohort.get("columns"))
    if not isinstance(column, str):
        return
    if column == columns.get("site") or is_called_site(column):
        yield f"{path}.column: {column!r} is where subjects were scanned, no phenotype of theirs: name another column"
        return
    stratify = endpoint.get("stratify")
    if isinstance(stratify, list | tuple) and column in stratify:
        yield f"{path}.stratify: {column!r} is the endpoint's own column, whose classes are balanced anyway: leave it out"
    if column == _mapping(endpoint.get("splits")).get("site"):
        yield f"{path}.splits.site: {column!r} is the endpoint's own column, not where subjects were scanned: name that one"
    methods = endpoint.get("methods")
    for method in methods if isinstance(methods, list | tuple) else ():
        if column in [columns.get(name) for name in _READS.get(str(method), ())]:
            yield f"{path}.methods: {method!r} reads {column!r}, which is what is predicted: leave the method out"


def _preprocessing(raw: Mapping[str, Any]) -> Iterator[str]:
    """What preprocessing would not make of what the cohorts and the model's T1 grid need."""
    section = _mapping(_mapping(raw).get("preproc"))
    features = _mapping(_mapping(raw).get("features"))
    if not isinstance(section.get("fmriprep_args"), list | tuple):  # its type is another's to name
        section = {**section, "fmriprep_args": ()}
    backend = section.get("backend", PreprocSection.model_fields["backend"].default)
    t1w_mm = features.get("t1w_resolution_mm", FeaturesSection.model_fields["t1w_resolution_mm"].default)
    spaces, surfaces = section.get("output_spaces"), section.get("surfaces", "none")
    if backend != "embedded" and surfaces != "none":
        yield f"preproc.surfaces: {surfaces} is of the embedded workflow; {backend} makes surfaces of its own: set none"
    arguments = given_words(section)
    if backend != "embedded":
        yield from (f"preproc.fmriprep_args: {what}" for what in stated_twice(section))
        level = value_of(arguments, "--level")
        if level in ("minimal", "resampling"):
            yield f"preproc.level: {level} makes no BOLD in standard space and no confounds, which a study reads: use full"
        if "--anat-only" in {one.name for one in parse(arguments)}:
            yield "preproc.fmriprep_args: --anat-only makes no BOLD, which a study reads: leave it out"
        if not re.fullmatch(r"\w[\w./:@+-]*|[^-\s].*\.s(?:if|img)", str(section.get("image", "x"))):
            yield f"preproc.image: {section['image']!r} is the name of no image: give one as nipreps/fmriprep:25.2.7"
    known = backend != "embedded" and is_of_release(
        str(section.get("image", PreprocSection.model_fields["image"].default))
    )
    if known:
        yield from (
            f"preproc.fmriprep_args: {what}"
            for what in argument_mistakes([str(a) for a in section.get("fmriprep_args") or ()])
        )
        given = [str(s) for s in spaces] if isinstance(spaces, list | tuple) else []
        yield from (f"preproc.output_spaces: {what}" for what in space_mistakes(given))
    for name, cohort in _sections(raw, "cohorts"):
        space = cohort.get("space", MNI152[0])
        if cohort.get("input") != "bids" or not isinstance(space, str):
            continue
        if backend == "embedded":
            if space == "fsLR" and surfaces == "none":
                yield f"cohorts.{name}.space: fsLR needs preproc.surfaces: cat-surf (or fMRIPrep as the backend)"
            elif space not in (MNI152[0], "fsLR"):
                yield f"cohorts.{name}.space: the embedded preprocessing makes {MNI152[0]} only (is {space!r})"
        elif isinstance(t1w_mm, int | float):
            task = value_of(arguments, "--task-id")
            if task is not None and cohort.get("tasks", CohortSection.model_fields["tasks"].default) not in (
                [task],
                (task,),
            ):
                yield f"preproc.fmriprep_args: --task-id {task} contradicts cohorts.{name}.tasks, which decide: leave it out"
            if known and not spaces:
                default = preproc.output_spaces(space, t1w_mm)
                found = dict.fromkeys(space_mistakes(default))
                yield from (f"cohorts.{name}.space: fMRIPrep has {what}" for what in found)
            given = spaces if isinstance(spaces, list | tuple) else preproc.output_spaces(space, t1w_mm)
            for what in preproc.lacking(map(str, given), space, t1w_mm, arguments):
                yield f"preproc.output_spaces (cohort {name}): {what}"


def _overrides(path: str, stage: str, preset: str, changes: Mapping[str, Any]) -> Iterator[str]:
    """What a preset does not take of the changes to a stage."""
    base = model_config.load_preset(stage, preset)
    known = [f"{part}.{field}" for part in ("model", "train") for field in base.to_dict()[part]]
    yield from _unknown(path, changes, known)
    yield from _refusal(path, lambda: base.override({k: v for k, v in changes.items() if k in known}))


def _harmonics(path: str, overrides: Mapping[str, Any]) -> Iterator[str]:
    """A model that is to have harmonics in a study that has none."""
    if _mapping(overrides.get("function")).get("model.gradients") is False:
        yield f"{path}.model.gradients: false, but features.harmonics is `none`: nothing would tell the ROIs apart"
    asked = _mapping(overrides.get("function")).get("model.harmonics", "none")
    if asked != "none":
        yield f"{path}.model.harmonics: {asked}, but features.harmonics is `none`: change one of them"


def _unknown(path: str, changes: Mapping[str, Any], known: list[str]) -> Iterator[str]:
    for key in changes:
        if key not in known:
            yield f"{path}.{key}: no such key{nearest(str(key), known)}"


def _refusal(path: str, build: Callable[[], object]) -> Iterator[str]:
    try:
        build()
    except ConfigError as error:
        within, message = path.rpartition(".")[2] + ".", str(error)
        yield f"{path}.{message.removeprefix(within)}" if message.startswith(within) else f"{path}: {message}"


def _sections(raw: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, section in _mapping(_mapping(raw).get(name)).items():
        yield key, _mapping(section)


def _mapping(value: Any) -> Mapping[str, Any]:
    """A value as a mapping; what is none is a mistake already listed, and holds nothing."""
    return value if isinstance(value, Mapping) else {}
