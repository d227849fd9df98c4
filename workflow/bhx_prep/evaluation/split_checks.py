"""Check that a configuration's splits can be made, from names of folders and tables; no scan is read.

What only the scans can tell, one series under two ids, is found as soon as there are shards (`guards`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from bhx_model import given_weights
from bhx_model.errors import ConfigError, DataError
from bhx_prep.config.config import Config
from bhx_prep.config.experiments import Part
from bhx_prep.evaluation import draw, endpoint_split, guards, people, split_lists, split_seeds, splits
from bhx_prep.evaluation.endpoint_split import Cohort
from bhx_prep.evaluation.people import People
from bhx_prep.evaluation.phenotype_checks import subjects_of
from bhx_prep.ingest import participants
from bhx_prep.ingest.cell_values import listed
from bhx_prep.io import notes


def overlaps(study: Config) -> Iterator[str]:
    """A line for every experiment that is trained on subjects that an endpoint tests it on.

    Parameters
    ----------
    study : Config
    """
    known: dict[tuple[str, Part], People] = {}
    for name in study.experiments:
        scored: list[tuple[str, Part]] = [
            (endpoint, part)
            for endpoint in study.endpoints
            if _is_refused(study, name, endpoint)
            for part in study.experiments[name].scored_parts(study.endpoints[endpoint])
        ]
        if not scored:
            continue
        if study.experiments[name].weights is not None:
            yield from _of_card(study, name, scored)
            continue
        trained = _trained_on(study, name)
        for endpoint, part in scored:
            if not trained or not _may_overlap(study, endpoint, trained):
                continue
            if (endpoint, part) not in known:
                known[endpoint, part] = who_is_scored(study, endpoint, (part,))
            subjects = known[endpoint, part]
            if shared := people.shared(subjects, people.listed(trained)):
                person, kind = next(iter(shared.items()))
                yield (
                    f"experiments.{name}.cohorts: {len(shared)} of {len(subjects)} {guards.CALLED[part]} subjects of "
                    f"{endpoint} are in the pretraining, e.g. {person} ({people.KINDS[kind]}): set `exclude_test_of: "
                    f"{{{endpoint}: [0]}}`"
                )


def _of_card(study: Config, experiment: str, scored: list[tuple[str, Part]]) -> Iterator[str]:
    """As `overlaps`, for weights that were trained outside the study, by their card."""
    folder = study.experiments[experiment].weights
    assert folder is not None
    try:
        listed = given_weights.people(folder, list(given_weights.find(folder))[-1])
    except DataError as error:
        yield f"experiments.{experiment}.weights: {error}"
        return
    except (ConfigError, OSError):  # said where weights are looked for
        return
    card = guards.of_card(listed, own=False)
    for endpoint, part in scored:
        path = f"experiments.{experiment}.weights"
        if card is None:
            yield (
                f"{path}: the card of {folder.name} lists no people (as hashes), whether {endpoint} tests any is not known: "
                f"set endpoints.{endpoint}.pretraining_overlap: mark"
            )
            continue
        subjects = who_is_scored(study, endpoint, (part,))
        if shared := people.shared(subjects, card):
            person, kind = next(iter(shared.items()))
            yield (
                f"{path}: {len(shared)} of {len(subjects)} {guards.CALLED[part]} subjects of {endpoint} are in the "
                f"pretraining of {folder.name}, e.g. {person} ({people.KINDS[kind]})"
            )


def without_sites(study: Config) -> Iterator[str]:
    """A line for every endpoint that leaves sites out of which there are too few, so that nothing can be planned.

    Parameters
    ----------
    study : Config
    """
    for name, section in study.endpoints.items():
        if (
            section.splits.scheme == "leave-one-site-out"
            and study.cohorts[section.cohort].phenotypes.exists()
        ):
            try:
                split_seeds.site_folds(study, name)
            except DataError as error:
                yield f"endpoints.{name}.splits: {error}"


def impossible(study: Config, endpoints: Collection[str] | None = None) -> Iterator[str]:
    """A line for every endpoint that cannot be split even if all its subjects have usable scans.

    Parameters
    ----------
    study : Config
    endpoints : collection of str, optional
        Those that are looked at; all when None.
    """
    for name in study.endpoints if endpoints is None else endpoints:
        error = _fault(study, name)
        if error is not None and not isinstance(error, draw.PartWithoutClass):
            yield f"endpoints.{name}: {str(error).removeprefix(f'endpoint {name}: ')}"


def doubtful(study: Config) -> Iterator[str]:
    """A line for every endpoint whose splits families may prevent, or that tests one class, if all scans are usable.

    Parameters
    ----------
    study : Config
    """
    for name in study.endpoints:
        error = _fault(study, name)
        if isinstance(error, draw.PartWithoutClass):
            yield f"endpoints.{name}: {str(error).removeprefix(f'endpoint {name}: ')}"
        elif error is None and study.endpoints[name].classes and _is_known(study, name):
            yield from _of_one_class(study, name)


def _of_one_class(study: Config, name: str) -> Iterator[str]:
    """A line if splits that are given, by sites or a file, test subjects of one class."""
    section = study.endpoints[name]
    if section.splits.scheme == "random":
        return
    splits = list(_splits(study, name, None))
    tested = [{row["label"] for row in split["rows"] if row["split"] == "test"} for split in splits]
    alone = [i for i, labels in enumerate(tested) if len(labels) == 1]
    if alone:
        split, label = splits[alone[0]], min(tested[alone[0]])
        which = listed(split["sites"], 40) if "sites" in split else split["list"]
        of = notes.quote(section.classes[label].name, 24)
        yield (
            f"endpoints.{name}.splits: {len(alone)} of {len(splits)} test one class only, e.g. {notes.quote(which)} "
            f"{of}: their AUROC cannot be told"
        )


def _fault(study: Config, name: str) -> DataError | None:
    """Why an endpoint cannot be split as its subjects are now; None where nothing is known of them yet."""
    section = study.endpoints[name]
    if not _is_known(study, name):
        return None
    try:
        # random splits of so many subjects can all be made, or none, but for families
        for _ in _scored_rows(study, name, (0,) if section.splits.scheme == "random" else None):
            pass
    except DataError as error:
        return error
    return None


def _is_known(study: Config, name: str) -> bool:
    """Whether subjects and tables of an endpoint's cohorts exist."""
    there = [study.cohorts[cohort] for cohort in study.endpoints[name].cohorts]
    return all(subjects_of(cohort) is not None and cohort.phenotypes.exists() for cohort in there)


def absent_splits(study: Config) -> Iterator[str]:
    """A line for every configured split that an endpoint does not have.

    Parameters
    ----------
    study : Config
    """
    for name, section in study.endpoints.items():
        asking = {
            f"experiments.{experiment}.exclude_test_of": seeds
            for experiment, asked in study.experiments.items()
            if isinstance(seeds := asked.exclude_test_of.get(name), tuple)
        }
        if not asking and (section.seeds is None or section.splits.scheme == "random"):
            continue
        try:
            there = split_seeds.available(study, name)
        except (DataError, OSError):  # said where the file or the sites are looked at
            continue
        scored = min(section.seeds or there, there)
        for where, seeds in asking.items():
            if far := [seed for seed in seeds if seed >= scored]:
                yield f"{where}: {name} is split {scored} times, seeds 0 to {scored - 1}, none is {far[0]}"
        if section.seeds is not None and section.seeds > there:
            yield f"endpoints.{name}.seeds: {section.seeds} splits are asked for, there are {there}: lower it"


def _is_refused(study: Config, experiment: str, endpoint: str) -> bool:
    """Whether an experiment has rows of an endpoint whose test subjects it may be trained on, and may not."""
    section, asked = study.endpoints[endpoint], study.experiments[experiment]
    has_rows = bool(asked.scored_parts(section)) and section.pretraining_overlap == "refuse"
    return has_rows and endpoint not in asked.exclude_test_of


def _may_overlap(study: Config, endpoint: str, trained: People) -> bool:
    """Whether anybody of the cohorts that are tested is trained on: cheap, and mostly not so."""
    known = people.listed(trained)
    return any(people.shared(_everybody(study, cohort), known) for cohort in _tested_cohorts(study, endpoint))


def _tested_cohorts(study: Config, endpoint: str) -> tuple[str, ...]:
    section = study.endpoints[endpoint]
    return section.cohorts[1:] or section.cohorts


def _about(study: Config, name: str, labels: set[str]) -> people.CohortPeople:
    """What the configuration says of who the subjects of a cohort are."""
    cohort = study.cohorts[name]
    families: Mapping[str, str] = {}
    if cohort.family is not None and cohort.phenotypes.exists():
        try:
            table = participants.read(cohort.phenotypes, cohort.table, [cohort.family]).match(labels)
            families = participants.families(table, cohort.family)
        except DataError:  # a mistake of the table, which is said where tables are checked
            families = {}
    return people.CohortPeople(name, cohort.layout, str(cohort.root.resolve()), families)


def _labels(study: Config, name: str) -> set[str]:
    """Subjects of a cohort: by its folders, else by its table; empty while neither exists."""
    cohort = study.cohorts[name]
    if (labels := subjects_of(cohort)) is not None:
        return labels
    try:
        return (
            set(participants.read(cohort.phenotypes, cohort.table, []).rows)
            if cohort.phenotypes.exists()
            else set()
        )
    except DataError:
        return set()


def _everybody(study: Config, name: str) -> People:
    labels = _labels(study, name)
    about = _about(study, name, labels)
    return {f"{name}/{label}": people.keys(about, label) for label in labels}


def _trained_on(study: Config, experiment: str) -> People:
    """Subjects that an experiment would be trained on if all had usable scans."""
    section = study.experiments[experiment]
    known: People = {}
    families: dict[str, str] = {}
    for cohort in section.cohorts:
        labels = _labels(study, cohort)
        about = _about(study, cohort, labels)
        known |= {f"{cohort}/{label}": people.keys(about, label) for label in labels}
        families |= {f"{cohort}/{label}": family for label, family in about.families.items()}
    for endpoint, seeds in section.exclude_test_of.items():
        scored: tuple[Part, ...] = ("test", *section.scored_parts(study.endpoints[endpoint]))
        left_out = people.listed(
            who_is_scored(study, endpoint, scored, seeds=None if seeds == "all" else seeds)
        )
        for person in people.shared(known, left_out):
            del known[person]
    try:
        split = splits.split_pretraining(known, section.holdout, section.seed, families, share=section.share)
    except DataError:  # nobody is left: the training says so
        return {}
    return {person: known[person] for person in split["train"]}


def who_is_scored(
    study: Config, endpoint: str, parts: Collection[Part] = ("test",), *, seeds: tuple[int, ...] | None = None
) -> People:
    """Subjects of parts of the splits of an endpoint, as they would be if all had usable scans.

    Nobody where the splits cannot be made yet.

    Parameters
    ----------
    study : Config
    endpoint : str
    parts : collection of str
        Whose subjects: ``test``, and ``val`` for rows that are chosen on test subjects.
    seeds : tuple of int, optional
        Some of its splits; all when None.
    """
    section = study.endpoints[endpoint]
    known: People = {}
    for name in section.cohorts:
        known |= _everybody(study, name)
    try:
        rows = list(_scored_rows(study, endpoint, seeds, parts))
    except (DataError, OSError):
        return {}
    names = {f"{row.get('cohort', section.cohort)}/{row['subject']}" for row in rows}
    return {person: own for person, own in known.items() if person in names}


def _scored_rows(
    study: Config, endpoint: str, seeds: tuple[int, ...] | None, parts: Collection[Part] = ("test",)
) -> Iterator[dict[str, Any]]:
    for split in _splits(study, endpoint, seeds):
        yield from (row for row in split["rows"] if row["split"] in parts)


def _splits(study: Config, endpoint: str, seeds: tuple[int, ...] | None) -> Iterator[dict[str, Any]]:
    """Splits of an endpoint as they would be if all had usable scans."""
    section = study.endpoints[endpoint]
    cohorts = []
    for name in section.cohorts:
        cohort, labels = study.cohorts[name], _labels(study, name)
        table = participants.read(cohort.phenotypes, cohort.table)
        about = _about(study, name, labels)
        keys = {label: people.keys(about, label) for label in labels}
        cohorts.append(Cohort(name, table, cohort.family, {"bold": labels, "t1w": labels}, keys))
    file = section.splits.file
    by_site = section.splits.scheme == "leave-one-site-out"
    sites = split_seeds.site_folds(study, endpoint) if by_site else ()
    lists = None if file is None else split_lists.read(file, study.cohorts[section.cohort].table)
    for seed in split_seeds.seeds(study, endpoint) if seeds is None else seeds:
        yield endpoint_split.make(
            endpoint, section, seed, cohorts[0], others=cohorts[1:], sites=sites, lists=lists
        )
