"""Write the report page: cohorts, exclusions and their reasons, quality, pretraining, evaluation and provenance.

`collect` reads the results, `cortex` and `figures` draw, and here numbers and pictures go into ``page.html.j2``. The
page is one file that needs no network and identifies no subject.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np

from bhx_model.evaluation.metrics import METRICS
from bhx_model.training.schedules import MOST_OF_START
from bhx_prep.config.config import Config
from bhx_prep.config.experiments import REFERENCE
from bhx_prep.config.paper_tables import ABLATIONS, PAPER_TABLES
from bhx_prep.io.script_json import script_json
from bhx_prep.report import (
    collect,
    demographics,
    example_scans,
    figures,
    inside,
    label_notes,
    made_with,
    scores,
    study_duplicates,
    viewer,
)
from bhx_prep.report.cortex import Cortex
from bhx_prep.report.pictures import Picture, map_of, signed_map
from bhx_prep.report.tables import ablations, caption, endpoint_sheet, study_sheet, study_table
from bhx_prep.report.tables.table import FLOORS, THIS_RUN, RowKey, Table

logger = logging.getLogger(__name__)

#: Harmonics that are drawn, as far as there are so many: from long to short wavelengths.
MODES = (2, 3, 5, 20, 100)
GRADIENTS = 3
#: Reasons of exclusion of a cohort that are listed; they differ in more than numbers.
MOST_REASONS = 100

#: Lowest mean coverage of a cohort's parcels from which on no map is drawn: all are fully covered.
FULL_COVERAGE = 0.999

#: Inputs in the order in which cohorts are listed.
INPUTS = {
    "bids": "raw BIDS",
    "fmriprep": "fMRIPrep derivatives",
    "timeseries": "parcellated time series and T1 volumes",
}


def render(config: Config, results: Path) -> str:
    """Make the page.

    Parameters
    ----------
    config : Config
        The configuration of the study.
    results : Path
        Folder of the results; what is missing there is marked as such.

    Raises
    ------
    DataError
        If a file is there and cannot be read.
    """
    cohorts = []
    for name in sorted(config.cohorts, key=lambda name: [*INPUTS].index(config.cohorts[name].input)):
        logger.info("cohort %s", name)
        cohorts.append(collect.summarise(config, results, name))
    logger.info("cortical surfaces")
    try:
        cortex = Cortex.load(results / "templates")
    except OSError:
        cortex = None
    atlas = collect.json_if_whole(results / "templates" / "atlas.json") or {}
    context = _context(config, results, cohorts, cortex, atlas) | _viewers(config, results, cohorts, cortex)
    return _environment().get_template("page.html.j2").render(context)


def _context(
    config: Config,
    results: Path,
    cohorts: Sequence[collect.CohortSummary],
    cortex: Cortex | None,
    atlas: Mapping[str, Any],
) -> dict[str, Any]:
    """What the template shows."""
    of_endpoints = scores.read(results, config)
    return {
        "config": config,
        "inputs": INPUTS,
        "stages": collect.STAGES,
        "most_reasons": MOST_REASONS,
        "fewest": demographics.FEWEST,
        "cohorts": cohorts,
        "duplicates": study_duplicates.find(config, results),
        "label_notes": label_notes.find(results, config.endpoints),
        "totals": _totals(config, cohorts, atlas),
        "synthetic": [c.name for c in cohorts if c.synthetic],
        "measured": [c.name for c in cohorts if not c.synthetic],
        "motion": _motion(config, cohorts),
        "quality": [_quality(c) for c in cohorts if c.quality],
        "carpets": _carpets(cohorts),
        "coverage": _coverage(config, cohorts, cortex),
        "fully_covered": [
            c.name for c in cohorts if c.coverage is not None and c.coverage.min() >= FULL_COVERAGE
        ],
        "connectivity": _connectivity(cohorts),
        "harmonics": _harmonics(results, cortex),
        "no_surface": _no_surface(config, atlas),
        "no_harmonics": config.features.harmonics == "none",
        "by_network": any(figures.by_network(c.names) for c in cohorts if c.connectivity is not None),
        "experiments": [
            {
                **_experiment(results, name, cortex),
                "controls": scores.controls(config, results, name),
                "given": None if section.weights is None else section.weights.name,
            }
            for name, section in config.experiments.items()
        ],
        "study_tables": _study_tables(config, of_endpoints),
        "inside": inside.find(config, results, cortex),
        "tables": [_table(table) for table in of_endpoints],
        "programs": made_with.programs(),
        "hashes": made_with.hashes(config, results, atlas),
        "config_json": made_with.public(config),
    }


def _viewers(
    config: Config, results: Path, cohorts: Sequence[collect.CohortSummary], cortex: Cortex | None
) -> dict[str, Any]:
    """What can be turned and sliced: example scans, maps as the template comes across them, and what shows them."""
    script = resources.files("bhx_prep.report") / "viewer.js"
    return {
        "examples": example_scans.find(config, results, cohorts),
        "maps": viewer.Maps(cortex),
        "niivue": viewer.NiiVue.load(),
        "viewer_script": markupsafe.Markup(script.read_text(encoding="utf-8")),
    }


def _environment() -> jinja2.Environment:
    """The template's filters; figures of one page have ids of their own."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bhx_prep.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = scores.number
    environment.filters["seconds"] = seconds
    environment.filters["plural"] = plural
    environment.filters["script_json"] = script_json
    numbers = itertools.count(1)
    environment.filters["with_own_ids"] = lambda svg: with_own_ids(svg, next(numbers))
    return environment


def plural(count: int, word: str, words: str | None = None) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def with_own_ids(svg: str, figure: int) -> str:
    """Return a drawing whose ids are unique on the page: two equal plots would share theirs."""
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>f{figure}-", svg)


def seconds(value: float | None) -> str:
    """Format a duration: ``45 s``, ``12 min``, ``3.5 h``."""
    if value is None:
        return "\u2013"
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def _totals(
    config: Config, cohorts: Sequence[collect.CohortSummary], atlas: Mapping[str, Any]
) -> list[tuple[str, str]]:
    found = [c.found for c in cohorts if c.found]
    included = [c.included for c in cohorts if c.included]
    return [
        (f"{len(cohorts)}", "cohort" if len(cohorts) == 1 else "cohorts"),
        (f"{sum(c.subjects for c in found):,}", "subjects found"),
        (f"{sum(c.subjects for c in included):,}", "subjects included"),
        (f"{sum(c.bold for c in included):,}", "BOLD runs included"),
        (f"{sum(c.t1w for c in included):,}", "T1 images included"),
        _parcels(config, atlas),
    ]


def _parcels(config: Config, atlas: Mapping[str, Any]) -> tuple[str, str]:
    n = len(atlas.get("names", []))
    if config.atlas.name:
        return (f"{n}" if n else "\u2013", f"ROIs of {config.atlas.name}")
    return (f"{n or config.atlas.parcels}", f"parcels ({config.atlas.networks} networks)")


def _no_surface(config: Config, atlas: Mapping[str, Any]) -> str:
    """Why no map of the cortex can be drawn, where it is the atlas; else empty."""
    if "atlas_fsLR.npz" in atlas.get("missing", {}):
        return f"No maps: {config.atlas.label} is not known on the surface fsLR-32k."
    return ""


# ---------------------------------------------------------------------------------------- quality


def _motion(config: Config, cohorts: Sequence[collect.CohortSummary]) -> list[Picture]:
    limit = config.features.max_mean_fd_mm
    known = {}
    for cohort in cohorts:
        values = collect.known(cohort.quality, "mean_fd_mm")
        if values:
            known[cohort.name] = np.array(values)
    if not known:
        return []
    pictures = [
        Picture(
            "Mean framewise displacement (FD) of every run. "
            f"Dashed: the limit of {limit:g} mm, above which runs are excluded.",
            svg=figures.motion(known, limit),
        )
    ]
    traces = [(c.name, c.traces) for c in cohorts if "highest" in c.traces]
    if traces:
        name, pair = max(traces, key=lambda of: float(np.nanmean(of[1]["highest"].fd_mm)))
        for which, run in (
            ("highest", "the highest-motion run"),
            ("median", "the run of median motion of the same cohort"),
        ):
            if which in pair:
                status = "included" if pair[which].included else "excluded"
                svg = figures.trace(pair[which].fd_mm, pair[which].tr_s, limit)
                pictures.append(Picture(f"Framewise displacement of {run} ({name}, {status}).", svg=svg))
    return pictures


def _quality(cohort: collect.CohortSummary) -> dict[str, Any]:
    """Medians of a cohort's BOLD runs."""
    runs = cohort.quality

    def median(values: Sequence[float]) -> float | None:
        return float(np.median(values)) if values else None

    displacement = collect.known(runs, "mean_fd_mm")
    timed = [row for row in runs if row.get("n_frames") and row.get("tr_s")]
    return {
        "name": cohort.name,
        "runs": len(runs),
        "excluded": sum(row["status"] != "ok" for row in runs),
        "seconds": median([row["n_frames"] * row["tr_s"] for row in timed]),
        "fd": median(displacement),
        "fd_max": max(displacement, default=None),
        "frames_kept": median(
            [100 * row["n_kept"] / row["n_frames"] for row in timed if row.get("n_kept") is not None]
        ),
        "coverage": median([100 * share for share in collect.known(runs, "mean_coverage")]),
        "tsnr": median(collect.known(runs, "tsnr")),
        "strategy": ", ".join(sorted({str(row["strategy"]) for row in runs if row.get("strategy")})),
    }


def _share(shown: Sequence[collect.CohortSummary]) -> int:
    """Pixels of the picture of each of some cohorts: all together have as many as four of the largest."""
    return min(figures.PIXELS, 4 * figures.PIXELS // max(len(shown), 1))


def _part(size: int, pixels: int) -> str:
    """What a caption says of a picture that is not drawn whole."""
    return " Every n-th row and column is drawn." if size > pixels else ""


def _carpets(cohorts: Sequence[collect.CohortSummary]) -> list[Picture]:
    pictures, shown = [], [c for c in cohorts if c.example is not None]
    pixels = _share(shown)
    for cohort in shown:
        example = cohort.example
        assert example is not None
        with_fd = ", framewise displacement above" if example.fd_mm is not None else ""
        pictures.append(
            Picture(
                f"A run of {cohort.name}, TR {example.tr_s:g} s{with_fd}."
                + _part(example.series.size, pixels),
                svg=figures.carpet(example.series, example.names, example.tr_s, example.fd_mm, pixels),
            )
        )
    return pictures


def _coverage(
    config: Config, cohorts: Sequence[collect.CohortSummary], cortex: Cortex | None
) -> list[Picture]:
    pictures = []
    for cohort in cohorts:
        if cohort.coverage is None or cohort.coverage.min() >= FULL_COVERAGE:
            continue
        low = float(cohort.coverage.min())
        below = int((cohort.coverage < config.features.min_coverage).sum())
        caption = (
            f"{cohort.name}: mean coverage of each parcel over {plural(cohort.n_runs_averaged, 'run')}; "
            f"lowest {100 * low:.0f} %, {plural(below, 'parcel')} below {100 * config.features.min_coverage:.0f} %."
        )
        if cortex is not None and cortex.n_parcels == len(cohort.coverage):
            pictures.append(map_of(cortex, caption, cohort.coverage, "viridis", 0.0, 1.0, "0 %", "100 %"))
    return pictures


def _connectivity(cohorts: Sequence[collect.CohortSummary]) -> list[Picture]:
    shown = [c for c in cohorts if c.connectivity is not None and np.isfinite(c.connectivity).any()]
    pixels = _share(shown)
    return [
        Picture(
            f"{c.name}: mean correlation (averaged as Fisher z) of {plural(c.n_runs_averaged, 'run')}."
            + _part(len(c.names) ** 2, pixels),
            svg=figures.connectivity(c.connectivity, c.names, pixels),
        )
        for c in shown
        if c.connectivity is not None
    ]


# ----------------------------------------------------------------- cortical maps and training stages


def _harmonics(results: Path, cortex: Cortex | None) -> dict[str, Any] | None:
    read = collect.per_roi(results / "templates" / "harmonics.parquet", "mode_")
    if read is None:
        return None
    _, modes, metadata = read
    eigenvalues = metadata.get("eigenvalues")
    if isinstance(eigenvalues, dict):
        eigenvalues = [eigenvalues["left"], eigenvalues["right"]]
    pictures = []
    for mode in MODES:
        if mode <= modes.shape[1] and cortex is not None and cortex.n_parcels == len(modes):
            caption = f"Harmonic {mode}"
            if eigenvalues:
                lengths = [2 * np.pi / np.sqrt(side[mode - 1]) for side in eigenvalues]
                caption += f": wavelength {lengths[0]:.0f} mm left, {lengths[1]:.0f} mm right."
            pictures.append(signed_map(cortex, caption, modes[:, mode - 1]))
    if eigenvalues:
        svg = figures.spectrum(np.array(eigenvalues, dtype=float))
        pictures.append(
            Picture(
                "Wavelengths of all harmonics, from a whole hemisphere down to about one parcel.", svg=svg
            )
        )
    return {"n": modes.shape[1], "pictures": pictures, "drawn": cortex is not None}


def _experiment(results: Path, name: str, cortex: Cortex | None) -> dict[str, Any]:
    folder = results / "experiments" / name
    logger.info("experiment %s", name)
    split = collect.json_if_whole(folder / "subjects/pretrain.json") or {}
    gradients, normaliser = [], []
    read = collect.per_roi(folder / "subjects/gradients.parquet", "gradient_")
    if read is not None and cortex is not None and cortex.n_parcels == len(read[1]):
        lambdas = read[2].get("lambdas") or []
        for g in range(min(GRADIENTS, read[1].shape[1])):
            caption = f"Gradient {g + 1}" + (f": eigenvalue {lambdas[g]:.3f}." if g < len(lambdas) else ".")
            gradients.append(signed_map(cortex, caption, read[1][:, g]))
    centre = collect.per_roi(folder / "subjects/normaliser.parquet", "median")
    scale = collect.per_roi(folder / "subjects/normaliser.parquet", "iqr")
    if centre is not None and scale is not None:
        svg = figures.normaliser(centre[1][:, 0], scale[1][:, 0], centre[0])
        order = ", by network" if figures.by_network(centre[0]) else ""
        caption = f"Median and interquartile range of every parcel over the training subjects{order}."
        normaliser.append(Picture(caption, svg=svg))
    stages = []
    for stage in ("structure", "function", "fusion"):
        summary = collect.stage_summary(folder / stage)
        if summary is not None and summary.losses:
            stages.append(_stage(summary))
    return {
        "name": name,
        "split": {part: len(split[part]) for part in ("train", "holdout") if part in split},
        "gradients": gradients,
        "normaliser": normaliser,
        "stages": stages,
    }


def _stage(stage: collect.StageSummary) -> dict[str, Any]:
    loss = next(iter(stage.losses.values()))
    holdout = stage.losses.get("holdout_loss")
    names = {"loss": "training", "holdout_loss": "held-out"}
    if stage.baseline is None:  # without held-out subjects: the baseline on the training batches
        names["mean_predictor_loss"] = "mean predictor"
    drawn = {text: stage.losses[name] for name, text in names.items() if name in stage.losses}
    dashed = (
        " Dashed: mean-predictor baseline on the held-out subjects." if stage.baseline is not None else ""
    )
    svg = figures.curves(stage.stage, drawn, stage.baseline)
    return {
        "run": stage,
        "picture": Picture(f"Loss of the stage {stage.stage} by step.{dashed}", svg=svg),
        "steps": int(loss[0][-1]),
        "first": float(loss[1][0]),
        "last": float(loss[1][-1]),
        "holdout": float(holdout[1][-1]) if holdout else None,
        "kept": stage.share_of_start if (stage.share_of_start or 0) > MOST_OF_START else None,
    }


# ----------------------------------------------------------------------------- tables, provenance


def _study_tables(config: Config, tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Tables 1 and 2 of the paper and the ablations, of rows chosen on validation and of those chosen on test."""
    sheets = []
    for of, chosen_on in (("", "val"), (REFERENCE, "test")):
        mine = [table for table in tables if table.chosen_on == chosen_on]
        for name, benchmarks in PAPER_TABLES.items():
            if lines := study_table.study_lines(benchmarks, mine):
                sheets.append(study_sheet.study_sheet(f"{name}{of}", lines))
        experiments = {name: section.model_dump(mode="json") for name, section in config.experiments.items()}
        ablation = ablations.ablation_sheet(f"{ABLATIONS}{of}", mine, experiments)
        sheets += [ablation] if ablation.groups else []
    return [
        {"sheet": sheet, "lead": [(sentence, caption.is_warning(sentence)) for sentence in sheet.lead]}
        for sheet in sheets
    ]


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.endpoint + (", chosen on test subjects" if table.chosen_on == "test" else ""),
        "lead": [(sentence, caption.is_warning(sentence)) for sentence in caption.lead(table)],
        "caption": caption.caption(table),
        "metrics": [METRICS[m].heading for m in table.metrics],
        "groups": [
            (heading, [_row(table, row) for row in rows])
            for heading, rows in endpoint_sheet.groups(table).items()
        ],
        "pictures": _estimates(table),
    }


def _estimates(table: Table) -> list[Picture]:
    """Point and interval of every row of this run, floors as bands, for the metrics that are drawn."""
    drawn = []
    for metric in scores.DRAWN[table.kind]:
        rows, floors = [], []
        for row in table.rows(THIS_RUN):
            entry = table.entry(row, metric)
            if entry is not None and entry.mean is not None:
                of = (table.short(row), entry.mean, entry.ci_low, entry.ci_high)
                (floors if row.method in FLOORS else rows).append(of)
        if rows:
            heading = METRICS[metric].heading
            svg = figures.estimates(heading, rows, floors)
            said = f"{heading}: mean and 95 % confidence interval; bands: the same of what needs no brain, or no labels."
            drawn.append(Picture(said, svg=svg))
    return drawn


def _row(table: Table, row: RowKey) -> dict[str, Any]:
    """A row; a score is its mean, its spread and its interval, each as text, or why there is none."""
    entries = [table.entry(row, metric) for metric in table.metrics]
    some = next(e for e in entries if e is not None)
    return {
        "method": table.label(row),
        "source": endpoint_sheet.source(row, some.source),
        "trust": some.trust,
        "scores": [scores.cell(table, e) for e in entries],
        "seeds": max((e.n_seeds or 0 for e in entries if e), default=0),
        "n_test": some.n_test,
    }
