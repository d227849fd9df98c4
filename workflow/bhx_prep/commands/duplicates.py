"""``bhx index --duplicates``: list duplicate folders, subjects and series of a study. Nothing is excluded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from bhx_prep.config.cohorts import CohortSection
from bhx_prep.report.study_duplicates import same_folders, same_series, shared_subjects

#: Pairs of runs that are printed of two cohorts.
_MOST = 20


def lines(
    results: Path, cohorts: Mapping[str, CohortSection], tables: Mapping[str, pa.Table]
) -> Iterator[str]:
    """What is in a study twice, for people to read.

    Parameters
    ----------
    results : Path
        Folder of all results.
    cohorts : mapping
        Sections of the configuration.
    tables : mapping
        Indices of the cohorts that have one.
    """
    yield "duplicates:"
    folders = same_folders(cohorts)
    for one, other, folder in folders:
        yield f"  one folder under two names: {one} and {other} both read {folder}"
    shared = shared_subjects(tables)
    for one, other, both in shared:
        labels = ", ".join(f"sub-{label}" for label in both[:3]) + (", .." if len(both) > 3 else "")
        yield f"  subjects in two cohorts: {one} and {other} have {_count(len(both), 'label')} in common ({labels})"
    same = same_series(results, list(cohorts))
    for pair in same.pairs[:_MOST]:
        shifted = f", shifted by {abs(pair.lag)}" if pair.lag else ""
        what = "the same series" if pair.is_equal else "one scan, denoised in two ways"
        yield f"  {what}: {pair.first} = {pair.second} (r {pair.r:.4f}, {pair.n_frames} frames{shifted})"
    if len(same.pairs) > _MOST:
        yield f"  and {_count(len(same.pairs) - _MOST, 'further pair')} of runs"
    if not (folders or shared or same.pairs):
        yield "  none found"
    for reason in same.unreadable:
        yield f"  not compared: {reason}"
    if same.without_features:
        names = ", ".join(same.without_features)
        yield f"  not compared yet, since there are no features: {names} (`snakemake features`)"


def _count(n: int, thing: str) -> str:
    return f"1 {thing}" if n == 1 else f"{n:,} {thing}s"
