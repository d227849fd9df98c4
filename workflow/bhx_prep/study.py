"""The study as the Snakefile plans it: settings of jobs, rows of tables, cohorts. Cheap to import and to call."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from bhx_model import given_weights
from bhx_model.atomic_write import write_json
from bhx_model.command_line import start_logging
from bhx_model.errors import BhxError, ConfigError, format_error
from bhx_model.evaluation.methods import METHODS
from bhx_prep import fusion_recipe
from bhx_prep.cohort_plan import CohortPlan, settings_are_written
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.config import Config, check
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.experiments import REFERENCE, ExperimentSection
from bhx_prep.config.features import FeaturesSection, strategy_file
from bhx_prep.config.paper_tables import ABLATIONS, PAPER_TABLES
from bhx_prep.config.preproc import PreprocSection
from bhx_prep.config.resolved import SettingsFolder
from bhx_prep.config.section import Section
from bhx_prep.evaluation import split_seeds
from bhx_prep.ingest.stated_names import stated_names
from bhx_prep.preproc.altering_results import altering_results
from bhx_prep.review import decisions
from bhx_prep.review.decisions import Decision
from bhx_prep.trainings import Trainings, overrides, validation_left_out

#: Keys of an endpoint that decide nothing about who is in which split.
_NOT_OF_SPLITS = ("methods", "finetune", "seeds", "paper", "paper_beside_synthetic", "pretraining_overlap")


class Study:
    """The configuration with its cohorts, as the rules see it.

    Parameters
    ----------
    raw : dict
        ``config`` of Snakemake, unchecked.
    build : bool
        Whether stale indices may be rebuilt: true in the main process, false in the processes of jobs.
    cache : Path
        Folder of the parse-time cache.

    Raises
    ------
    SystemExit
        If the configuration has mistakes: all of them are named.
    """

    def __init__(self, raw: dict[str, Any], *, build: bool, cache: Path = Path(".bhx/index")):
        if build:
            start_logging()  # indexing a large cohort takes minutes
        try:
            self.config = check(raw)
        except ConfigError as error:
            raise SystemExit(str(error)) from None
        results = self.config.results
        self._settings = SettingsFolder(results / "settings", write=build)
        decided = self._read_decisions(results / "settings" / "qc_decisions.json", build=build)
        self.cohorts = {
            name: CohortPlan(name, cohort, self.config, cache, build=build, decisions=decided[name])
            for name, cohort in self.config.cohorts.items()
        }
        self.trainings = Trainings(self.config)
        self._check_weights()
        with settings_are_written():
            if build:
                self.trainings.write_folders()
                fusion_recipe.write_recipes(self.config, self.trainings)
            self._write_settings(results / "config.resolved.json", write=build)

    def _read_decisions(self, planned: Path, *, build: bool) -> dict[str, list[Decision]]:
        """Decisions on scans, by cohort: jobs see those that were planned with, whatever has been written since."""
        rows = None if build else _json_or_none(planned)
        if rows is None:
            try:
                found = decisions.read(self.config.qc_decisions, self.config.cohorts)
            except ConfigError as error:
                raise SystemExit(str(error)) from None
            rows = [dataclasses.asdict(decision) for decision in found]
        if build and rows != (_json_or_none(planned) or []):
            with settings_are_written():
                write_json(planned, rows)
        known = [Decision(**row) for row in rows]
        return {name: [one for one in known if one.cohort == name] for name in self.config.cohorts}

    def _check_weights(self) -> None:
        """Stop where weights that are given, or that a training is to start from, are not there."""
        for name, section in self.config.experiments.items():
            try:
                where = "weights"
                if section.weights is not None:
                    given_weights.find(section.weights)
                for stage, folder in section.init_from.items():
                    where = f"init_from.{stage}"
                    if stage not in (found := given_weights.find(folder)):
                        raise ConfigError(
                            f"{folder} holds {', '.join(found)}, but no {stage}: name another folder"
                        )
            except ConfigError as error:
                raise SystemExit(f"experiments.{name}.{where}: {error}") from None

    def _write_settings(self, resolved: Path, *, write: bool) -> None:
        """Write what jobs will ask for, and the whole configuration for users to look up."""
        values = self.config.model_dump(mode="json")
        if write and _json_or_none(resolved) != values:
            write_json(resolved, values)
        self.config_file()
        self.section_file("atlas")
        self.t1w_file()
        for name in self.config.cohorts:
            self.preproc_file(name)
            self.features_file(name)
            self.columns_file(name)
            self.table_file(name)
            self.tables_file(name)
        self.experiments_file()
        for name in self.config.experiments:
            self.terms_file(name)
            self.denoising_file(name)
            self.families_file(name)
            self.people_file(self.experiment(name).cohorts)
        for name in self.config.endpoints:
            self.endpoint_file(name)
            self.split_file(name)
            self.sites_file(name)
            self.people_file(self.endpoint(name).cohorts)
            self.table_file(self.endpoint(name).cohort)

    def config_file(self) -> Path:
        """The whole configuration as a JSON file."""
        return self._file("config", self.config)

    def section_file(self, name: str) -> Path:
        """A top-level section as a JSON file."""
        return self._file(name, getattr(self.config, name))

    def preproc_file(self, cohort: str) -> Path:
        """Section `preproc` as a JSON file, with what follows from the cohort's space and the model's T1 grid."""
        return self._settings.file("preproc", self._preproc(cohort).for_jobs())

    def preproc_alters(self, cohort: str) -> str:
        """What of section `preproc` alters results, as JSON: a change of it preprocesses the cohort again."""
        section = self._preproc(cohort).for_jobs()
        return json.dumps(altering_results(section), sort_keys=True)

    def _preproc(self, cohort: str) -> PreprocSection:
        space, features = self.config.cohorts[cohort].space, self.config.features
        return self.config.preproc.of(space, features.t1w_resolution_mm)

    def features_file(self, cohort: str) -> Path:
        """Section `features` as a JSON file, with the cohort's own denoising strategy where it has one."""
        return self._file("features", self.features(cohort))

    def tables_file(self, cohort: str) -> Path:
        """What a cohort states about tables without ROI names, as a JSON file: a change of its names is another file."""
        return self._settings.file(f"tables-{cohort}", self._stated_names[cohort])

    @cached_property
    def _stated_names(self) -> dict[str, dict[str, Any]]:
        try:
            return {name: stated_names(cohort, name) for name, cohort in self.config.cohorts.items()}
        except ConfigError as error:
            raise SystemExit(format_error(error)) from None

    def endpoint_file(self, name: str) -> Path:
        """An endpoint's section as a JSON file."""
        return self._file(f"endpoint-{name}", self.endpoint(name))

    def split_file(self, name: str) -> Path:
        """What of an endpoint's section decides who is trained and tested on, as a JSON file."""
        values = self.endpoint(name).model_dump(
            mode="json",
            exclude={
                **dict.fromkeys(_NOT_OF_SPLITS, True),
                "splits": {"finetune_seeds"},
            },
        )
        return self._settings.file(f"split-{name}", values)

    def sites_file(self, name: str) -> Path:
        """Sites that each split of an endpoint tests, as a JSON file; none where splits are not by site."""
        return self._settings.file(f"sites-{name}", self._site_folds(name))

    def _site_folds(self, name: str) -> list[list[str]]:
        if self.endpoint(name).splits.scheme != "leave-one-site-out":
            return []
        try:
            return split_seeds.site_folds(self.config, name)
        except (BhxError, OSError) as error:  # from within Snakemake an exception would show as a traceback
            raise SystemExit(f"endpoints.{name}.splits: {format_error(error)}") from None

    def people_file(self, cohorts: Iterable[str]) -> Path:
        """Who the subjects of some cohorts are, and how their tables are read, as a JSON file."""
        return self._settings.file(
            "people", {name: _people(name, self.config) for name in sorted(set(cohorts))}
        )

    def tables_of(self, cohorts: Iterable[str]) -> list[Path]:
        """Tables of phenotypes of some cohorts."""
        return [self.participants(name) for name in cohorts]

    def lists_of(self, name: str) -> list[Path]:
        """The file that an endpoint's splits are in, if any."""
        file = self.endpoint(name).splits.file
        return [] if file is None else [file]

    def splits_left_out(self, experiment: str) -> list[tuple[str, int]]:
        """Endpoints and seeds whose test subjects an experiment is not trained on."""
        asked = self.experiment(experiment).exclude_test_of
        return [
            (name, seed)
            for name, seeds in asked.items()
            for seed in (self.seeds(name) if seeds == "all" else seeds)
        ]

    def validation_left_out(self, experiment: str) -> list[str]:
        """Endpoints of which an experiment leaves out the validation subjects as well, for it is scored on them."""
        return validation_left_out(self.experiment(experiment), self.config.endpoints)

    def scored_parts(self, experiment: str, endpoint: str) -> tuple[str, ...]:
        """Parts of an endpoint's splits that the trained weights of an experiment are scored on."""
        return self.experiment(experiment).scored_parts(self.endpoint(endpoint))

    def overlap_seeds(self, experiment: str, endpoint: str) -> list[int]:
        """Splits of an endpoint that any method of trained weights of an experiment is scored on."""
        methods = [m for m in self.methods(experiment, endpoint) if not METHODS[m].is_untrained]
        return sorted({seed for method in methods for seed in self.seeds(endpoint, method, experiment)})

    def terms_file(self, experiment: str) -> Path:
        """Terms of the data an experiment trains on, as a JSON file."""
        return self._settings.file(f"terms-{experiment}", self.terms(experiment))

    def denoising_file(self, experiment: str) -> Path:
        """How the series that an experiment trains on were denoised, as a JSON file."""
        return self._settings.file(f"denoising-{experiment}", self.denoising(experiment))

    def t1w_file(self) -> Path:
        """What decides the T1s of the features, as a JSON file."""
        return self._settings.file("t1w", _t1w_keys(self.config.features))

    def table_file(self, cohort: str) -> Path:
        """How a cohort's table of phenotypes is read, as a JSON file."""
        return self._file("table", self.config.cohorts[cohort].table)

    def columns_file(self, cohort: str) -> Path:
        """Columns of a cohort's table that are covariates, as a JSON file."""
        return self._settings.file("columns", self.config.cohorts[cohort].columns)

    def families_file(self, experiment: str) -> Path:
        """Tables that name the families of an experiment's cohorts, as a JSON file."""
        tables = {
            name: {
                "participants": str(self.participants(name)),
                "table": cohort.table.model_dump(mode="json"),
            }
            for name in sorted(self.experiment(experiment).cohorts)
            if (cohort := self.config.cohorts[name]).family is not None
        }
        return self._settings.file("families", tables)

    def family_tables(self, experiment: str) -> list[Path]:
        """Tables of phenotypes that name the families of an experiment's cohorts."""
        cohorts = self.experiment(experiment).cohorts
        return [self.participants(name) for name in cohorts if self.config.cohorts[name].family is not None]

    def _file(self, name: str, section: Section) -> Path:
        return self._settings.file(name, section.model_dump(mode="json"))

    def cohort_section(self, name: str) -> CohortSection:
        """A cohort's section of the configuration."""
        return self.config.cohorts[name]

    def features(self, cohort: str) -> FeaturesSection:
        """Section `features`, with the cohort's own denoising strategy where it has one."""
        strategy = self.config.cohorts[cohort].strategy
        return self.config.features.model_copy(update={"strategy": strategy} if strategy else {})

    def experiment(self, name: str) -> ExperimentSection:
        """An experiment's section of the configuration."""
        return self.config.experiments[name]

    def overrides(self, experiment: str, stage: str) -> dict[str, Any]:
        """Changes to a stage's preset, as `trainings.overrides`."""
        return overrides(self.config, experiment, stage)

    def experiments(self, *stages: str) -> list[str]:
        """Names of the experiments that train all of these stages."""
        return [
            name
            for name, section in self.config.experiments.items()
            if set(stages) <= set(section.stages) and section.weights is None
        ]

    def methods(self, experiment: str, endpoint: str) -> list[str]:
        """Methods by which an experiment predicts an endpoint, of those that its cohort has the scans for."""
        asked = self.experiment(experiment).methods(self.endpoint(endpoint))
        return [name for name in asked if self.can_read(endpoint, name)]

    def seeds(self, endpoint: str, method: str | None = None, experiment: str | None = None) -> list[int]:
        """Splits of an endpoint, those that a method is scored on, or those that a method of an experiment is scored on."""
        try:
            if experiment is None or method is None:
                return split_seeds.seeds(self.config, endpoint, method)
            return split_seeds.experiment_seeds(self.config, experiment, endpoint, method)
        except (BhxError, OSError) as error:  # from within Snakemake an exception would show as a traceback
            raise SystemExit(f"endpoints.{endpoint}.splits: {format_error(error)}") from None

    def baselines(self, endpoint: str) -> list[str]:
        """Methods by which an endpoint is predicted without an experiment, of those that its cohort has the scans for."""
        return [name for name in self.endpoint(endpoint).baselines if self.can_read(endpoint, name)]

    def inspected_stage(self, experiment: str, endpoint: str) -> str | None:
        """Stage that an endpoint's inspection reads: the last one that any of its methods reads; None if none."""
        read = {METHODS[name].stage for name in self.methods(experiment, endpoint)}
        return next((stage for stage in ("fusion", "function") if stage in read), None)

    def inspections(self) -> list[tuple[str, str]]:
        """Experiments and endpoints whose subjects show what is inside a model; those tested on other cohorts do not."""
        return [
            (experiment, endpoint)
            for experiment in self.config.experiments
            for endpoint in self.config.endpoints
            if len(self.endpoint(endpoint).cohorts) == 1
            and self.inspected_stage(experiment, endpoint) is not None
        ]

    def modalities(self, endpoint: str) -> list[str]:
        """What a subject of an endpoint needs, so that all rows of its table are about the same people."""
        rows = [
            *self.baselines(endpoint),
            *(m for name in self.config.experiments for m in self.methods(name, endpoint)),
        ]
        return sorted({modality for name in rows for modality in METHODS[name].modalities})

    def can_read(self, endpoint: str, method: str) -> bool:
        """Whether a method can read the scans of an endpoint's cohorts."""
        cohorts = self.endpoint(endpoint).cohorts
        return all(self.cohorts[cohort].can_be_read_by(METHODS[method]) for cohort in cohorts)

    def tables(self) -> list[tuple[str, str]]:
        """Experiments and endpoints that they predict by any method."""
        pairs = itertools.product(self.config.experiments, self.config.endpoints)
        return [
            (experiment, endpoint) for experiment, endpoint in pairs if self.methods(experiment, endpoint)
        ]

    def endpoint_of_table(self, table: str) -> str:
        """Endpoint that a table is of."""
        return table.removesuffix(REFERENCE)

    def planted_file(self, endpoint: str) -> Path | None:
        """What `bhx synth` planted in the subjects of an endpoint's cohort; None where it did not make them."""
        cohort = self.config.cohorts[self.endpoint(endpoint).cohort]
        file = cohort.root / "planted.json"
        return file if cohort.synthetic and file.is_file() else None

    def rows_of_table(self, table: str) -> dict[str, list[str]]:
        """Experiments with rows in a table, and their methods.

        Parameters
        ----------
        table : str
            Name of an endpoint, for rows chosen on validation subjects; with suffix `REFERENCE` for those chosen on test.
        """
        name = self.endpoint_of_table(table)
        endpoint, on_test = self.endpoint(name), table != name
        rows = {
            experiment: [
                m for m in self.methods(experiment, name) if section.chooses_on_test(endpoint, m) == on_test
            ]
            for experiment, section in self.config.experiments.items()
        }
        return {experiment: methods for experiment, methods in rows.items() if methods}

    def table_names(self) -> list[str]:
        """Names of the tables of all endpoints, and of those of rows chosen on test subjects; none without a row."""
        names = [f"{endpoint}{of}" for endpoint in self.config.endpoints for of in ("", REFERENCE)]
        return [
            name
            for name in names
            if self.rows_of_table(name) or (name in self.config.endpoints and self.baselines(name))
        ]

    def study_tables(self) -> dict[str, list[str]]:
        """Tables of the whole study, Tables 1 and 2 of the paper and the ablations, as far as there are rows for them.

        Returns
        -------
        dict
            Name to the names of the endpoints' tables that it is made of.
        """
        found = {}
        for of in ("", REFERENCE):
            tables = [name for name in self.table_names() if name.endswith(REFERENCE) == bool(of)]
            for name, benchmarks in PAPER_TABLES.items():
                mine = [t for t in tables if self.endpoint(self.endpoint_of_table(t)).paper in benchmarks]
                found |= {f"{name}{of}": mine} if mine else {}
            rows = [list(self.rows_of_table(table).values()) for table in tables]
            if any(len(set(itertools.chain(*lists))) < sum(map(len, lists)) for lists in rows):
                found[f"{ABLATIONS}{of}"] = tables
        return found

    def experiments_file(self) -> Path:
        """Sections of all experiments as a JSON file."""
        sections = {
            name: section.model_dump(mode="json") for name, section in self.config.experiments.items()
        }
        return self._settings.file("experiments", sections)

    def endpoint(self, name: str) -> EndpointSection:
        """An endpoint's section of the configuration."""
        return self.config.endpoints[name]

    def terms(self, experiment: str) -> dict[str, str | None]:
        """Terms of the data an experiment trains on, by cohort; None where they are not stated."""
        return {name: stated_terms(self.config.cohorts[name]) for name in self.experiment(experiment).cohorts}

    def denoising(self, experiment: str) -> dict[str, dict[str, str]]:
        """How the series that an experiment trains on were denoised, by cohort: the strategy, and what it does."""
        found = {}
        for name in self.experiment(experiment).cohorts:
            if self.config.cohorts[name].input == "timeseries":
                found[name] = {"strategy": "none", "what": "series as they were given, denoised elsewhere"}
                continue
            strategy = self.features(name).strategy
            try:
                text = yaml.safe_load(strategy_file(strategy).read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError):  # the step that applies it says what is wrong
                text = None
            what = text.get("prose", "not described") if isinstance(text, dict) else "not described"
            found[name] = {"strategy": strategy, "what": str(what)}
        return found

    def participants(self, cohort: str) -> Path:
        """The table of phenotypes of a cohort."""
        return self.config.cohorts[cohort].phenotypes


def _t1w_keys(features: FeaturesSection) -> dict[str, Any]:
    return {k: v for k, v in features.model_dump(mode="json").items() if k.startswith("t1w_")}


def _people(name: str, config: Config) -> dict[str, Any]:
    cohort = config.cohorts[name]
    return {
        "layout": cohort.layout,
        # as the configuration has it: a study that is moved as a whole stays the same
        "folder": os.path.normpath(cohort.root),
        "participants": str(cohort.phenotypes),
        "table": cohort.table.model_dump(mode="json"),
    }


def _json_or_none(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def stated_terms(cohort: CohortSection) -> str | None:
    """Terms of a cohort's data: the configuration's, else the licence its data set states, if any."""
    if cohort.terms is not None:
        return cohort.terms
    try:
        described = json.loads((cohort.root / "dataset_description.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # tables need not have one
        return None
    licence = described.get("License") if isinstance(described, dict) else None
    return licence if isinstance(licence, str) and licence.strip() else None
