"""Provenance of a table's row as lines of text, from the table's files and those of its runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bhx_model.evaluation.metrics import METRICS
from bhx_model.file_hash import file_sha256
from bhx_prep.config.config import Config
from bhx_prep.ingest.cell_values import listed
from bhx_prep.report import published
from bhx_prep.report.collect import json_if_whole
from bhx_prep.report.table_addresses import Found
from bhx_prep.report.tables.endpoint_sheet import cell
from bhx_prep.report.tables.table import THIS_RUN, RowKey, Table

_WIDTH = 14


def explain(found: Found, study: Config, config_file: Path) -> list[str]:
    """List where a row comes from.

    Parameters
    ----------
    found : Found
    study : Config
    config_file : Path
        Where that was read from.
    """
    lines = [found.address]
    lines += [_line(*pair) for pair in _elsewhere(found)]
    if found.row:
        lines += [_line(*pair) for pair in _this_run(found, study, config_file)]
    elif not found.elsewhere:
        lines.append(_line("scores", "this run has no such row, and no number was recovered"))
    return lines


def _line(name: str, text: str) -> str:
    return f"  {name:<{_WIDTH}} {text}"


def _elsewhere(found: Found) -> Iterator[tuple[str, str]]:
    table, sources = found.table, published.sources()
    for entry in table.entries:
        if entry.origin not in ("published", "independent"):
            continue
        name = entry.method if entry.origin == "published" else f"{entry.method} [{entry.source}]"
        if name not in found.elsewhere:
            continue
        what = "paper" if entry.origin == "published" else "others"
        value = entry.printed or entry.note
        yield what, f"{entry.method}: {METRICS[entry.metric].heading} {value} [{entry.source or 'no source'}]"
    for entry in {
        e.source: e for e in table.entries if _name_of(e.origin, e.method, e.source) in found.elsewhere
    }.values():
        for tag, source in sources.items():
            if tag in entry.source:
                yield "source", f"[{tag}] {source.text}. Trust: {source.trust}"


def _name_of(origin: str, method: str, source: str) -> str:
    return method if origin == "published" else f"{method} [{source}]"


def _this_run(found: Found, study: Config, config_file: Path) -> Iterator[tuple[str, str]]:
    made_of, row = found.made_of, found.made_of["rows"][found.row]
    runs, results = row["runs"], study.results
    of = f", of experiment {row['experiment']}" if row["experiment"] else ""
    yield "row", f"{row['label']}{of} ({found.row} of {results / 'tables' / made_of['table']}.md)"
    yield from _scores(found.table, RowKey(THIS_RUN, row["experiment"], row["method"]))
    if made_of["synthetic"]:
        yield "data", "SYNTHETIC: the subjects are simulated"
    yield "people", f"{made_of['who']}; SHA-256 of their labels {made_of['people_sha256']}"
    yield "splits", f"{made_of['splits']}; this row: seeds {', '.join(str(run['seed']) for run in runs)}"
    parts = {"train": "train", "val": "val", "test": "test"}
    if row["chosen_on"] == "test":  # scores hold what they were scored on as test
        parts |= {"val": "test", "test": "val, who are scored"}
    for run in runs:
        n, split = run["n"], results / "endpoints" / made_of["endpoint"] / f"seed-{run['seed']}.json"
        counts = ", ".join(f"{n[part]} {called}" for part, called in parts.items())
        yield (
            f"seed {run['seed']}",
            f"{counts}{_tested(split)}; {split}: {_state(split, run['split_sha256'])}",
        )
    yield "chosen on", "test subjects" if row["chosen_on"] == "test" else "validation subjects"
    for run in runs:
        metrics = results / run["metrics"]
        yield "run", f"{metrics}: {_state(metrics, run['metrics_sha256'])}"
        predictions = metrics.with_name("predictions.parquet")
        yield "", f"{predictions}: {_state(predictions, run['predictions_sha256'])}"
    yield from _weights(row, results)
    yield from _made_with(row["made_with"])
    yield from _config(made_of, study)
    yield "make again", _command(made_of, runs, results, config_file)


def _tested(split: Path) -> str:
    """The sites that a split tests, or what it is called in the file of splits."""
    about = json_if_whole(split)
    if not isinstance(about, dict):
        return ""
    if "list" in about:
        return f", split {about['list']!r} of the file"
    return f", tested {listed(about['sites'], 60)}" if "sites" in about else ""


def _scores(table: Table, row: RowKey) -> Iterator[tuple[str, str]]:
    for metric in table.metrics:
        entry = table.entry(row, metric)
        if entry is not None:
            yield "score", f"{METRICS[metric].heading} {cell(table, entry)}"


def _state(file: Path, recorded: str | None) -> str:
    """SHA-256 of a file as the table was made, and whether it is that still."""
    if not file.exists():
        return f"sha256 {recorded}, is gone"
    now = file_sha256(file)
    if recorded is None:
        return f"sha256 {now}"
    return (
        f"sha256 {recorded}"
        if now == recorded
        else f"sha256 {recorded}, HAS CHANGED since the table was made"
    )


def _weights(row: Mapping[str, Any], results: Path) -> Iterator[tuple[str, str]]:
    if not row["experiment"]:
        yield "weights", "none: the method reads no model"
        return
    for weights in row["weights"]:
        for stage, recorded in weights.items():
            folder = results / "experiments" / row["experiment"] / stage
            yield (
                "weights",
                f"{stage}: {folder / 'model.safetensors'}: {_state(folder / 'model.safetensors', recorded)}",
            )
            run = json_if_whole(folder / "run.json")
            if run is not None:
                preset = (run.get("config") or {}).get("preset") or ""
                about = [
                    f"run {run.get('run')}",
                    f"seed {run.get('seed')}",
                    f"cohorts {', '.join(run.get('cohorts', ()))}",
                ]
                yield "", ", ".join([*about, *([f"preset {preset}"] if preset else [])])
    if not row["weights"]:
        yield "weights", "not recorded: evaluate again"


def _made_with(made_with: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for made in made_with:
        yield "commit", made.get("commit") or "not known: the code was no checkout"
        packages = ", ".join(f"{name} {number}" for name, number in made.get("packages", {}).items())
        yield "packages", f"python {made.get('python')}, {packages}"
    if not made_with:
        yield "packages", "not recorded: evaluate again"


def _config(made_of: Mapping[str, Any], study: Config) -> Iterator[tuple[str, str]]:
    resolved = study.results / "config.resolved.json"
    state = f"sha256 {file_sha256(resolved)}" if resolved.exists() else "not there"
    yield "config", f"{resolved}: {state}"
    section = study.endpoints.get(made_of["endpoint"])
    same = section is not None and section.model_dump(mode="json") == made_of["settings"]
    yield (
        "",
        f"endpoint {made_of['endpoint']}: "
        + ("as the table was made" if same else "CHANGED since the table was made"),
    )


def _command(
    made_of: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], results: Path, config_file: Path
) -> str:
    """The command that makes the runs of a row, and its table, again."""
    other = [] if config_file == Path("config.yaml") else ["--configfile", str(config_file)]
    files = [str(results / run["metrics"]) for run in runs]
    table = str(results / "tables" / f"{made_of['table']}.md")
    return shlex.join(["snakemake", "--force", *other, "--", *dict.fromkeys([*files, table])])
