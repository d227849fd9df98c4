"""Iterate over the BOLD series of shards without torch, for gradients, normaliser and baselines.

Every file is checked against the hash in ``index.json`` before its bytes are used, once per shard and process.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bhx_model import contract
from bhx_model.data import timeseries
from bhx_model.errors import DataError
from bhx_model.file_hash import file_sha256


class Run(NamedTuple):
    """One BOLD run of a shard."""

    key: str
    cohort: str
    subject: str
    tr_s: float
    series: np.ndarray  # (R ROIs, T frames) float32, rows of NaN are ROIs without coverage


class PackedCohort(NamedTuple):
    """The shards of one cohort."""

    folder: Path
    index: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name in keys and tables."""
        return self.index["cohort"]


def read_index(path: Path) -> PackedCohort:
    """Read and check an ``index.json``.

    Raises
    ------
    DataError
        If it is missing, no JSON or not of this version.
    """
    try:
        index = json.loads(path.read_bytes())
    except OSError as error:
        msg = f"cannot read the shard index {path}: {error.strerror}; make it with `snakemake shards`"
        raise DataError(msg) from error
    except ValueError as error:
        msg = f"{path} is not JSON ({error}): remove it and make the shards of this cohort again"
        raise DataError(msg) from error
    contract.check_index(index)
    return PackedCohort(path.parent, index)


def read_cohorts(paths: Iterable[Path]) -> list[PackedCohort]:
    """Read several indices, sorted by cohort name so that the order of arguments changes no result.

    Raises
    ------
    DataError
        If a cohort is named twice or two of them differ in atlas, ROI names or ROI order.
    """
    cohorts = sorted((read_index(path) for path in paths), key=lambda c: c.name)
    if not cohorts:
        raise DataError("no shard index given: name at least one index.json")
    first = cohorts[0]
    for before, after in itertools.pairwise(cohorts):
        if before.name == after.name:
            msg = f"cohort {after.name} is given twice ({before.folder} and {after.folder}): name it once"
            raise DataError(msg)
        if after.index["roi_sha256"] != first.index["roi_sha256"]:
            msg = (
                f"cohorts {first.name} ({first.index['atlas']}) and {after.name} ({after.index['atlas']}) differ in "
                "their ROIs or the order of them: rebuild the shards of both with one atlas"
            )
            raise DataError(msg)
    return cohorts


def shard_list(cohort: PackedCohort, shard: dict[str, Any]) -> dict[str, Any]:
    """What is inside one shard, after a check of its list's hash: `contract.LIST_COLUMNS` as lists.

    Parameters
    ----------
    cohort : PackedCohort
    shard : dict
        An entry of ``cohort.index["shards"][modality]``.
    """
    path = cohort.folder / shard["list"]
    _check_bytes(path, shard["list_sha256"])
    return json.loads(path.read_bytes())


def subjects(cohort: PackedCohort, modality: str) -> set[str]:
    """Labels of the subjects that have at least one sample of a modality."""
    return {s for shard in cohort.index["shards"][modality] for s in shard_list(cohort, shard)["subject"]}


def contents(cohort: PackedCohort, modality: str) -> dict[str, set[str]]:
    """Hashes of the scans of every subject that has a sample of a modality, see `contract.LIST_COLUMNS`.

    Raises
    ------
    DataError
        If an earlier version packed the shards, without hashes.
    """
    found: dict[str, set[str]] = {}
    for shard in cohort.index["shards"][modality]:
        listed = shard_list(cohort, shard)
        if None in listed.get("content_sha256", [None]):
            msg = f"{cohort.folder / shard['list']} has no hashes of its scans, an earlier version wrote it: pack it again"
            raise DataError(msg)
        for subject, content in zip(listed["subject"], listed["content_sha256"], strict=True):
            found.setdefault(subject, set()).add(content)
    return found


def iter_series(cohorts: Iterable[PackedCohort], chosen: Collection[str] | None = None) -> Iterator[Run]:
    """Yield the BOLD runs of `cohorts` in the order of the shards.

    Parameters
    ----------
    cohorts : Iterable[PackedCohort]
        From `read_cohorts`.
    chosen : Collection[str], optional
        Only these, as ``cohort/subject``; all when None. A shard without any of them is not opened.

    Raises
    ------
    DataError
        If a file is missing or its bytes are not those that the index hashes.
    """
    for cohort in cohorts:
        for shard in cohort.index["shards"]["bold"]:
            listed = shard_list(cohort, shard)
            rows = zip(*(listed[c] for c in ("key", "subject", "tr_s", "offset", "size")), strict=True)
            wanted = [row for row in rows if chosen is None or f"{cohort.name}/{row[1]}" in chosen]
            if not wanted:
                continue
            path = cohort.folder / shard["file"]
            _check_bytes(path, shard["sha256"])
            with path.open("rb") as tar:
                for key, subject, tr_s, offset, size in wanted:
                    tar.seek(offset)
                    yield Run(key, cohort.name, subject, tr_s, timeseries.decode(tar.read(size)))


def _check_bytes(path: Path, sha256: str) -> None:
    try:
        stat = path.stat()
    except OSError as error:
        msg = f"shard file {path} is missing ({error.strerror}): pack this batch again"
        raise DataError(msg) from error
    _check_once(os.fspath(path), stat.st_size, stat.st_mtime_ns, sha256)


@cache
def _check_once(path: str, size: int, mtime_ns: int, sha256: str) -> None:
    # size and time are part of the key: a file that was replaced is hashed again
    if file_sha256(Path(path)) != sha256:
        msg = f"{path} ({size} bytes) is not the file that its index.json hashes: pack this batch again"
        raise DataError(msg)
