"""Methods text on features: parcel series, denoising, T1 volumes, and how many scans remained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bhx_model.errors import ConfigError
from bhx_prep.boilerplate.wording import count, several, share
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.features import FeaturesSection
from bhx_prep.features.confounds import Strategy, load_strategy
from bhx_prep.report.collect import read_table

#: References of our own strategies; those of others are named as their files have them.
STRATEGY_REFERENCES: Final = {
    "paper": ("brainharmony", "lindquist2019"),
    "24p+gsr": ("friston1996", "ciric2017"),
    "acompcor": ("compcor", "muschelli2014"),
    "none": (),
}
_COLUMNS: Final = ["modality", "status", "strategy", "mean_fd_mm", "decision", "overruled"]


def paragraph(cohort: CohortSection, folder: Path, features: FeaturesSection, atlas: AtlasSection) -> str:
    """What was done to a cohort's scans; empty where its features are not made.

    Parameters
    ----------
    cohort : CohortSection
    folder : Path
        The cohort's, in the results.
    features : FeaturesSection
    atlas : AtlasSection
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("features/batch-*/qc.parquet")):
        rows += read_table(path, columns=_COLUMNS).to_pylist()
    runs, heads = ([row for row in rows if row["modality"] == kind] for kind in ("bold", "t1w"))
    return " ".join([*_runs(cohort, runs, features, atlas), *_heads(heads, features)])


def _runs(
    cohort: CohortSection, runs: Sequence[dict[str, Any]], features: FeaturesSection, atlas: AtlasSection
) -> Iterator[str]:
    if not runs:
        return
    kept = [row for row in runs if row["status"] == "ok"]
    if cohort.input == "timeseries":
        yield f"The tables held series of {atlas_name(atlas)}."
    else:
        yield f"BOLD runs were averaged within the parcels of {atlas_name(atlas)}."
    for name, n in sorted(Counter(row["strategy"] for row in kept if row["strategy"]).items()):
        of = "" if n == len(kept) else f" This is about {share(n, len(kept), 'run')}."
        if name == "as given":
            yield f"The series were used as given, without denoising.{of}"
        else:
            yield _denoising(name, cohort.strategy or features.strategy) + of
    limits = [f"less than {features.min_seconds:g} s left"]
    limits.append(
        f"signal in less than {features.min_rois:.0%} of the parcels (each counts from {features.min_coverage:.0%} "
        "of its voxels)"
    )
    if any(row["mean_fd_mm"] is not None for row in runs):
        limits.insert(
            0, f"a mean framewise displacement above {features.max_mean_fd_mm:g} mm [@power_fd_dvars]"
        )
    yield f"Runs with {several(limits, 'or')} were excluded; {share(len(kept), len(runs), 'run')} remained."
    yield from _decided(runs, "run")


def _denoising(name: str, asked: str) -> str:
    """What a strategy did, in its own words; by its name alone where its file is gone or has become another one."""
    for candidate in (asked, name):
        try:
            strategy = load_strategy(candidate)
        except ConfigError:
            continue
        if strategy.name == name:
            return f"{strategy.prose.strip().rstrip('.')}{_cited(strategy)}."
    return f"They were denoised by the strategy `{name}`."


def _cited(strategy: Strategy) -> str:
    keys = STRATEGY_REFERENCES.get(strategy.name)
    if keys is None:
        return f" ({'; '.join(strategy.citation)})" if strategy.citation else ""
    return f" [{'; '.join(f'@{key}' for key in keys)}]" if keys else ""


def _heads(heads: Sequence[dict[str, Any]], features: FeaturesSection) -> Iterator[str]:
    if heads:
        kept = sum(row["status"] == "ok" for row in heads)
        shape = " x ".join(map(str, features.t1w_shape))
        yield (
            f"T1-weighted images in MNI space were masked and resampled to a grid of {shape} voxels of "
            f"{features.t1w_resolution_mm:g} mm; {share(kept, len(heads), 'image')} remained."
        )
        yield from _decided(heads, "image")


def _decided(rows: Sequence[dict[str, Any]], one: str) -> Iterator[str]:
    """How many scans people decided on; nothing where they decided on none."""
    excluded = sum(row["decision"] == "exclude" for row in rows)
    kept = sum(row["status"] == "ok" and bool(row["overruled"]) for row in rows)
    said = [f"excluded {count(excluded, one)}"] if excluded else []
    said += [f"kept {count(kept, one)} that missed a limit"] if kept else []
    if said:
        yield f"Of these, people who looked at them {several(said)}."


def atlas_name(atlas: AtlasSection) -> str:
    """The parcellation, with its references."""
    if atlas.name is not None:
        return f"the atlas {atlas.name}"
    order = f"in the order of {atlas.networks} networks"
    cortex = f"Schaefer's parcellation of {atlas.parcels} cortical regions {order} [@schaefer2018]"
    if atlas.subcortex is None:
        return cortex
    return f"Tian's subcortical atlas (scale {atlas.subcortex}) [@tian2020] and {cortex}"


def n_scans(folder: Path) -> str:
    """Subjects and scans of a cohort, by its index; empty where there is none."""
    path = folder / "index.parquet"
    if not path.is_file():
        return ""
    rows = read_table(path, columns=["subject", "modality"]).to_pylist()
    kinds = Counter(row["modality"] for row in rows)
    subjects = len({row["subject"] for row in rows})
    named = (("bold", "BOLD run"), ("t1w", "T1-weighted image"))
    scans = several(count(kinds[kind], name) for kind, name in named if kinds[kind])
    return f"{count(subjects, 'subject')} with {scans}." if scans else ""
