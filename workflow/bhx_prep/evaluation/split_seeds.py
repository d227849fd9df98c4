"""The number of splits of an endpoint, and those on which a method is scored, from configuration and tables alone."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from bhx_model.errors import DataError
from bhx_model.evaluation.methods import METHODS
from bhx_prep.config.config import Config
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.splits import FINETUNE_SEEDS
from bhx_prep.evaluation import split_lists
from bhx_prep.evaluation.endpoint_labels import read_labels
from bhx_prep.evaluation.phenotype_checks import subjects_of
from bhx_prep.ingest import participants

logger = logging.getLogger(__name__)

#: Sites with fewer labelled subjects are tested together: of less, quality control may leave nobody.
SMALL_SITE: Final = 10
#: Small sites that have fewer together are tested with the smallest of the others.
SMALL_REST: Final = 5


def seeds(config: Config, name: str, method: str | None = None) -> list[int]:
    """Seeds of the splits of an endpoint, or of those that a method is scored on.

    Parameters
    ----------
    config : Config
    name : str
        Of the endpoint.
    method : str, optional
        Of `METHODS`; one that is trained in epochs is scored on the first few splits.

    Raises
    ------
    DataError
        If the table of sites or the file of splits cannot be read.
    """
    section = config.endpoints[name]
    scheme = section.splits.scheme
    there = available(config, name)
    n = min(section.seeds or there, there)
    if method is not None and method in METHODS and METHODS[method].has_epochs:
        few = n if scheme == "leave-one-site-out" else FINETUNE_SEEDS
        n = min(n, section.splits.finetune_seeds or few)
    return list(range(n))


def available(config: Config, name: str) -> int:
    """Splits that an endpoint has: sites, columns of a file, or the configured number of random ones.

    Raises
    ------
    DataError
        If the table of sites or the file of splits cannot be read.
    """
    section = config.endpoints[name]
    if section.splits.scheme == "leave-one-site-out":
        return len(site_folds(config, name))
    if section.splits.scheme == "file":
        return _n_in_file(config, name)
    return section.seeds or section.splits.rules.seeds


def experiment_seeds(config: Config, experiment: str, name: str, method: str) -> list[int]:
    """Seeds on which a method of an experiment is scored: where it leaves out test subjects of some, these alone."""
    known = seeds(config, name, method)
    left_out = config.experiments[experiment].exclude_test_of.get(name, "all")
    return known if left_out == "all" else [seed for seed in known if seed in left_out]


def _n_in_file(config: Config, name: str) -> int:
    section = config.endpoints[name]
    assert section.splits.file is not None
    return len(split_lists.read(section.splits.file, config.cohorts[section.cohort].table)[1])


def site_folds(config: Config, name: str) -> list[list[str]]:
    """Sites that are tested one after the other; small ones together.

    Sites with fewer than `SMALL_SITE` subjects with a label are one fold, or go with the smallest of the others if they
    are fewer than `SMALL_REST` in all.

    Raises
    ------
    DataError
        If the table cannot be read, or names fewer than two sites.
    """
    section = config.endpoints[name]
    cohort = config.cohorts[section.cohort]
    table = cohort.phenotypes.absolute()
    written_ns = table.stat().st_mtime_ns if table.exists() else 0
    sections = cohort.model_dump_json(), section.model_dump_json()
    return [list(fold) for fold in _folds(*sections, str(table), written_ns)]


@lru_cache(maxsize=32)
def _folds(cohort_json: str, endpoint_json: str, file: str, written_ns: int) -> tuple[tuple[str, ...], ...]:
    """Folds of sections as JSON, and the current table that they name."""
    from bhx_prep.config.cohorts import CohortSection

    cohort = CohortSection.model_validate_json(cohort_json)
    section = EndpointSection.model_validate_json(endpoint_json)
    site = section.splits.site or section.stratify[0]
    table = participants.read(cohort.phenotypes, cohort.table, [section.column, site])
    subjects = subjects_of(cohort)
    table = table.match(subjects or ())
    labels, _, _ = read_labels(table.column(section.column, section.values), section)
    known = table.column(site).known
    count = Counter(known[s] for s in labels if s in known and (subjects is None or s in subjects))
    return _joined(count, name=f"{table.file}, column {site}")


def _joined(count: Mapping[str, int], name: str) -> tuple[tuple[str, ...], ...]:
    large: list[tuple[str, ...]] = [(site,) for site, n in sorted(count.items()) if n >= SMALL_SITE]
    small = tuple(site for site, n in sorted(count.items()) if n < SMALL_SITE)
    rest = sum(count[site] for site in small)
    if small and len(large) > 1 and rest < SMALL_REST:
        least = min(range(len(large)), key=lambda i: count[large[i][0]])
        large[least] = (*large[least], *small)
        small = ()
    folds = (*large, *([small] if rest > 1 and small else []))
    if len(folds) < 2:
        msg = (
            f"{name}: {len(folds)} site of {SMALL_SITE} or more labelled subjects, leave-one-site-out needs two: use "
            "`scheme: random`"
        )
        raise DataError(msg)
    return folds
