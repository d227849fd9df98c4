"""One table per experiment and endpoint: the paper's published numbers, then this run's.

Written in three formats with the same content: Markdown, tidy CSV (one line per method and metric) and LaTeX (booktabs,
graphicx).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from bhx_model.atomic_write import atomic_write
from bhx_model.command_line import json_file, run_command
from bhx_model.errors import DataError
from bhx_model.evaluation import methods
from bhx_model.evaluation.metrics import METRICS, metrics_of
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.section import read_section
from bhx_prep.report import published

logger = logging.getLogger(__name__)

#: Methods of this run in the order of the rows; the label of `constant` depends on the kind of endpoint.
METHODS = {
    "fc": "Functional connectivity + linear model",
    **{name: method.label for name, method in methods.METHODS.items()},
    "constant": "Majority-class baseline",
}
CONSTANT_REGRESSION = "Mean-predictor baseline"

#: What every ``metrics.json`` holds.
_SCORE_KEYS = {
    "experiment", "endpoint", "method", "seed", "kind", "n_train", "n_val", "n_test", "metrics", "constant", "synthetic",
}  # fmt: skip

THIS_RUN = "this run"
PLUS_MINUS = "\u00b1"


@dataclass(frozen=True)
class Entry:
    """One method scored by one metric: a line of the tidy CSV.

    `mean`, `sd`, `ci_low` and `ci_high` are in the metric's unit (percent for accuracy-like ones) and None
    where unknown; `note` then says why. `printed` is a published number as its source prints it.
    """

    origin: Literal["published", "this run"]
    method: str
    metric: str
    unit: str
    mean: float | None
    sd: float | None
    ci_low: float | None
    ci_high: float | None
    n_seeds: int | None
    n_test: str
    source: str
    note: str
    printed: str


@dataclass(frozen=True)
class Table:
    """All entries of one experiment and endpoint; `paper` is the paper's counterpart or empty."""

    experiment: str
    endpoint: str
    cohort: str
    kind: Literal["binary", "multiclass", "regression"]
    task: str
    paper: str
    synthetic: bool
    entries: tuple[Entry, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of the columns."""
        return metrics_of(self.kind)

    def methods(self, origin: str) -> list[str]:
        """Methods of one origin, in the order of the rows."""
        return list(dict.fromkeys(e.method for e in self.entries if e.origin == origin))

    def entry(self, origin: str, method: str, metric: str) -> Entry | None:
        """Return the entry of one cell; None if the paper is not known to use the metric."""
        found = (e for e in self.entries if (e.origin, e.method, e.metric) == (origin, method, metric))
        return next(found, None)

    def decimals(self, metric: str) -> int:
        """Decimals that this run's values of `metric` are printed with."""
        fixed = METRICS[metric].decimals
        if fixed is not None:
            return fixed
        means = [abs(e.mean) for e in self.entries if e.metric == metric and e.mean]
        return min(6, max(0, 2 - math.floor(math.log10(max(means))))) if means else 2

    def label(self, origin: str, method: str) -> str:
        """Name of a method as it is printed."""
        if origin == "published":
            return method
        if method == "constant" and self.kind == "regression":
            return CONSTANT_REGRESSION
        return METHODS[method]


def interval(
    values: Sequence[float], test_share: float
) -> tuple[float, float | None, float | None, float | None]:
    """Mean, standard deviation and the mean's 95 % confidence interval over random splits of one set of subjects.

    Splits share most of their subjects, so their scores are correlated and sd / sqrt(n) is too small: the variance of the
    mean is sd^2 (1 / n + n_test / n_others), with Student's t of n - 1 degrees of freedom (the corrected
    resampled t of Nadeau and Bengio, Machine Learning 52, 2003).

    Parameters
    ----------
    values : Sequence[float]
        One value per seed, at least one. With a single one there is neither spread nor interval (None).
    test_share : float
        Test subjects over all others of the split (training and validation).
    """
    from scipy.stats import t  # here: slow to import, and the report reads tables without it

    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None, None, None
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * sd * math.sqrt(1 / n + test_share)
    return mean, sd, mean - half, mean + half


def build(
    experiment: str, name: str, endpoint: EndpointSection, scores: Sequence[Mapping[str, Any]]
) -> Table:
    """Gather the table of one experiment and endpoint.

    Parameters
    ----------
    experiment, name : str
        Names of the experiment and of the endpoint.
    endpoint : EndpointSection
        Its configuration.
    scores : Sequence[Mapping]
        Contents of the ``metrics.json`` files, one per method and seed, fractions where percent is printed.

    Raises
    ------
    DataError
        If there are none, if one is of another endpoint, experiment, kind or method, or occurs twice.
    """
    _check(experiment, name, endpoint, scores)
    entries: list[Entry] = []
    if endpoint.paper:
        entries += _published(endpoint.paper)
    by_method = {
        method: sorted((s for s in scores if s["method"] == method), key=lambda s: s["seed"])
        for method in METHODS
        if method != "constant"
    }
    per_seed = {s["seed"]: {**s, "metrics": s["constant"]} for s in reversed(scores)}
    by_method["constant"] = [per_seed[seed] for seed in sorted(per_seed)]
    for method, of_method in by_method.items():
        if of_method:
            entries += [_entry(method, metric, of_method) for metric in metrics_of(endpoint.kind)]
    return Table(
        experiment=experiment,
        endpoint=name,
        cohort=endpoint.cohort,
        kind=endpoint.kind,
        task=_task(endpoint),
        paper=endpoint.paper or "",
        synthetic=any(s["synthetic"] for s in scores),
        entries=tuple(entries),
    )


def _check(
    experiment: str, name: str, endpoint: EndpointSection, scores: Sequence[Mapping[str, Any]]
) -> None:
    if not scores:
        msg = f"no metrics of endpoint {name!r}: run its evaluations first"
        raise DataError(msg)
    seen = set()
    for score in scores:
        what = f"metrics of {score['method']!r}, seed {score['seed']}"
        if score["endpoint"] != name or score["kind"] != endpoint.kind:
            theirs = f"{score['endpoint']!r} ({score['kind']})"
            msg = f"{what}: belong to endpoint {theirs}, not to {name!r} ({endpoint.kind})"
            raise DataError(msg)
        if score["experiment"] not in (experiment, None):
            msg = f"{what}: belong to experiment {score['experiment']!r}, not to {experiment!r}"
            raise DataError(msg)
        if score["method"] not in METHODS or score["method"] == "constant":
            msg = f"{what}: no such method; there are {', '.join(m for m in METHODS if m != 'constant')}"
            raise DataError(msg)
        if (score["method"], score["seed"]) in seen:
            msg = f"{what}: given twice"
            raise DataError(msg)
        seen.add((score["method"], score["seed"]))


def _task(endpoint: EndpointSection) -> str:
    if endpoint.kind == "regression":
        return f"regression of {endpoint.column}"
    names = [c.name for c in endpoint.classes]
    f1 = f"F1 of {names[1]}" if endpoint.kind == "binary" else "F1 weighted by class size"
    return f"{' versus '.join(names)}; {f1}"


def constant_predictor(kind: str) -> str:
    """Name of the constant predictor for endpoints of this kind, in the middle of a sentence."""
    return (CONSTANT_REGRESSION if kind == "regression" else METHODS["constant"]).lower()


def _published(paper: str) -> list[Entry]:
    block = published.endpoint(paper)
    entries = []
    for row in block.rows:
        for metric in block.metrics:
            printed = row.values.get(metric, "")
            entries.append(
                Entry(
                    origin="published",
                    method=row.method,
                    metric=metric,
                    unit=METRICS[metric].unit,
                    mean=float(printed) if printed else None,
                    sd=None,
                    ci_low=None,
                    ci_high=None,
                    n_seeds=block.runs if printed else None,
                    n_test="not recovered",
                    source=row.source,
                    note="SD not recovered" if printed else row.note,
                    printed=printed,
                )
            )
    return entries


def _entry(method: str, metric: str, scores: Sequence[Mapping[str, Any]]) -> Entry:
    known = METRICS[metric]
    # the correlation with a constant does not exist, whatever number stands for it
    undefined_here = method == "constant" and not known.of_constants
    raw = [None if undefined_here else s["metrics"].get(metric) for s in scores]
    values = [known.factor * v for v in raw if v is not None and math.isfinite(v)]
    share = max(s["n_test"] / (s["n_train"] + s["n_val"]) for s in scores)
    mean, sd, low, high = interval(values, share) if values else (None, None, None, None)
    if low is not None and high is not None:
        low, high = max(low, known.lowest), min(high, known.highest)
    undefined = len(raw) - len(values)
    note = ""
    if undefined == len(raw):
        note = "undefined"
    elif undefined:
        note = f"undefined in {undefined} of {len(raw)} seeds"
    elif len(values) == 1:
        note = "one seed: no SD"
    tested = sorted({int(s["n_test"]) for s in scores})
    return Entry(
        origin="this run",
        method=method,
        metric=metric,
        unit=METRICS[metric].unit,
        mean=mean,
        sd=sd,
        ci_low=low,
        ci_high=high,
        n_seeds=len(scores),
        n_test=str(tested[0]) if len(tested) == 1 else f"{tested[0]} to {tested[-1]}",
        source=THIS_RUN,
        note=note,
        printed="",
    )


def caption(table: Table) -> list[str]:
    """Return what is needed to read the table, in sentences."""
    sentences = [
        f"Endpoint {table.endpoint} of cohort {table.cohort} ({table.task}); experiment {table.experiment}."
    ]
    if table.synthetic:
        sentences.append(
            "SYNTHETIC DATA: this run's data are simulated; its numbers cannot be compared with the paper's."
        )
    seeds = max((e.n_seeds or 0 for e in table.entries if e.origin == THIS_RUN), default=0)
    if seeds > 1:
        sentences.append(
            f"This run: mean {PLUS_MINUS} SD over random splits of the subjects (one per seed; models selected on "
            "validation, scored on test), then the 95 % confidence interval of that mean (Student's t with n - 1 "
            "degrees of freedom; variance corrected for splits that share subjects, Nadeau and Bengio 2003), clipped "
            "to the range of the metric."
        )
    else:
        sentences.append("This run: one random split of the subjects, hence no SD and no interval (n/a).")
    lower = [METRICS[m].label for m in table.metrics if METRICS[m].better == "lower"]
    sentences.append(
        f"Lower is better for {', '.join(lower)}, higher for all else." if lower else "Higher is better."
    )
    sentences.append(
        "The mean-predictor baseline predicts the training mean for every subject; its Pearson's r is undefined."
        if table.kind == "regression"
        else "The majority-class baseline predicts the most frequent class of the training subjects."
    )
    if any(method.endswith(methods.UNTRAINED) for method in table.methods(THIS_RUN)):
        sentences.append(
            "Untrained weights: the same encoder before its first step. The difference from them is what training adds, the "
            "connectivity code that it lets in among it."
        )
    if not table.paper:
        sentences.append("This endpoint is not in the paper.")
        return sentences
    block = published.endpoint(table.paper)
    sentences.append(
        f"Published: BrainHarmonix, arXiv 2509.24693, {table.paper} ({block.task}), means over {block.runs} "
        f"runs [{block.runs_source}]. The paper itself was not available: numbers are second-hand; SDs and numbers of "
        "test subjects were not recovered. A dash: not a metric of the paper."
    )
    used = {block.runs_source} | {t for row in block.rows for t in published.sources() if t in row.source}
    sentences += [f"[{tag}]: {text}." for tag, text in published.sources().items() if tag in used]
    return sentences


@dataclass(frozen=True)
class TextRow:
    """A row as text: what Markdown and LaTeX print."""

    origin: str
    cells: tuple[str, ...]


def text_rows(table: Table) -> list[TextRow]:
    """Rows of the table as text cells, in the order of `headings`."""
    rows = []
    for origin in ("published", THIS_RUN):
        for method in table.methods(origin):
            of_method = [table.entry(origin, method, metric) for metric in table.metrics]
            some = next(e for e in of_method if e is not None)
            spread = "SD not recovered" if any(e and e.printed for e in of_method) else "-"
            if origin == THIS_RUN:
                spread = f"{PLUS_MINUS} SD (95 % CI)"
            seeds = max((e.n_seeds or 0 for e in of_method if e), default=0)
            rows.append(
                TextRow(
                    origin=origin,
                    cells=(
                        table.label(origin, method),
                        f"[{some.source}]" if origin == "published" and some.source else some.source or "-",
                        *(_cell(table, e) for e in of_method),
                        spread,
                        str(seeds) if seeds else "-",
                        some.n_test,
                    ),
                )
            )
    return rows


def headings(table: Table) -> list[str]:
    """Column headings that go with `text_rows`."""
    return [
        "Method",
        "Source",
        *(METRICS[m].heading for m in table.metrics),
        "Spread",
        "Seeds",
        "Test subjects",
    ]


def _cell(table: Table, entry: Entry | None) -> str:
    if entry is None:
        return "-"
    if entry.printed or entry.mean is None:
        return entry.printed or entry.note
    digits = table.decimals(entry.metric)
    if entry.sd is None or entry.ci_low is None or entry.ci_high is None:
        return f"{entry.mean:.{digits}f} {PLUS_MINUS} n/a (n/a)"
    mean, sd, low, high = (f"{v:.{digits}f}" for v in (entry.mean, entry.sd, entry.ci_low, entry.ci_high))
    text = f"{mean} {PLUS_MINUS} {sd} ({low} to {high})"
    return f"{text}, {entry.note}" if entry.note else text


def to_markdown(table: Table) -> str:
    """Render the table as GitHub Markdown: caption, then rows."""
    head = headings(table)
    align = ["---", "---", *["---:"] * len(table.metrics), "---", "---:", "---:"]
    rows = [" | ".join(row) for row in (head, align, *(line.cells for line in text_rows(table)))]
    sentences = caption(table)
    if table.synthetic:
        sentences = [f"**{s}**" if s.startswith("SYNTHETIC") else s for s in sentences]
    return (
        "\n".join(
            [f"# {table.endpoint} ({table.experiment})", "", *sentences, "", *(f"| {row} |" for row in rows)]
        )
        + "\n"
    )


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    PLUS_MINUS: r"$\pm$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


# a cell is as narrow as its longer half
_BREAKS = (" (", ": ", "; ", " + ")


def _latex_cell(text: str, side: str) -> str:
    """A cell in LaTeX, long ones on two lines."""
    for mark in _BREAKS:
        first, found, second = text.partition(mark)
        if found:
            first, second = first + mark.rstrip(" ("), f"({second}" if mark == " (" else second
            return rf"\shortstack[{side}]{{{_latex(first)}\\{_latex(second)}}}"
    return _latex(text)


def to_latex(table: Table) -> str:
    """Render the table as a LaTeX float, as wide as the page; needs ``booktabs`` and ``graphicx``."""
    sides = "ll" + "r" * (len(table.metrics) + 2)
    spread = headings(table).index("Spread")  # the caption states it

    def row(cells: Sequence[str]) -> str:
        shown = [cell for i, cell in enumerate(cells) if i != spread]
        return (
            " & ".join(_latex_cell(cell, side) for cell, side in zip(shown, sides, strict=True)) + r" \\[3pt]"
        )

    body, last = [], None
    for line in text_rows(table):
        if last is not None and line.origin != last:
            body.append(r"\midrule")
        last = line.origin
        body.append(row(line.cells))
    sentences = caption(table)
    lead = 2 if table.synthetic else 1
    label = f"tab:{table.experiment}-{table.endpoint}".replace("_", "-")
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{_latex(' '.join(sentences[:lead]))}}}",
            rf"\label{{{label}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            row(headings(table)),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\smallskip",
            rf"\parbox{{\linewidth}}{{\footnotesize {_latex(' '.join(sentences[lead:]))}}}",
            r"\end{table*}",
            "",
        ]
    )


_OF_TABLE = tuple(f.name for f in fields(Table) if f.name != "entries")
_OF_ENTRY = tuple(f.name for f in fields(Entry))


def to_csv(table: Table) -> str:
    """Render the table as tidy CSV, a line per method and metric; `from_csv` reads it. Empty: not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_OF_TABLE, *_OF_ENTRY])
    shared = [_write(getattr(table, name)) for name in _OF_TABLE]
    writer.writerows(
        [*shared, *(_write(getattr(entry, name)) for name in _OF_ENTRY)] for entry in table.entries
    )
    return text.getvalue()


def _write(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def from_csv(text: str) -> Table:
    """Read a table that `to_csv` wrote.

    Raises
    ------
    DataError
        If it is not such a table.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or list(rows[0]) != [*_OF_TABLE, *_OF_ENTRY]:
        raise DataError("not a table of this version: make it again with `python -m bhx_prep.report.tables`")
    numbers = ("mean", "sd", "ci_low", "ci_high")
    entries = []
    for row in rows:
        values: dict[str, Any] = {name: row[name] for name in _OF_ENTRY}
        values.update({name: float(row[name]) if row[name] else None for name in numbers})
        values["n_seeds"] = int(row["n_seeds"]) if row["n_seeds"] else None
        entries.append(Entry(**values))
    shared: dict[str, Any] = {name: rows[0][name] for name in _OF_TABLE}
    shared["synthetic"] = rows[0]["synthetic"] == "true"
    return Table(**shared, entries=tuple(entries))


def write(table: Table, stem: Path) -> None:
    """Write ``<stem>.md``, ``.csv`` and ``.tex``."""
    for suffix, render in ((".md", to_markdown), (".csv", to_csv), (".tex", to_latex)):
        with atomic_write(stem.parent / (stem.name + suffix)) as part:
            part.write_text(render(table), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m bhx_prep.report.tables``."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.report.tables",
        description="Write the table of one experiment and endpoint as Markdown, tidy CSV and LaTeX.",
        epilog="example: python -m bhx_prep.report.tables --experiment demo --endpoint-name diagnosis"
        " --endpoint diagnosis.json --metrics results/endpoints/diagnosis/fc_seed-*/metrics.json"
        " --out-stem results/tables/demo_diagnosis",
    )
    parser.add_argument("--experiment", required=True, help="name of the experiment")
    parser.add_argument("--endpoint-name", required=True, help="name of the endpoint")
    parser.add_argument(
        "--endpoint", required=True, type=json_file, metavar="FILE", help="its section as a JSON file"
    )
    parser.add_argument(
        "--metrics", required=True, nargs="+", type=Path, help="metrics.json files, all methods and seeds"
    )
    parser.add_argument("--out-stem", required=True, type=Path, help="where to write, without the extension")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _collect(arguments))


def _collect(arguments: argparse.Namespace) -> None:
    endpoint = read_section(EndpointSection, arguments.endpoint)
    scores = [_read_score(path) for path in arguments.metrics]
    table = build(arguments.experiment, arguments.endpoint_name, endpoint, scores)
    write(table, arguments.out_stem)
    logger.info("%s.md, .csv, .tex: %d metrics files", arguments.out_stem, len(scores))


def _read_score(path: Path) -> dict[str, Any]:
    try:
        score = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): evaluate again") from error
    missing = _SCORE_KEYS - set(score) if isinstance(score, dict) else _SCORE_KEYS
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}: evaluate again")
    return score


if __name__ == "__main__":
    sys.exit(main())
