"""Report the measurements as Markdown and JSON, and what they mean for the presets' schedules. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gpu_parts import USUAL

from bhx_model.atomic_write import atomic_write, write_json

Row = Mapping[str, Any]

#: Share of the measured matrix product that a step shall reach on one H100, and hours of the preset on 8.
GOALS: Final = {"structure": (0.50, 2.5), "function": (0.50, 24.0), "fusion": (0.45, 16.0)}
GPUS: Final = 8
#: Ways of this code; the best of them is compared with the goal.
OURS: Final = ("now", "now, compiled")
WAYS: Final = {
    "now": "this code",
    "now, compiled": "this code through torch.compile (`train.compile`)",
    "before": "equal attention with a mask, one kernel per parameter of the target, a synchronisation per step",
    "published": "computing what the published code computes, in bfloat16",
    "modality_attention: tokens": "this code without equal attention",
}


def of_kind(rows: Iterable[Row], kind: str) -> list[Row]:
    """Rows of a kind."""
    return [row for row in rows if row["kind"] == kind]


def with_counts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows in which steps have their operations, where these were counted, and their share of the matrix product."""
    counts = {(row["stage"], row["way"], row["patches"]): row["flop"] for row in of_kind(rows, "count")}
    product = next((row["flop_s"] for row in of_kind(rows, "machine")), None)
    found = []
    for row in rows:
        if row["kind"] == "step" and "seconds" in row:
            way = "published" if row["way"] == "published" else "now"
            flop = counts.get((row["stage"], way, row["patches"]))
            if flop is not None:
                rate = flop * row["samples_s"]
                row = {
                    **row,
                    "flop_sample": flop,
                    "flop_s": rate,
                    "share": rate / product if product else None,
                }
        found.append(dict(row))
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; all columns but the first are numbers."""
    rule = "| --- |" + " ---: |" * (len(head) - 1)
    return ["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)]


def number(value: float | None, digits: int = 3) -> str:
    """Three digits, or nothing."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """Whole per cent, or nothing."""
    return "" if value is None else f"{100 * value:.0f} %"


def step_table(rows: Sequence[Row]) -> list[str]:
    """Rates of steps, and how often as fast as the published way they are."""
    published = {
        (row["stage"], row["patches"]): row["samples_s"]
        for row in rows
        if row["way"] == "published" and "samples_s" in row
    }
    head = (
        "step", "patches", "way", "batch", "ms", "samples/s", "TFLOP a sample", "TFLOP/s", "of the product", "peak GB",
        "x published", "first step, s",
    )  # fmt: skip
    lines = []
    for row in rows:
        patches = "" if row["stage"] == "structure" else str(row["patches"])
        first = [row["stage"], patches, row["way"], str(row["batch"])]
        if "note" in row:
            lines.append([*first, row["note"], *[""] * 7])
            continue
        flop, rate = row.get("flop_sample"), row.get("flop_s")
        theirs = published.get((row["stage"], row["patches"]))
        peak = row["peak_bytes"] / 2**30 if row["peak_bytes"] else None
        lines.append([
            *first, number(1e3 * row["seconds"]), number(row["samples_s"]), number(flop / 1e12 if flop else None),
            number(rate / 1e12 if rate else None), percent(row.get("share")), number(peak),
            number(row["samples_s"] / theirs if theirs else None), number(row["first_s"]),
        ])  # fmt: skip
    return table(head, lines)


def schedules(presets: Mapping[str, Mapping[str, int]], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Hours of the presets' trainings on 8 such GPUs, if gradients are exchanged while others are computed.

    Parameters
    ----------
    presets
        Stage to ``steps`` and ``batch_size`` of its preset.
    rows
        Rows of kind ``step``, with their counts, and of kind ``count``.

    Returns
    -------
    list of dict
        ``needs_flop_s``: what one GPU has to reach for the goal; ``hours``: by the best of this code's ways, of the
        batch that is nearest to one GPU's share of the preset's; both None where nothing was measured or counted.
    """
    found = []
    for stage, (share, hours) in GOALS.items():
        samples = presets[stage]["steps"] * presets[stage]["batch_size"]
        mine = presets[stage]["batch_size"] / GPUS
        patches = sorted({row["patches"] for row in rows if row["kind"] == "count" and row["stage"] == stage})
        for n in patches or [USUAL]:
            flop = next(
                (
                    r["flop"]
                    for r in of_kind(rows, "count")
                    if (r["stage"], r["way"], r["patches"]) == (stage, "now", n)
                ),
                None,
            )
            steps = [
                r for r in of_kind(rows, "step")
                if (r["stage"], r["patches"]) == (stage, n) and r["way"] in OURS and "samples_s" in r
            ]  # fmt: skip
            nearest = min((abs(r["batch"] - mine) for r in steps), default=0)
            best = max(
                (r for r in steps if abs(r["batch"] - mine) == nearest),
                key=lambda r: r["samples_s"],
                default=None,
            )
            found.append({
                "stage": stage, "patches": n, "samples": samples, "goal_hours": hours, "goal_share": share,
                "needs_samples_s": samples / hours / 3600 / GPUS,
                "needs_flop_s": None if flop is None else samples * flop / hours / 3600 / GPUS,
                "samples_s": best and best["samples_s"], "way": best and best["way"], "batch": best and best["batch"],
                "share": max((r["share"] for r in steps if r.get("share")), default=None),
                "hours": best and samples / best["samples_s"] / GPUS / 3600,
            })  # fmt: skip
    return found


def schedule_table(found: Sequence[Row], is_gpu: bool) -> list[str]:
    """Goals beside measured values; on a CPU they are not compared."""

    def verdict(value: float | None, met: bool) -> str:
        return "" if value is None or not is_gpu else "met" if met else "**missed**"

    head = (
        "stage", "patches", "samples of the preset", "goal, of the product", "reached", "", "goal, h on 8 GPUs",
        "needs samples/s a GPU", "needs TFLOP/s a GPU", "samples/s", "h on 8 GPUs", "",
    )  # fmt: skip
    lines = []
    for row in found:
        reached, hours = row["share"] if is_gpu else None, row["hours"] if is_gpu else None
        needs = row["needs_flop_s"]
        lines.append([
            row["stage"], str(row["patches"]), number(row["samples"]), percent(row["goal_share"]), percent(reached),
            verdict(reached, (reached or 0) >= row["goal_share"]), number(row["goal_hours"]),
            number(row["needs_samples_s"]), number(needs / 1e12 if needs else None), number(row["samples_s"]),
            number(hours), verdict(hours, (hours or 0) <= row["goal_hours"]),
        ])  # fmt: skip
    return table(head, lines)


def training_table(trainings: Sequence[Row], steps: Sequence[Row]) -> list[str]:
    """Rates with reading beside those without."""
    lines = []
    for row in trainings:
        alone = [
            s["samples_s"] for s in steps
            if "samples_s" in s and _same(s, row)
        ]  # fmt: skip
        alone = alone if row["cohort"] != "mixed" else []
        lines.append([
            row["stage"], row["way"], "mixed" if row["cohort"] == "mixed" else str(USUAL), str(row["batch"]),
            number(row["samples_s"]), number(alone[-1] if alone else None),
            percent(row["samples_s"] / alone[-1] if alone else None), number(row["start_s"]), str(row.get("graphs", "")),
        ])  # fmt: skip
    head = (
        "stage", "way", "patches", "batch", "samples/s, read", "samples/s, not read", "ratio", "until the first report, s",
        "graphs",
    )  # fmt: skip
    return table(head, lines)


def _same(step: Row, training: Row) -> bool:
    keys = ("stage", "way", "batch")
    return step["patches"] == USUAL and all(step[key] == training[key] for key in keys)


def reading_table(rows: Sequence[Row]) -> list[str]:
    """Rates of reading by processes that share the cores."""
    head = ("stage", "cores", "processes", "threads of each", "samples/s", "MB/s on the device")
    return table(
        head,
        [
            [
                row["stage"], str(row["cores"]), str(row["processes"]), str(row["threads"]), number(row["samples_s"]),
                number(row["bytes_s"] / 1e6),
            ]
            for row in rows
        ],
    )  # fmt: skip


def token_table(rows: Sequence[Row]) -> list[str]:
    """Rates of embedding."""
    head = ("embedding", "patches", "batch", "samples/s", "tokens/s", "MB/s written")
    return table(
        head,
        [
            [
                row["what"], str(row["patches"]), str(row["batch"]), number(row["samples_s"]), number(row["tokens_s"]),
                number(row["bytes_s"] / 1e6 if "bytes_s" in row else None),
            ]
            for row in rows
        ],
    )  # fmt: skip


def operation_table(rows: Sequence[Row]) -> list[str]:
    """Operations of eager steps, and what bounds them."""
    totals: dict[str, float] = {}
    for row in rows:
        totals[row["stage"]] = totals.get(row["stage"], 0.0) + row["seconds"]
    head = (
        "stage",
        "operation",
        "calls",
        "ms",
        "of the time",
        "TFLOP",
        "GB",
        "FLOP/byte",
        "bound by",
        "least ms",
    )
    waits = {
        stage: sum(row["seconds"] for row in rows if row["stage"] == stage and row["bound"] == "memory")
        / (total or 1)
        for stage, total in totals.items()
    }
    said = ", ".join(f"{stage} {percent(share)}" for stage, share in waits.items())
    lines = [f"Share of the time in the listed operations that are memory-bound: {said}.", ""]
    return lines + table(
        head,
        [
            [
                row["stage"], f"`{row['operation']}`", number(row["calls"]), number(1e3 * row["seconds"]),
                percent(row["seconds"] / (totals[row["stage"]] or 1)), number(row["flop"] / 1e12),
                number(row["bytes"] / 1e9), number(row["intensity"]), row["bound"], number(1e3 * row["least_s"]),
            ]
            for row in rows
        ],
    )  # fmt: skip


def markdown(rows: Sequence[Row], found: Sequence[Row], command: str, preset: str) -> str:
    """Return the whole report."""
    machine = next(iter(of_kind(rows, "machine")), None)
    is_gpu = machine is not None and machine["device"] != "CPU"
    lines = [f"    {command}", ""]
    if machine:
        cpu = f"a CPU (nothing here says anything about a GPU), {machine['cores']} cores"
        product, copy = number(machine["flop_s"] / 1e12), number(machine["bytes_s"] / 1e9)
        lines += [
            f"{machine['date']}, {machine['device'] if is_gpu else cpu}, torch {machine['torch']}, Python "
            f"{machine['python']}, commit {machine['commit']}, preset {preset}. A {machine['dtype']} product of "
            f"{machine['edge']} x {machine['edge']} matrices reaches {product} TFLOP/s, a copy {copy} GB/s: operations "
            f"below {number(machine['ridge'])} FLOP a byte are memory-bound.",
            "",
        ]
    for check in of_kind(rows, "check"):
        lines += [f"`test-gpu`: {check['outcome']}", *(f"- {line}" for line in check["failed"]), ""]
    steps = of_kind(rows, "step")
    if steps:
        lines += ["## Steps: forward, backward, optimiser; inputs on the device", "", *step_table(steps), ""]
        lines += [*(f"- *{way}*: {what}" for way, what in WAYS.items()), *_device_counts(steps), ""]
    lines += [
        f"## The preset's schedules on {GPUS} GPUs, by arithmetic",
        "",
        *schedule_table(found, is_gpu),
        "",
    ]
    for title, kind, make in (
        ("Trainings by their command: reading included", "training", lambda r: training_table(r, steps)),
        ("Reading alone, from the page cache", "reading", reading_table),
        ("Embedding", "tokens", token_table),
        ("Operations of a step (eager) and their bounds", "operation", operation_table),
        ("Learning", "learning", _learning_table),
    ):
        if of_kind(rows, kind):
            lines += [f"## {title}", "", *make(of_kind(rows, kind)), ""]
    unfinished = [row for row in of_kind(rows, "part") if row.get("outcome", "done") != "done"]
    lines += ["## Not measured", "", *(f"- {row['part']}: {row['outcome']}" for row in unfinished)]
    lines += [] if unfinished else ["Nothing: every part was done."]
    return "\n".join(lines) + "\n"


def _device_counts(steps: Sequence[Row]) -> list[str]:
    """How the operations that were counted compare with those of the kernels that the GPU took."""
    ratios = [
        row["device_flop_sample"] / row["flop_sample"]
        for row in steps
        if "device_flop_sample" in row and "flop_sample" in row
    ]
    if not ratios:
        return []
    return [
        "",
        f"Operations counted on the GPU, of those counted here: {min(ratios):.3f} to {max(ratios):.3f}.",
    ]


def _learning_table(rows: Sequence[Row]) -> list[str]:
    head = ("endpoint", "read", "score", "steps", "training subjects", "probed subjects")
    return table(
        head,
        [
            [
                row["endpoint"], row["read"], f"{row['score']:.3f}", str(row["steps"]), str(row["trained_on"]),
                str(row["probed"]),
            ]
            for row in rows
        ],
    )  # fmt: skip


def write(out: Path, rows: Sequence[Row], found: Sequence[Row], text: str) -> None:
    """Write ``gpu.json`` and ``gpu.md``."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "gpu.json", json.loads(json.dumps({"rows": list(rows), "schedules": list(found)})))
    with atomic_write(out / "gpu.md") as part:
        part.write_text(text, encoding="utf-8")
