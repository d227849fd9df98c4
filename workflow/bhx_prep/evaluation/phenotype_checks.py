"""Check endpoints and families against the tables of phenotypes and the subjects of the cohorts.

Read are the columns that are needed, once per table, and the names of the subjects' folders; no scan, and no index is
made. So a cohort of 50,000 is checked in seconds.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.config import Config
from bhx_prep.config.cross_checks import is_called_site
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.evaluation import label_leakage, split_lists
from bhx_prep.evaluation.endpoint_labels import counted, read_labels
from bhx_prep.ingest import participants
from bhx_prep.ingest.bids_files import subject_labels
from bhx_prep.ingest.cell_values import KnownValues, category, far_values, listed, number_of, numbers_of
from bhx_prep.io.notes import brief, quote, short

#: How to mend a value that is likely a code.
_NAME_CODES: Final = "if that means unknown, name it in the cohort's `missing`"


@dataclass
class Findings:
    """What is said about the tables, each a line with its dotted path.

    Attributes
    ----------
    mistakes : list of str
        What leaves an endpoint without labels, or a cohort without families.
    warnings : list of str
        What is likely not meant.
    notes : list of str
        What is assumed where it is read.
    """

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_tables(study: Config) -> Findings:
    """Compare endpoints and families with their tables.

    A table that does not exist is no mistake yet: it may be added later.

    Parameters
    ----------
    study : Config
    """
    found = Findings()
    values: dict[str, dict[str, Mapping[str, float]]] = {}
    for name, cohort in study.cohorts.items():
        endpoints = {key: one.coded_in(name) for key, one in study.endpoints.items() if name in one.cohorts}
        path = cohort.phenotypes
        if not (endpoints or cohort.family or cohort.columns):
            continue
        if not (path.exists() or path.is_symlink()):
            if cohort.root.is_dir():
                found.warnings.append(
                    f"cohorts.{name}.participants: no table {path.name} in {short(path.parent.name)} (yet), which "
                    f"{f'endpoint {min(endpoints)}' if endpoints else 'its `family` or `columns`'} needs"
                )
            continue
        own = {key for key, one in study.endpoints.items() if one.cohort == name}
        needed = [column for key, one in endpoints.items() for column in _columns(one, own=key in own)]
        needed += [*cohort.columns.values(), *([cohort.family] if cohort.family else [])]
        try:
            table = participants.read(path, cohort.table, list(dict.fromkeys(needed)))
            if sites := [title for title in table.header if is_called_site(title) and title not in needed]:
                table = participants.read(path, cohort.table, list(dict.fromkeys([*needed, *sites])))
        except DataError as error:
            found.mistakes.append(f"cohorts.{name}.participants: {error}")
            continue
        whole, table = table, _check_ids(found, name, cohort, table)
        if cohort.family:
            _check_family(found, name, cohort.family, table)
        if table.rows:
            _check_covariates(found, name, cohort, table)
            for key, endpoint in endpoints.items():
                if key in own:
                    _check_levels(found, key, endpoint, table)
                    _check_lists(found, key, endpoint, cohort, whole)
                where = f"endpoints.{key}" if key in own else f"endpoints.{key}.test_on.{name}"
                _check_endpoint(found, where, endpoint, table)
                labels = _labels(endpoint, table)
                if key in own:
                    _check_leakage(found, where, endpoint, cohort, table, labels)
                if endpoint.kind == "regression":
                    values.setdefault(key, {})[name] = labels
    for key, of in values.items():
        own_values = of.pop(study.endpoints[key].cohort, {})
        for name, others in of.items():
            if said := label_leakage.other_scale(own_values, others):
                found.warnings.append(f"endpoints.{key}.test_on.{name}: {said}")
    return found


def _labels(endpoint: EndpointSection, table: participants.Participants) -> Mapping[str, float]:
    """Labels of an endpoint; empty if its column cannot be read, which another check reports."""
    try:
        return read_labels(table.column(endpoint.column, endpoint.values), endpoint)[0]
    except DataError:
        return {}


def _check_leakage(
    found: Findings,
    where: str,
    endpoint: EndpointSection,
    cohort: CohortSection,
    table: participants.Participants,
    labels: Mapping[str, float],
) -> None:
    """Labels that are codes, or that follow from what is no image."""
    if codes := label_leakage.codes(endpoint, labels):
        found.warnings.append(f"{where}.kind: {codes}")
    if label_leakage.counts_subjects(endpoint, labels):
        text = f"{brief(endpoint.column)} is the number in the subjects' ids: name what is to be predicted"
        found.warnings.append(f"{where}.column: {text}")
    elif dates := label_leakage.dates(endpoint, labels):
        found.warnings.append(f"{where}.column: {dates}")
    for covariate in ("motion", "scan_year"):
        if cohort.columns.get(covariate) == endpoint.column:
            text = f"{brief(endpoint.column)} is the cohort's {covariate}: how a scan was made, no phenotype"
            found.warnings.append(f"{where}.column: {text}")
    columns = {
        **{title: covariate for covariate, title in cohort.columns.items()},
        **dict.fromkeys(filter(is_called_site, table.names), "site"),
    }
    for title, covariate in columns.items():
        if title == endpoint.column or title not in table.names:
            continue
        cells = table.column(title).known
        nearly = label_leakage.nearly_follows(endpoint, labels, cells) if covariate == "site" else ""
        if nearly:
            found.warnings.append(
                f"{where}.column: {brief(endpoint.column)} follows from {quote(title)} ({covariate}) {nearly}: compare "
                "rows with `site`, and look at scores within sites"
            )
        if label_leakage.follows(endpoint, labels, covariate, cells):
            text = f"{where}.column: {brief(endpoint.column)} follows from {quote(title)} ({covariate})"
            if covariate == "site":
                found.mistakes.append(
                    f"{text}: no score could be told from one of sites, name another column"
                )
            else:
                found.warnings.append(f"{text}: whatever tells that tells the label")


def _check_covariates(
    found: Findings, name: str, cohort: CohortSection, table: participants.Participants
) -> None:
    """Check that columns named as covariates exist in a cohort's table, and vary."""
    for covariate, title in cohort.columns.items():
        key = f"cohorts.{name}.columns.{covariate}"
        try:
            column = table.column(title)
        except DataError as error:
            found.mistakes.append(f"{key}: {error}")
            continue
        known = column.known
        if covariate in ("sex", "site"):
            if known:
                _check_spellings(found, key, title, {s: category(cell) for s, cell in known.items()}, table)
        elif covariate in ("age", "motion"):
            known, refused, _ = numbers_of(known, brief(title))
            _check_codes(found, key, title, list(known.values()))
            if refused:
                subject, reason = next(iter(refused.items()))
                found.warnings.append(
                    f"{key}: read as missing of {len(refused)} participants, e.g. {subject}: {reason}"
                )
        if not known:
            found.mistakes.append(f"{key}: {quote(title)} of {table.file} is unknown for everybody")


def _check_codes(found: Findings, key: str, title: str, numbers: Sequence[float]) -> None:
    """Ages or motion that are likely codes: far from all others, or negative."""
    if far := far_values(numbers):
        found.warnings.append(f"{key}: {brief(title)} is {counted(far)}, far from all others: {_NAME_CODES}")
    elif negative := [number for number in numbers if number < 0]:
        found.warnings.append(f"{key}: {len(negative)} are negative, e.g. {min(negative):g}: {_NAME_CODES}")


def _check_ids(
    found: Findings, name: str, cohort: CohortSection, table: participants.Participants
) -> participants.Participants:
    """Compare the ids with the subjects; returns the rows of subjects with data, all rows if no subjects are known."""
    key = f"cohorts.{name}.participants"
    subjects = subjects_of(cohort)
    table = table.match(subjects or ())
    if not table.rows:
        first, reason = next(iter(table.excluded.items()))
        found.mistakes.append(
            f"{key}: none of {len(table.excluded)} rows of {table.file} can be used, e.g. {_example(first, reason)}"
        )
        return table
    if table.excluded:
        first, reason = next(iter(table.excluded.items()))
        what = f"{len(table.excluded)} rows of {table.file} cannot be used"
        found.warnings.append(f"{key}: {what}, e.g. {_example(first, reason)}")
    if not subjects:
        return table
    found.notes += [f"cohorts.{name}: {text}" for text in table.notes()]
    both = table.rows.keys() & subjects
    if not both:
        ids = [quote(rows[0][0]) for rows in table.rows.values()]
        here = [f"sub-{s}" for s in sorted(subjects)]
        found.mistakes.append(
            f"{key}: no id of {table.file} is one of the {len(here)} subjects: {listed(ids[:3], 60)} there, "
            f"{listed(here[:3], 50)} here"
        )
        return table
    alone = sorted(subjects - both)
    if alone:
        unclear = [f"sub-{s} ({' or '.join(table.unclear[s][:2])})" for s in alone if s in table.unclear]
        which = f"{listed([f'sub-{s}' for s in alone[:3]], 60)}"
        hint = f"; spell alike {unclear[0]}" if unclear else ""
        found.warnings.append(
            f"{key}: {len(alone)} of {len(subjects)} subjects have no row in {table.file}, e.g. {which}{hint}"
        )
    return table.of(both)


def _example(first: str, reason: str) -> str:
    """A row that cannot be used and why, once where the reason names it, too."""
    said = f"{quote(first, 24)}: {reason}"
    return reason if first[:20] in reason or len(said) > 120 else said


def _check_family(found: Findings, name: str, column: str, table: participants.Participants) -> None:
    key = f"cohorts.{name}.family"
    try:
        related = participants.families(table, column)
    except DataError as error:
        found.mistakes.append(f"{key}: {error}")
        return
    sizes = Counter(related.values())
    if not sizes:
        found.mistakes.append(f"{key}: nobody has a family in column {quote(column)} of {table.file}")
        return
    largest, n = sizes.most_common(1)[0]
    if n > participants.LARGEST_FAMILY:
        found.warnings.append(
            f"{key}: family {quote(largest)} has {n} members: is it a code for unknown? name it in `missing`"
        )
    several, alone = sum(size > 1 for size in sizes.values()), len(table.rows.keys() - related.keys())
    found.notes.append(
        f"{key}: {len(sizes)} families, {several} of several members; {alone} participants have none"
    )


def _columns(endpoint: EndpointSection, *, own: bool) -> list[str]:
    """Columns that an endpoint needs of the table of its own cohort, or of one that it is tested on."""
    site = [endpoint.splits.site] if endpoint.splits.site else []
    return list(dict.fromkeys([endpoint.column, *([*endpoint.stratify, *site] if own else [])]))


def _check_lists(
    found: Findings,
    name: str,
    endpoint: EndpointSection,
    cohort: CohortSection,
    table: participants.Participants,
) -> None:
    """Compare a file of splits with the people of its cohort, with or without data."""
    file = endpoint.splits.file
    if file is None:
        return
    try:
        lists, columns = split_lists.read(file, cohort.table)
    except DataError as error:
        found.mistakes.append(f"endpoints.{name}.splits.file: {error}")
        return
    with_data = subjects_of(cohort) or set()
    table = table.match(with_data)
    everybody = {*table.rows, *table.excluded, *with_data}
    lists = lists.match(everybody)
    unknown = sorted({*lists.rows, *lists.excluded} - everybody)
    if unknown:
        found.mistakes.append(
            f"endpoints.{name}.splits.file: {lists.file} names {len(unknown)} people that {table.file} does not have, e.g. "
            f"{quote(unknown[0], 24)}"
        )
    found.notes.append(f"endpoints.{name}.splits: {len(columns)} splits in {lists.file}")
    seen: dict[frozenset[tuple[str, str]], str] = {}
    for column in columns:
        parts = frozenset(lists.column(column).known.items())
        if (first := seen.setdefault(parts, column)) != column:
            found.warnings.append(
                f"endpoints.{name}.splits.file: {quote(first)} and {quote(column)} of {lists.file} are the same split"
            )
    _check_seeds(found, name, endpoint, len(columns))


def _check_seeds(found: Findings, name: str, endpoint: EndpointSection, there: int) -> None:
    if endpoint.seeds is not None and endpoint.seeds > there:
        found.warnings.append(
            f"endpoints.{name}.seeds: {endpoint.seeds} are asked for, the splits are {there}: all of these are made"
        )


def _check_levels(
    found: Findings, name: str, endpoint: EndpointSection, table: participants.Participants
) -> None:
    for level in _columns(endpoint, own=True)[1:]:
        key = f"endpoints.{name}.{'stratify' if level in endpoint.stratify else 'splits.site'}"
        try:
            cells = table.column(level).known
        except DataError as error:
            found.mistakes.append(f"{key}: {error}")
            continue
        _check_spellings(found, key, level, cells, table)


def _check_spellings(
    found: Findings, key: str, title: str, cells: Mapping[str, str], table: participants.Participants
) -> None:
    """Levels of which there is one, or two that are spelt alike, or nearly as many as participants."""
    known = sorted(set(cells.values()))
    if len(known) <= 1:
        what = f"is {quote(known[0])} for everybody" if known else "is unknown for everybody"
        found.warnings.append(f"{key}: {quote(title)} of {table.file} {what}")
    for one, other in itertools.pairwise(sorted(known, key=_order)):
        if _nearly(one, other):
            text = (
                f"{quote(title)} has {quote(one)} and {quote(other)}, which are two levels: spell them alike"
            )
            found.warnings.append(f"{key}: {text}")
    if len(cells) >= label_leakage.FEWEST and len(known) > len(cells) / 2:
        text = f"{quote(title)} has {len(known)} levels of {len(cells)} participants: too few share one"
        found.warnings.append(f"{key}: {text}")


def _check_endpoint(
    found: Findings, where: str, endpoint: EndpointSection, table: participants.Participants
) -> None:
    key = f"{where}.column"
    try:
        column = table.column(endpoint.column, endpoint.values)
    except DataError as error:
        found.mistakes.append(f"{key}: {error}")
        return
    if endpoint.column == table.names[0]:
        found.mistakes.append(
            f"{key}: {quote(endpoint.column)} of {table.file} is the column of ids, no phenotype"
        )
        return
    labels, refused, _ = read_labels(column, endpoint)
    if not labels and (endpoint.kind == "regression" or not refused):
        subject, reason = next(iter({**column.unknown, **refused}.items()))
        found.mistakes.append(
            f"{key}: none of {len(table.rows)} participants has a value, e.g. {subject}: {reason}"
        )
        return
    found.notes += [f"{where}: {text}" for text in column.notes()]
    if column.differing:
        subject = min(column.differing)
        what = f"{len(column.differing)} participants are left out"
        found.warnings.append(f"{key}: {what}, e.g. {subject}: {column.unknown[subject]}")
    if endpoint.kind == "regression":
        _check_numbers(found, key, column, {s: float(label) for s, label in labels.items()}, refused)
    else:
        _check_classes(found, where, endpoint, column, table.path)
        if other := Counter(column.known[subject] for subject in refused):
            cells = listed([f"{quote(cell, 24)} ({n} x)" for cell, n in other.most_common()], 80)
            found.notes.append(f"{where}: {len(refused)} participants are of no class: {cells}")


def _check_numbers(
    found: Findings,
    key: str,
    column: participants.Column,
    numbers: Mapping[str, float],
    refused: Mapping[str, str],
) -> None:
    distinct = set(numbers.values())
    if len(distinct) == 1 and len(numbers) > 1:
        found.mistakes.append(
            f"{key}: {brief(column.name)} is {min(distinct):g} for all {len(numbers)} participants: nothing can be predicted"
        )
    if far := far_values(numbers.values()):
        found.warnings.append(
            f"{key}: {brief(column.name)} is {counted(far)}, far from all others: {_NAME_CODES}"
        )
    if refused:
        found.warnings.append(
            f"{key}: {len(refused)} values are no labels, e.g. {next(iter(refused.values()))}"
        )


def _check_classes(
    found: Findings, where: str, endpoint: EndpointSection, column: participants.Column, path: Path
) -> None:
    there = sorted(set(column.known.values()))
    values = KnownValues(endpoint.values)
    is_value = {cell: values.find(cell) for cell in there}
    absent = [one for one in endpoint.classes if not set(is_value.values()) & set(one.values)]
    for one in absent:
        near = [cell for cell in there if any(_nearly(cell, value) for value in one.values)]
        hint = f"did you mean {quote(near[0])}?" if near else f"there are: {listed(there, 60)}"
        what = " or ".join(map(quote, one.values[:3]))
        found.mistakes.append(
            f"{where}.classes: no participant is {what} in column {quote(endpoint.column)} of {short(path.name)};"
            f" {hint}"
        )
    if not absent:
        for value in endpoint.values:
            near = [cell for cell in there if is_value[cell] is None and _nearly(cell, value)]
            if near:
                n = sum(cell == near[0] for cell in column.known.values())
                found.warnings.append(
                    f"{where}.classes: {n} participants are {quote(near[0])}, which is not {quote(value)}: "
                    "add it to the class if it is meant"
                )
    if len(there) == 1:
        found.warnings.append(
            f"{where}.column: {brief(column.name)} is {quote(there[0])} for all {len(column.known)} participants"
        )


def _nearly(cell: str, value: str) -> bool:
    """Whether a cell differs from a class's value, or another cell, in its spelling only: 1 and -1 do not."""
    number, other = number_of(cell), number_of(value)
    if number is not None and other is not None:
        return number == other
    return _letters(cell) == _letters(value) != ""


def _order(cell: str) -> tuple[float, str]:
    number = number_of(cell)
    return (math.inf, _letters(cell)) if number is None else (number, "")


def _letters(cell: str) -> str:
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKD", cell)).lower()


def subjects_of(cohort: CohortSection) -> set[str] | None:
    """Labels of the subjects in a cohort's folder, from names of folders and files; None where they are not known."""
    labels: set[str] = set(subject_labels(cohort.root)[0])
    if not labels and cohort.input == "timeseries":
        labels = set(_named_in(cohort.root, cohort.series))
    if labels and cohort.subjects is not None:
        labels &= set(cohort.subjects)
    return labels or None


def _named_in(root: Path, series: str) -> Iterator[str]:
    """Labels in the names of the files or folders that `series` finds; none where it would have to be searched for."""
    above, subject, rest = series.partition("{subject}")
    if not subject or re.search(r"[*?\[]", above.rpartition("/")[0]):
        return
    start, before = above.rpartition("/")[::2]
    after = rest.partition("/")[0].partition("{subject}")[0]
    pattern = [re.escape(part).replace(r"\*", ".*").replace(r"\?", ".") for part in (before, after)]
    name = re.compile(f"{pattern[0]}([A-Za-z0-9]+?){pattern[1]}")
    folder = root / start
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (m[1].removeprefix("sub-") for entry in entries if (m := name.fullmatch(entry.name)))
