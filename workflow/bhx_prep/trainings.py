"""Folders of trainings: named by what determines their content, so that equal encoders are trained once.

``encoders/<subjects>/`` has what is learned from a set of subjects: their split, gradients and normaliser, and below it
every encoder that is trained on them, ``<stage>-<preset>-<hash>/``, with what is computed by it, and ``used_by.json``.
Experiments that differ only in the fusion share all of it. Weights trained outside the study have a folder of the same
form, ``encoders/weights_<name>-<hash>/``, with the fusion, too. ``experiments/<name>/`` has what is an experiment's own,
links to the rest, and ``experiment.json``, which says in words what is shared with whom.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from bhx_model import config as model_config
from bhx_model import given_weights, neutral_settings
from bhx_model.atomic_write import write_json
from bhx_model.contract import canonical_json
from bhx_model.errors import ConfigError, DataError
from bhx_model.file_hash import file_sha256
from bhx_prep.config.config import Config
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.experiments import ExperimentSection
from bhx_prep.step_versions import STEPS

logger = logging.getLogger(__name__)

ENCODERS = ("structure", "function")
#: Patterns of the names below, for Snakemake's wildcards: subjects that are trained on, and weights that are given.
TRAINED, GIVEN = r"[a-z0-9-]+-[0-9a-f]{8}", r"weights_[a-z0-9-]+-[0-9a-f]{8}"
TRAINSET, RECIPE, PAIR = rf"{TRAINED}|{GIVEN}", r"[a-z]+-[0-9a-f]{8}", r"tokens-[0-9a-f]{8}"

#: Weights are known by so many parts of their file, evenly spaced, of so many bytes each.
_PARTS, _PART_BYTES = 256, 1 << 16
#: Settings of an experiment, besides its cohorts, that decide whom it is trained on, now or before.
OF_SUBJECTS = ("holdout", "exclude_test_of", "share", "seed", "init_from")


def overrides(config: Config, experiment: str, stage: str) -> dict[str, Any]:
    """Changes to a stage's preset; among them that the position code has no harmonics where the study has none.

    What is stated as the preset has it anyway is no change: nothing runs again when it is added or removed.
    """
    section = config.experiments[experiment]
    changes = dict(section.overrides.get(stage, {}))  # pyright: ignore[reportArgumentType, reportCallIssue]
    if stage == "function" and config.features.harmonics == "none":
        changes["model.harmonics"] = "none"
    if not changes:
        return {}
    preset = model_config.load_preset(stage, section.preset).to_dict()
    given = ((*key.partition("."), value) for key, value in changes.items())
    return {f"{part}.{name}": value for part, _, name, value in given if preset[part][name] != value}


class Trainings:
    """Folders of the trainings of all experiments, and who uses them.

    Parameters
    ----------
    config : Config
        Checked.
    """

    def __init__(self, config: Config):
        self._config, self.folder = config, config.results / "encoders"

    @cached_property
    def _trainsets(self) -> dict[str, str]:
        return {
            name: _trainset(section, self._config.endpoints)
            for name, section in self._config.experiments.items()
        }

    @cached_property
    def _recipes(self) -> dict[tuple[str, str], str]:
        return {
            (name, stage): _recipe(stage, section, overrides(self._config, name, stage))
            for name, section in self._config.experiments.items()
            for stage in section.stages
            if stage in ENCODERS or section.weights is not None
        }

    def trainset(self, experiment: str) -> str:
        """Name of the subjects that an experiment is trained on, their cohorts and a hash of how they are split."""
        return self._trainsets[experiment]

    def recipe(self, experiment: str, stage: str) -> str:
        """Name of how one of its encoders is trained: the preset, and a hash of the changes to it; or that it is given."""
        return self._recipes[experiment, stage]

    def pair(self, experiment: str) -> str:
        """Name of the tokens of both its encoders."""
        made_of = [self.recipe(experiment, stage) for stage in ENCODERS]
        return f"tokens-{_hash([*made_of, STEPS['embed_tokens']])}"

    def subjects_folder(self, experiment: str) -> Path:
        """Folder of what is learned from the subjects of an experiment."""
        return self.folder / self.trainset(experiment)

    def stage_folder(self, experiment: str, stage: str) -> Path:
        """Folder of the weights of a stage that an experiment has."""
        if (experiment, stage) not in self._recipes:
            return self.experiment_folder(experiment) / stage
        return self.subjects_folder(experiment) / f"{stage}-{self.recipe(experiment, stage)}"

    def rois(self, experiment: str) -> Path:
        """Per-ROI metadata of an experiment."""
        return self.subjects_folder(experiment) / "rois.npz"

    def tokens(self, experiment: str, cohort: str) -> Path:
        """Index of the cached tokens of a cohort by both encoders of an experiment."""
        return self.subjects_folder(experiment) / self.pair(experiment) / cohort / "index.json"

    def function_tokens(self, experiment: str, cohort: str) -> Path:
        """Readouts of the function tokens of a cohort by the function encoder of an experiment."""
        return self.stage_folder(experiment, "function") / "function_tokens" / f"{cohort}.npz"

    def structure_tokens(self, experiment: str, cohort: str) -> Path:
        """Readouts of the structure tokens of a cohort by the structure encoder of an experiment."""
        return self.stage_folder(experiment, "structure") / "structure_tokens" / f"{cohort}.npz"

    def experiment_folder(self, experiment: str) -> Path:
        """Folder of what is an experiment's own."""
        return self._config.results / "experiments" / experiment

    def users(self, trainset: str, stage: str | None = None, recipe: str | None = None) -> list[str]:
        """Experiments that are trained on a set of subjects, or use one encoder of it, in the configuration's order."""
        return [
            name
            for name in self._config.experiments
            if self.trainset(name) == trainset
            and (stage is None or self._recipes.get((name, stage), "") == recipe)
        ]

    def pair_users(self, trainset: str, pair: str) -> list[str]:
        """Experiments that use the tokens of a pair of encoders."""
        both = [name for name in self.users(trainset) if all((name, s) in self._recipes for s in ENCODERS)]
        return [name for name in both if self.pair(name) == pair]

    def write_folders(self) -> None:
        """Write the folder of every experiment, with links to what it shares, and who uses each shared folder.

        What is linked to is made as an empty folder, so that no link leads nowhere.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        for name in self._config.experiments:
            folder = self.experiment_folder(name)
            folder.mkdir(parents=True, exist_ok=True)
            for link, target in self._links(name):
                target.mkdir(parents=True, exist_ok=True)
                _link(folder / link, target)
            _write_if_new(folder / "experiment.json", self.describe(name))
            _write_if_new(self.subjects_folder(name) / "used_by.json", self._used_by(self.trainset(name)))

    def _used_by(self, trainset: str) -> dict[str, Any]:
        """Value of ``used_by.json``: the subjects, each encoder's preset and changes, and the experiments that use them."""
        users = self.users(trainset)
        section = self._config.experiments[users[0]]
        encoders: dict[str, dict[str, Any]] = {}
        for (name, stage), recipe in self._recipes.items():
            if name in users:
                how = {
                    "preset": self._config.experiments[name].preset,
                    "overrides": overrides(self._config, name, stage),
                }
                made_of = {
                    **(how if section.weights is None else {}),
                    "experiments": self.users(trainset, stage, recipe),
                }
                encoders.setdefault(f"{stage}-{recipe}", made_of)
        return {
            **_subjects(section, self._config.endpoints),
            "experiments": users,
            "encoders": encoders,
        }

    def describe(self, experiment: str) -> dict[str, Any]:
        """Say in words where the parts of an experiment are, and which other experiments use them.

        Returns
        -------
        dict
            The value of ``experiment.json``; folders are relative to the results folder.
        """
        section, results = self._config.experiments[experiment], self._config.results

        def shared(folder: Path, users: list[str]) -> dict[str, Any]:
            others = [name for name in users if name != experiment]
            return {"folder": folder.relative_to(results).as_posix(), "shared_with": others}

        trainset = self.trainset(experiment)
        parts = {"subjects": shared(self.subjects_folder(experiment), self.users(trainset))}
        for stage in section.stages:
            recipe = self._recipes.get((experiment, stage))
            users = [experiment] if recipe is None else self.users(trainset, stage, recipe)
            parts[stage] = shared(self.stage_folder(experiment, stage), users)
        return {
            "experiment": experiment,
            "settings": section.model_dump(mode="json"),
            "parts": parts,
        }

    def _links(self, experiment: str) -> Iterator[tuple[str, Path]]:
        """Names in an experiment's folder, and what they lead to."""
        yield "subjects", self.subjects_folder(experiment)
        stages = [stage for name, stage in self._recipes if name == experiment]
        for stage in stages:
            yield stage, self.stage_folder(experiment, stage)
        for stage in (stage for stage in ENCODERS if stage in stages):
            yield f"{stage}_tokens", self.stage_folder(experiment, stage) / f"{stage}_tokens"
        if set(ENCODERS) <= set(stages):
            yield "tokens", self.subjects_folder(experiment) / self.pair(experiment)


def _hash(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()[:8]


def validation_left_out(section: ExperimentSection, endpoints: Mapping[str, EndpointSection]) -> list[str]:
    """Endpoints of which an experiment leaves out the validation subjects as well: it is scored on them."""
    named = {name: endpoints[name] for name in section.exclude_test_of if name in endpoints}
    return sorted(name for name, endpoint in named.items() if "val" in section.scored_parts(endpoint))


def _subjects(section: ExperimentSection, endpoints: Mapping[str, EndpointSection]) -> dict[str, Any]:
    """Settings that determine an experiment's training subjects: the cohorts, and others that are not the default."""
    if section.weights is not None:
        return {"weights": str(section.weights)}
    changed = {
        name: value
        for name, value in section.model_dump(mode="json", include=set(OF_SUBJECTS)).items()
        if value != ExperimentSection.model_fields[name].get_default()
    }
    if validated := validation_left_out(section, endpoints):
        changed["exclude_validation_of"] = validated
    return {"cohorts": sorted(section.cohorts), **changed}


def _trainset(section: ExperimentSection, endpoints: Mapping[str, EndpointSection]) -> str:
    if section.weights is None:
        name = "-".join(sorted(section.cohorts))
    else:  # no cohort's name has an underscore
        name = "weights_" + (re.sub(r"[^a-z0-9]+", "-", section.weights.name.lower()).strip("-") or "folder")
    subjects = _subjects(section, endpoints)
    if section.weights is not None:
        subjects["weights"] = known_by(section.weights)
    if "init_from" in subjects:
        subjects["init_from"] = {
            stage: known_by(folder, stage) for stage, folder in section.init_from.items()
        }
    return f"{name[:40].strip('-')}-{_hash(subjects)}"


def known_by(folder: Path, only: str | None = None) -> str:
    """Name given weights by their content, so that it does not matter how the folder is written or where it lies.

    It is that of what describes them, and of 16 MB in parts from all over their tensors: to read gigabytes whenever
    Snakemake starts would take too long. The name is the path where there are no weights.

    Parameters
    ----------
    folder : Path
        As `given_weights.find` understands it.
    only : str, optional
        The stage that counts; all by default.
    """
    made_of = []
    try:
        for stage, given in given_weights.find(folder).items():
            if only in (None, stage):
                made_of.append([stage, file_sha256(given.about), *_size_and_parts(given.weights)])
    except (ConfigError, DataError, OSError):
        return str(folder)
    return _hash(made_of) if made_of else str(folder)


def _size_and_parts(path: Path) -> tuple[int, str]:
    parts = hashlib.sha256()
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        last = max(size - _PART_BYTES, 0)
        for number in range(_PARTS):
            file.seek(last * number // (_PARTS - 1))
            parts.update(file.read(_PART_BYTES))
    return size, parts.hexdigest()


def _recipe(stage: str, section: ExperimentSection, changes: Mapping[str, Any]) -> str:
    """Name an encoder by its preset, by those changes to it that change its weights, and by the step's version.

    With the version in it, no weights of older code are taken for new ones, even where Snakemake kept no record of how
    they were made: a job that outlives its Snakemake leaves none.
    """
    if section.weights is not None:
        return f"given-{_hash(known_by(section.weights))}"
    base = model_config.load_preset(stage, section.preset)
    before, after = (neutral_settings.decisive(one.to_dict()) for one in (base, base.override(changes)))
    changed = {
        f"{part}.{key}": value
        for part in ("model", "train")
        for key, value in after[part].items()
        if value != before[part][key]
    }
    return f"{section.preset}-{_hash([section.preset, changed, STEPS['train_encoder']])}"


def _link(link: Path, target: Path) -> None:
    """Make a relative link; a folder of an earlier version in its place is renamed, since it is no longer read."""
    towards = os.path.relpath(target, link.parent)
    if link.is_symlink():
        if link.readlink() == Path(towards):
            return
        link.unlink()
    elif link.exists():
        aside = next(
            p for n in itertools.count(1) if not (p := link.with_name(f"{link.name}.earlier{n}")).exists()
        )
        link.rename(aside)
        logger.warning(
            "%s was made by an earlier version and is now %s: remove it if you need it no more", link, aside
        )
    link.symlink_to(towards)


def _write_if_new(path: Path, value: Any) -> None:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if known != value:
        write_json(path, value)
