"""``bhx status``: what is done, what failed or was excluded, why, which log to read, and what was assumed.

Reads the results folder and asks Slurm's queue, so it can be asked at any time, also while Snakemake runs.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bhx_model.errors import ConfigError
from bhx_model.evaluation.methods import METHODS, NETWORKS
from bhx_prep.config import config
from bhx_prep.config.experiments import ExperimentSection
from bhx_prep.evaluation import split_seeds
from bhx_prep.ingest import batches
from bhx_prep.io import notes
from bhx_prep.preproc.status import failure
from bhx_prep.slurm import efficiency, jobs
from bhx_prep.trainings import Trainings

# lines of a list that is not asked for with --failed
_SHORT = 10
#: Columns of an index or of a batch's qc.parquet that are read.
_COLUMNS = ["subject", "key", "modality", "status", "reason", "notes"]


@dataclass(frozen=True)
class Now:
    """What is at work while the folder is read, and what was.

    `running` is `jobs.at_work`, `ended` is `jobs.ended`; `begun` says what else a log may mean.
    """

    running: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    ended: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    begun: str = "failed"


@dataclass
class Stage:
    """How far one stage is.

    `running`, `failed`, `excluded` and `notes` hold lines of text: who, why or what, which log. `unit` is what is counted.
    """

    name: str
    unit: str
    done: int = 0
    waiting: int = 0
    running: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bhx status``."""
    parser.add_argument(
        "cohort",
        nargs="?",
        metavar="COHORT",
        help="only this cohort (default: all cohorts and the trainings)",
    )
    parser.add_argument(
        "--failed", action="store_true", help="list everything that failed or was excluded, and why"
    )
    parser.add_argument(
        "--notes", action="store_true", help="list every note: what was assumed about each scan"
    )
    parser.add_argument(
        "--jobs",
        action="store_true",
        help="jobs in Slurm's queue, and how much finished jobs used of what they requested",
    )
    parser.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="configuration (config.yaml)"
    )


def command(args: argparse.Namespace) -> int:
    """Print the state of cohorts and experiments."""
    study = config.load(args.config)
    if args.cohort is not None and args.cohort not in study.cohorts:
        msg = f"no cohort {args.cohort!r} in {args.config}; there are: {', '.join(study.cohorts)}"
        raise ConfigError(msg)
    if args.jobs:
        return _jobs(study)
    # a job that has begun and has no output is at work, or has failed: the lock distinguishes them
    begun = "running or failed" if any(Path(".snakemake/locks").glob("*")) else "failed"
    logs = study.results / "logs/slurm"
    now = Now(jobs.at_work(Path.cwd(), logs), jobs.ended(logs), begun)
    blocks = {}
    for name in [args.cohort] if args.cohort else study.cohorts:
        blocks[f"cohort {name} (input {study.cohorts[name].input})"] = cohort_stages(study, name, now)
    if args.cohort is None:
        if study.endpoints:
            blocks["endpoints"] = [endpoint_stage(study, name, now) for name in study.endpoints]
        for name in study.experiments:
            blocks[f"experiment {name}"] = experiment_stages(study, name, now)
    for title, stages in blocks.items():
        troubles = any(s.failed or s.excluded for s in stages)
        if args.notes:
            print("\n".join([title, *(f"  {line}" for stage in stages for line in stage.notes)]), end="\n\n")
        elif not args.failed or troubles:
            print("\n".join(_block(title, stages, everything=args.failed)), end="\n\n")
    if args.failed and not any(s.failed or s.excluded for stages in blocks.values() for s in stages):
        print("nothing failed, and nothing was excluded")
    return 0


def cohort_stages(study: config.Config, name: str, now: Now = Now()) -> list[Stage]:
    """Stages index, preproc (`input: bids`), features, check and shards of a cohort.

    Parameters
    ----------
    study : Config
    name : str
        Of the cohort.
    now : Now
        What is at work.
    """
    folder, logs = study.results / name, study.results / "logs"
    rows = _parquet(folder / "index.parquet", _COLUMNS)
    listed = Stage("index", "scans", waiting=int(rows is None))
    rows = rows or []
    listed.done = sum(row["status"] == "ok" for row in rows)
    listed.excluded = [f"{_scan(row)}: {row['reason']}" for row in rows if row["status"] != "ok"]
    listed.notes = _notes(rows)
    stages = [listed]
    statuses: dict[str, dict[str, Any]] = {}
    if study.cohorts[name].input == "bids":
        for file in sorted((folder / "preproc").glob("sub-*_status.json")):
            statuses[file.name.removeprefix("sub-").removesuffix("_status.json")] = _json(file)
        stages.append(_preprocessed(study, name, rows, statuses, now))
    numbers = _batches(study, name, {row["subject"] for row in rows})
    features, shards = Stage("features", "batches"), Stage("shards", "batches")
    for number in numbers:
        _extracted(features, study, name, number, listed, rows, statuses, now)
        output = folder / "shards" / f"t1w-{number}.json"
        log = logs / "pack_shards" / name / f"batch-{number}.log"
        _job(shards, output, f"batch {number}", log, now, "pack_shards", name, number)
    indexed = Stage("shards", "index")
    output, log = folder / "shards" / "index.json", logs / "index_shards" / f"{name}.log"
    _job(indexed, output, f"shards of {name}", log, now, "index_shards", name)
    return [
        *stages,
        features,
        _checked(folder, logs, name, now),
        shards,
        indexed,
        _drawn(study, name, numbers, now),
    ]


def _preprocessed(
    study: config.Config, name: str, rows: list[dict[str, Any]], statuses: dict[str, dict[str, Any]], now: Now
) -> Stage:
    """Subjects whose preprocessing has ended, by their status files, or is at work."""
    subjects, logs = Stage("preproc", "subjects"), study.results / "logs"
    rule = "run_embedded" if study.preproc.backend == "embedded" else "run_fmriprep"
    begun = {log.stem.removeprefix("sub-") for log in (logs / rule / name).glob("sub-*.log")}
    known = statuses.keys() | {row["subject"] for row in rows if row["status"] == "ok"}
    for subject in sorted(known | (begun if not rows else set())):  # the index may not be written yet
        log = logs / rule / name / f"sub-{subject}.log"
        if subject not in statuses:
            _unfinished(subjects, f"sub-{subject}", log, now, rule, name, subject)
        elif statuses[subject].get("status") == "ok":
            subjects.done += 1
            for scan in statuses[subject].get("excluded") or []:
                subjects.excluded.append(f"sub-{subject} {scan.get('file')}: {scan.get('reason')}  [{log}]")
            subjects.notes += [
                f"sub-{subject} {scan.get('file')}: {scan.get('note')}"
                for scan in statuses[subject].get("notes") or []
            ]
        else:
            reason = failure(statuses[subject])
            subjects.failed.append(f"sub-{subject}: {reason}  [{statuses[subject].get('log', log)}]")
    return subjects


def _extracted(
    features: Stage,
    study: config.Config,
    name: str,
    number: str,
    listed: Stage,
    rows: list[dict[str, Any]],
    statuses: dict[str, dict[str, Any]],
    now: Now,
) -> None:
    """Add a batch of features: what its job excluded is said once, where it happened."""
    log = study.results / "logs" / "extract_features" / name / f"batch-{number}.log"
    quality = _parquet(study.results / name / "features" / f"batch-{number}" / "qc.parquet", _COLUMNS)
    if quality is None:
        _unfinished(features, f"batch {number}", log, now, "extract_features", name, number)
        return
    features.done += 1
    features.notes += _notes(quality, without=set(listed.notes))
    known = {(row["key"], row["modality"]) for row in rows if row["status"] != "ok"}
    features.excluded += [
        f"{_scan(row)}: {row['reason']}  [{log}]"
        for row in quality
        if row["status"] != "ok"
        and (row["key"], row["modality"]) not in known
        and statuses.get(row["subject"], {}).get("status", "ok") == "ok"
    ]


def _drawn(study: config.Config, name: str, numbers: Iterable[str], now: Now) -> Stage:
    """The pictures of a cohort's batches, of which tables of series have none, and its page."""
    stage, folder, logs = Stage("qc", "jobs"), study.results / name / "qc", study.results / "logs"
    for number in numbers if study.cohorts[name].input != "timeseries" else ():
        log = logs / "draw_scans" / name / f"batch-{number}.log"
        output = folder / f"batch-{number}.js"
        _job(stage, output, f"pictures of batch {number}", log, now, "draw_scans", name, number)
    log = logs / "collect_quality" / f"{name}.log"
    _job(stage, folder / "index.html", f"page of {name}", log, now, "collect_quality", name)
    return stage


def _checked(folder: Path, logs: Path, name: str, now: Now) -> Stage:
    """The check of a cohort: it fails where the ROIs are in another order, or no run can be used."""
    stage, output = Stage("check", "cohort"), folder / "check.json"
    _job(stage, output, f"check of {name}", logs / "check_cohort" / f"{name}.log", now, "check_cohort", name)
    if stage.done:
        stage.notes = [f"{name}: {note}" for note in _json(output).get("notes") or ()]
    return stage


def endpoint_stage(study: config.Config, name: str, now: Now = Now()) -> Stage:
    """The splits of an endpoint, and what was assumed of its labels.

    Parameters as `cohort_stages`.
    """
    stage, found = Stage(name, "splits"), dict[str, None]()
    for seed in split_seeds.seeds(study, name):
        output = study.results / "endpoints" / name / f"seed-{seed}.json"
        log = study.results / "logs/split_endpoint" / f"{name}_seed-{seed}.log"
        _job(stage, output, f"{name}, split {seed}", log, now, "split_endpoint", name, str(seed))
        if output.exists():
            found |= dict.fromkeys(_json(output).get("notes") or ())
    stage.notes = [f"{name}: {note}" for note in found]
    return stage


def experiment_stages(study: config.Config, name: str, now: Now = Now()) -> list[Stage]:
    """Stages structure, function, tokens, fusion, readouts (of function tokens) and evaluate, as far as it has them.

    Parameters as `cohort_stages`.
    """
    section, made, logs = study.experiments[name], Trainings(study), study.results / "logs"
    trainset, stages, given = made.trainset(name), list[Stage](), section.weights is not None
    for stage in section.stages:
        stages.append(Stage(stage, "weights" if given else "training"))
        rule, wildcards, log = "train_fusion", (name,), name
        if stage != "fusion" or given:
            rule = "fetch_weights" if given else "train_encoder"
            wildcards = (trainset, stage, made.recipe(name, stage))
            log = "{}_{}-{}".format(*wildcards)
        output = made.stage_folder(name, stage) / "model.safetensors"
        _job(stages[-1], output, stage, logs / rule / f"{log}.log", now, rule, *wildcards)
    for stage, rule, tokens, cohorts, maker in [
        ("tokens", "embed_tokens", made.tokens, _cohorts_read(study, section, "fusion"), made.pair),
        (
            *("readouts", "read_function_tokens", made.function_tokens),
            _cohorts_read(study, section, "function"),
            lambda experiment: made.recipe(experiment, "function"),
        ),
        (
            *("structure readouts", "read_structure_tokens", made.structure_tokens),
            _cohorts_read(study, section, "structure"),
            lambda experiment: made.recipe(experiment, "structure"),
        ),
    ]:
        if cohorts:
            stages.append(Stage(stage, "cohorts"))
        for cohort in cohorts:
            wildcards = (trainset, maker(name), cohort)
            log = logs / rule / f"{'_'.join(wildcards)}.log"
            _job(stages[-1], tokens(name, cohort), f"{stage} of {cohort}", log, now, rule, *wildcards)
    if any(section.methods(endpoint) for endpoint in study.endpoints.values()):
        stages.append(Stage("evaluate", "scores"))
        _evaluations(stages[-1], study, name, now)
    order = ("structure", "function", "tokens", "fusion", "readouts", "structure readouts", "evaluate")
    return sorted(stages, key=lambda stage: order.index(stage.name))


def _cohorts_read(study: config.Config, section: ExperimentSection, stage: str) -> list[str]:
    """Cohorts whose tokens are cached for a fusion or its methods, or are read by methods of the function encoder."""
    found = {
        endpoint.cohort
        for endpoint in study.endpoints.values()
        if any(METHODS[method].stage == stage for method in section.methods(endpoint))
    }
    if stage == "fusion" and "fusion" in section.stages and not section.fusion_is_online:
        found.update(section.cohorts)
    return sorted(found)


def _evaluations(stage: Stage, study: config.Config, name: str, now: Now) -> None:
    """Scores of the baseline and of every method of an experiment."""
    folder, logs = study.results / "experiments" / name, study.results / "logs"
    for endpoint, section in study.endpoints.items():
        methods = study.experiments[name].methods(section)
        if not methods:
            continue
        for method in section.baselines:
            for seed in split_seeds.seeds(study, endpoint, method):
                output = study.results / "endpoints" / endpoint / f"{method}_seed-{seed}" / "metrics.json"
                rule = "evaluate_network" if method in NETWORKS else "evaluate_baseline"
                log = logs / rule / f"{endpoint}_{method}_seed-{seed}.log"
                job = (rule, endpoint, method, str(seed))
                _job(stage, output, f"{endpoint}, {method}, seed {seed}", log, now, *job)
        for method in methods:
            for seed in split_seeds.experiment_seeds(study, name, endpoint, method):
                output = folder / "endpoints" / endpoint / f"{method}_seed-{seed}" / "metrics.json"
                log = logs / "evaluate_model" / f"{name}_{endpoint}_{method}_seed-{seed}.log"
                job = ("evaluate_model", name, endpoint, method, str(seed))
                _job(stage, output, f"{endpoint}, {method}, seed {seed}", log, now, *job)


def _jobs(study: config.Config) -> int:
    """Print Slurm's queue, and what finished jobs used of what they had asked for."""
    alive = jobs.alive(Path.cwd())
    if alive is None:
        print("Slurm is not here, or does not answer")
    else:
        print(f"{len(alive)} jobs of this folder in Slurm's queue" + (":" if alive else ""))
    for job in alive or []:
        print(f"  {job.number:<10}{job.state.lower():<12}{job.elapsed:>10}  {job.node:<12}{job.what}")
    uses = efficiency.by_rule(study.results)
    print(
        "\nfinished jobs: the most that one used of what it asked for"
        if uses
        else "\nno finished job recorded its use"
    )
    if uses:
        print("\n".join(efficiency.lines(uses)))
        print("  `enough` goes into set-resources of your profile, where it is far from what was asked for")
    return 0


def _job(stage: Stage, output: Path, what: str, log: Path, now: Now, rule: str, *wildcards: str) -> None:
    if output.exists():
        stage.done += 1
    else:
        _unfinished(stage, what, log, now, rule, *wildcards)


def _unfinished(stage: Stage, what: str, log: Path, now: Now, rule: str, *wildcards: str) -> None:
    """Count a job without its output: running if Slurm says so, else waiting if it never began."""
    key = (rule, *sorted(wildcards))
    if job := now.running.get(key):
        stage.running.append(f"{what}: {job}  [{log}]")
        return
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        stage.waiting += 1
        return
    last = next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")
    where = f" in {now.ended[key]}" if key in now.ended else ""
    stage.failed.append(f"{what}: {now.begun}{where}; last line: {last[:300]}  [{log}]")


def _batches(study: config.Config, name: str, subjects: set[str]) -> list[str]:
    """Numbers of a cohort's batches as in file names; those that left traces where it is not planned."""
    folder = study.results / name
    if subjects and (folder / "plan.json").exists():
        n = batches.n_batches(study.results, name, len(subjects), study.batch_size)
        return [f"{number:05d}" for number in batches.batches(name, subjects, n)]
    return sorted(path.name.removeprefix("batch-") for path in (folder / "features").glob("batch-*"))


def _block(title: str, stages: list[Stage], *, everything: bool) -> Iterable[str]:
    yield title
    if not everything:
        yield f"  {'':<10}{'done':>8}{'running':>8}{'failed':>8}{'waiting':>8}{'excluded':>9}"
        for stage in stages:
            counts = f"{stage.done:>8}{len(stage.running) or '':>8}{len(stage.failed):>8}{stage.waiting:>8}"
            counts += f"{len(stage.excluded) or '':>9}"
            yield f"  {stage.name:<10}{counts}  {stage.unit}"
        for stage in stages:
            yield from _list("running", stage, stage.running, everything)
    for stage in stages:
        yield from _list("failed", stage, stage.failed, everything)
    for stage in stages:
        if everything:
            yield from _list("excluded", stage, stage.excluded, everything)
        else:
            statuses = [line.partition(": ")[2].partition("  [")[0] for line in stage.excluded]
            reasons = Counter(re.sub(r"sub-[A-Za-z0-9]+_", "sub-*_", reason) for reason in statuses)
            lines = [f"{n} x {reason}" for reason, n in reasons.most_common()]
            yield from _list("excluded", stage, lines, everything)
    if not everything:
        for stage in stages:
            kinds = Counter(notes.kind_of(line.partition(": ")[2]) for line in stage.notes)
            lines = [f"{n} x {kind}" for kind, n in kinds.most_common()]
            yield from _list("notes", stage, lines, everything)


def _list(what: str, stage: Stage, lines: list[str], everything: bool) -> Iterable[str]:
    shown = lines if everything else lines[:_SHORT]
    yield from (f"  {what} ({stage.name}): {line}" for line in shown)
    if len(lines) > len(shown):
        option = "--notes" if what == "notes" else "--failed"
        yield f"  {what} ({stage.name}): and {len(lines) - len(shown)} more, see bhx status {option}"


def _scan(row: Mapping[str, Any]) -> str:
    return f"sub-{row['subject']} {row['modality']} {row['key']}"


def _notes(rows: Iterable[Mapping[str, Any]], without: Collection[str] = ()) -> list[str]:
    """A line for each note of the usable scans, but for those that an earlier stage has listed."""
    lines = [
        f"{_scan(row)}: {note}" for row in rows if row["status"] == "ok" for note in row.get("notes") or ()
    ]
    return [line for line in lines if line not in without]


def _parquet(file: Path, columns: list[str]) -> list[dict[str, Any]] | None:
    """Some columns of a table; None if it is not there or not whole yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file).read(columns=columns).to_pylist()
    except (OSError, pa.ArrowException):
        return None


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    return value if isinstance(value, dict) else {"status": "failed", "reason": f"{file.name} cannot be read"}
