"""Tables 1 and 2 of the paper: its numbers, those of other publications, and this run's, endpoint by endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Literal

from bhx_model.evaluation.methods import METHODS, UNTRAINED
from bhx_model.evaluation.metrics import METRICS
from bhx_prep.report import positive_class, published
from bhx_prep.report.tables.table import THIS_RUN, RowKey, Table, row_name
from bhx_prep.report.tables.tidy_csv import render

#: Titles of the paper's tables.
TITLES = {
    "table1": "Table 1: neurodevelopmental disorders",
    "table2": "Table 2: neurodegenerative disorders and cognition",
}


#: Metrics that follow from an accuracy and an F1.
_DERIVED = ("f1_negative", "macro_f1")


@dataclass(frozen=True)
class Model:
    """A row of the paper's tables: its names in the paper and in other publications, and the method of this run for it.

    `stage` and `method` name this run's methods: all that read a stage, or one alone.
    """

    key: str
    label: str
    paper: str = ""
    others: str = ""
    stage: str = ""
    method: str = ""

    def candidates(self) -> list[str]:
        """Methods of this run that may represent it: the first that exists is used, never the best.

        What is trained as a whole comes first, as in the paper, then what is trained in epochs, then linear models.
        """
        if self.method:
            return [self.method]
        of = [
            m
            for m in METHODS.values()
            if self.stage and m.stage == self.stage and not m.name.endswith(UNTRAINED)
        ]
        order = {m.name: (m.name != "finetune", not m.has_epochs, i) for i, m in enumerate(of)}
        return sorted(order, key=lambda one: order[one])


#: Rows with a counterpart in the paper or elsewhere; further methods that need no experiment follow in their own order.
MODELS = (
    Model("brainnetcnn", "BrainNetCNN", paper="BrainNetCNN", method="brainnetcnn"),
    Model("braingnn", "BrainGNN", paper="BrainGNN"),
    Model("brainnettf", "BrainNetTF", paper="BrainNetTF", method="brainnettf"),
    Model("brainmass", "BrainMass", paper="BrainMass", others="BrainMass"),
    Model("brainlm", "BrainLM", paper="BrainLM", others="BrainLM 111M"),
    Model("brainjepa", "Brain-JEPA", paper="Brain-JEPA", others="Brain-JEPA"),
    Model("brainmvp", "BrainMVP", paper="BrainMVP"),
    Model("structure", "BrainHarmonix-S", paper="BrainHarmonix-S", stage="structure"),
    Model("function", "BrainHarmonix-F", paper="BrainHarmonix-F", others="BrainHarmonix-F", stage="function"),
    Model("fusion", "BrainHarmonix", paper="BrainHarmonix", stage="fusion"),
    Model("fc", "Functional connectivity", others="functional connectivity", method="fc"),
    Model("constant", "Constant prediction", others="majority class", method="constant"),
)


@dataclass(frozen=True)
class Line:
    """One row of one endpoint by one metric: a line of the tidy CSV. Units as the metric's; empty or None: not known.

    `published` and `independent` are as their sources print them, `published_note` says why there is none, `follows`
    that the published number is none but follows from the others. `elsewhere` names the rows of the endpoint's table that
    both are from. `difference` is this run's minus the published one, whose own spread is not known.
    """

    endpoint: str
    cohort: str
    benchmark: str
    who: str
    splits: str
    synthetic: bool
    chosen_on: Literal["val", "test"]
    row: str
    label: str
    method: str
    elsewhere: str
    metric: str
    unit: str
    published: str
    follows: bool
    published_source: str
    independent: str
    independent_source: str
    independent_task: str
    this_run: float | None
    ci_low: float | None
    ci_high: float | None
    n_seeds: int | None
    n_test: str
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    true_positives: float | None
    positive_low: float | None
    positive_high: float | None
    reading: str
    overlap: str
    note: str
    published_note: str


def study_lines(benchmarks: Sequence[str], tables: Sequence[Table]) -> list[Line]:
    """Put the tables of endpoints that are the paper's side by side.

    Parameters
    ----------
    benchmarks : sequence of str
        The paper's names of the endpoints, in the order of the table.
    tables : sequence of Table
        Of this study's endpoints; those that are none of them are not used.
    """
    lines = []
    for benchmark in benchmarks:
        for table in tables:
            if table.benchmark == benchmark:
                for model, row in _rows(table):
                    of_row = [_line(table, model, row, metric) for metric in metrics_of(table)]
                    lines += [
                        line
                        for line in of_row
                        if line.metric not in _DERIVED or line.method or line.published
                    ]
    return lines


def metrics_of(table: Table) -> list[str]:
    """Metrics of the paper's cells, and the F1 of the other class and the mean of both, where this run has them."""
    shown = list(published.endpoint(table.benchmark).metrics)
    if table.kind == "binary":
        shown += [metric for metric in _DERIVED if metric in table.metrics]
    return shown


def _rows(table: Table) -> list[tuple[Model, RowKey | None]]:
    """Rows of an endpoint: a model with each experiment's row for it, or with none; then all other baselines."""
    ours = {(row.experiment, row.method): row for row in table.rows(THIS_RUN)}
    experiments = sorted({experiment for experiment, _ in ours if experiment})
    rows: list[tuple[Model, RowKey | None]] = []
    for model in MODELS:
        found = []
        for experiment in ["", *experiments]:
            there = [ours[experiment, m] for m in model.candidates() if (experiment, m) in ours]
            found += there[:1]
        rows += [(model, row) for row in found] or [(model, None)]
    taken = {model.method for model in MODELS}
    for row in ours.values():
        if not row.experiment and row.method not in taken:
            rows.append((Model(row.method, table.label(row), method=row.method), row))
    return [
        (model, row)
        for model, row in rows
        if row is not None or model.paper or (model.others and table.paper)
    ]


def _line(table: Table, model: Model, row: RowKey | None, metric: str) -> Line:
    entry = table.entry(row, metric) if row is not None else None
    paper, follows, source, note, inverted = _published(table, model, metric)
    other = _independent(table, model, metric)
    known = (
        entry is not None and entry.mean is not None and paper.replace(".", "", 1).isdigit() and not follows
    )
    value = float(paper) if known else 0.0

    def minus(number: float | None) -> float | None:
        return number - value if known and number is not None else None

    return Line(
        endpoint=table.endpoint,
        cohort=table.cohort,
        benchmark=table.benchmark,
        who=table.who,
        splits=table.splits,
        synthetic=table.synthetic,
        chosen_on=table.chosen_on,
        row=_key(model, row),
        label=model.label,
        method=row_name(row) if row is not None else "",
        elsewhere="; ".join(_names_elsewhere(table, model)),
        metric=metric,
        unit=METRICS[metric].unit,
        published=paper,
        follows=follows,
        published_source=source,
        independent=other.printed(metric) if other else "",
        independent_source=other.source if other else "",
        independent_task=other.task if other else "",
        this_run=entry.mean if entry else None,
        ci_low=entry.ci_low if entry else None,
        ci_high=entry.ci_high if entry else None,
        n_seeds=entry.n_seeds if entry else None,
        n_test=entry.n_test if entry else "",
        difference=minus(entry.mean if entry else None),
        difference_low=minus(entry.ci_low if entry else None),
        difference_high=minus(entry.ci_high if entry else None),
        true_positives=100 * inverted.true_positives if inverted else None,
        positive_low=100 * inverted.smallest if inverted else None,
        positive_high=100 * inverted.largest if inverted else None,
        reading=positive_class.readings(inverted, people)
        if inverted and (people := published.endpoint(table.benchmark).people)
        else "",
        overlap=entry.overlap if entry else "",
        note=entry.note if entry else "",
        published_note=note,
    )


def _key(model: Model, row: RowKey | None) -> str:
    """Name of a row, for `bhx explain`: ``fusion``, and ``experiment/fusion`` of an experiment."""
    return f"{row.experiment}/{model.key}" if row is not None and row.experiment else model.key


def _published(
    table: Table, model: Model, metric: str
) -> tuple[str, bool, str, str, positive_class.PositiveClass | None]:
    """A published number, whether it follows from others, its source, why there is none, and the positive class."""
    if not table.paper or not model.paper:
        return "", False, "", "", None
    block = published.endpoint(table.paper)
    row = next((r for r in block.rows if r.method.partition(" (")[0] == model.paper), None)
    if row is None:
        return "", False, "", published.NOT_RECOVERED, None
    found = None
    if table.kind == "binary" and {"accuracy", "f1"} <= row.values.keys():
        found = positive_class.invert(float(row.values["accuracy"]) / 100, float(row.values["f1"]) / 100)
    if metric in _DERIVED:
        if found is None:
            return "", False, "", "", None
        f1 = float(row.values["f1"])
        value = 100 * found.f1_other if metric == "f1_negative" else (100 * found.f1_other + f1) / 2
        return f"{value:.1f}", True, row.source, "", None
    shown = found if metric == "f1" else None
    if metric not in row.values:
        return "", False, row.source, row.note, None
    return row.values[metric], False, row.source, "", shown


def _names_elsewhere(table: Table, model: Model) -> list[str]:
    """Names of the paper's row and of others' rows, as `bhx explain` has them."""
    if not table.paper:
        return []
    paper = [row.method for row in table.rows("published") if row.method.partition(" (")[0] == model.paper]
    others = {
        f"{entry.method} [{entry.source}]": None
        for entry in table.entries
        if entry.origin == "independent" and model.others and entry.method.partition(" (")[0] == model.others
    }
    return [*(paper if model.paper else []), *others]


def _independent(table: Table, model: Model, metric: str) -> published.IndependentRow | None:
    """What others measured, of the paper's task if they did, else of another one of the same subjects."""
    if not table.paper or not model.others:
        return None
    found = [
        row
        for row in published.independent(table.paper)
        if row.method == model.others and metric in row.values
    ]
    return next(iter(sorted(found, key=lambda row: bool(row.task))), None)


_COLUMNS = tuple(f.name for f in fields(Line))


def to_csv(lines: Sequence[Line]) -> str:
    """Render as tidy CSV, one line per row, endpoint and metric."""
    return render(_COLUMNS, (astuple(line) for line in lines))
