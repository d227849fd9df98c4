"""Print a recipe on one page: the data set, access, folders, costs, and what is not known."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from bhx_model.evaluation.methods import METHODS
from bhx_prep.config.recipes import Recipe, Table
from bhx_prep.reproduction import costs
from bhx_prep.reproduction.costs import Cost
from bhx_prep.reproduction.plan import Plan

_WIDTH = 110


def text(plan: Plan, lacking: Sequence[str]) -> str:
    """The page.

    Parameters
    ----------
    plan : Plan
    lacking : sequence of str
        What of its data is missing.
    """
    return "\n".join(line for part in _parts(plan, lacking) for line in [*part, ""]).rstrip() + "\n"


def _parts(plan: Plan, lacking: Sequence[str]) -> Iterator[list[str]]:
    recipe = plan.recipe
    yield [f"# {recipe.title} ({plan.cohort}), from `input: {plan.input}`", *_paper(recipe)]
    yield ["## Access", *_items(_access(recipe))]
    yield ["## Download", *_items(step.replace("{data}", str(plan.data)) for step in plan.way.download)]
    there = "everything is there" if not lacking else "missing:"
    yield [f"## Where it has to be: {plan.data}, {there}", *_items(lacking)]
    yield ["## Cost", *_items(_cost(plan))]
    yield ["## Tables and labels", *_items(_tables(plan))]
    yield ["## Sites, times, exclusions, families", *_items(_facts(recipe))]
    if recipe.unknown:
        yield ["## Not known", *_items(recipe.unknown)]
    yield ["## Sources", *_items(f"[{key}] {source}" for key, source in recipe.sources.items())]


def _items(lines: Sequence[str] | Iterator[str]) -> list[str]:
    """Lines as a list; those that begin with blanks one level deeper."""
    rows = []
    for line in lines:
        indent = "  " if line.startswith(" ") else ""
        rows += textwrap.wrap(
            line.strip(),
            _WIDTH,
            initial_indent=f"{indent}- ",
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return rows


def _paper(recipe: Recipe) -> list[str]:
    paper = recipe.paper
    if paper.role == "none":
        return ["Not a cohort of the paper."]
    counts = [
        f"{n:,} {what}" if n is not None else f"{what} not recovered"
        for n, what in ((paper.subjects, "subjects"), (paper.t1w, "T1w images"), (paper.bold, "BOLD runs"))
    ]
    more = f"; {paper.text}" if paper.text else ""
    return textwrap.wrap(f"In the paper: {paper.role}; {', '.join(counts)}{more} [{paper.source}].", _WIDTH)


def _access(recipe: Recipe) -> Iterator[str]:
    yield f"{recipe.access.cost}: {recipe.access.where}"
    yield recipe.access.how
    yield f"terms: {recipe.terms}"
    if recipe.cite:
        yield f"cite {recipe.cite}"


def _cost(plan: Plan) -> Iterator[str]:
    size = plan.way.size
    if size is None:
        yield "not known, because it is not known how many scans there are: `bhx index` says, once they are there"
    else:
        yield (
            f"{size.subjects:,} subjects, {size.t1w:,} T1w images, {size.bold:,} BOLD runs of some {size.frames} "
            f"frames [{size.source}]"
        )
        cost = costs.of_cohort(size, plan.input, _rows(plan))
        yield from _amounts(cost)
        yield f"disk: {_rounded(cost.disk_gb)} GB of results beside the downloads"
    if plan.recipe.experiment is not None:
        preset = plan.recipe.experiment["preset"]
        yield from _amounts(costs.of_training(preset))
        yield f"the steps of preset {preset} are fixed: one cohort alone takes as many GPU-hours as the paper's two"
    elif plan.weights is not None:
        yield "GPU-hours: not known; the rows of a model were not measured on a GPU"
    else:
        yield "GPU-hours: 0; connectivity and floors need no GPU"


def _rows(plan: Plan) -> int:
    """Rows that need no model."""
    without = [name for name in plan.methods if not METHODS[name].needs_experiment]
    return len(without) if plan.recipe.endpoint is not None else 0


def _amounts(cost: Cost) -> Iterator[str]:
    for unit, hours in (("core-hours", cost.core_hours), ("GPU-hours", cost.gpu_hours)):
        if hours:
            steps = ", ".join(f"{name} {_rounded(value)}" for name, value in hours.items())
            yield f"{unit}: {_rounded(sum(hours.values()))} ({steps})"
    yield from cost.unmeasured
    yield f"rates: {'; '.join(cost.sources)}"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _tables(plan: Plan) -> Iterator[str]:
    recipe = plan.recipe
    for table in recipe.tables:
        yield _table(table)
        for column in table.columns:
            codes = "; ".join(f"{code} {meaning}" for code, meaning in column.values.items())
            counts = ", ".join(f"{value}: {n:,}" for value, n in column.counts.items())
            more = [f"codes: {codes}"] if codes else []
            more += [f"rows: {counts}"] if counts else []
            yield f"  `{column.name}`: {'; '.join([column.meaning, *more])}"
    endpoint = recipe.endpoint
    if endpoint is not None:
        column = endpoint["column"]
        spelt = f"`{column}`" if column else "a column that is not known (name it with --column)"
        classes = [
            c if isinstance(c, str) else f"{c['name']} = {'/'.join(map(str, c['values']))}"
            for c in endpoint.get("classes", ())
        ]
        yield f"rows: {', '.join(plan.methods)}"
        yield f"endpoint: {spelt}, {endpoint['kind']}{': ' + ', '.join(classes) if classes else ''}"
    yield f"unknown values: {', '.join(recipe.missing) or 'none of its own'}; ids: {' or '.join(recipe.id_columns)}"


def _table(table: Table) -> str:
    rows = f"{table.rows:,} rows" if table.rows is not None else "rows not counted"
    return f"{table.file}, {rows}: {table.holds} [{table.source}]"


def _facts(recipe: Recipe) -> Iterator[str]:
    yield recipe.sites
    times = recipe.repetition_times
    if times is None:
        yield "repetition times: each scan's own sidecar"
    else:
        sites = ", ".join(f"{site} {seconds:g}" for site, seconds in times.sites.items())
        others = f"; {len(times.subjects)} subjects have others" if times.subjects else ""
        yield f"repetition times, s: {sites}{others} [{times.source}]"
    for fact in recipe.exclusions:
        yield f"excluded: {fact.text} [{fact.source}]"
    family = recipe.family
    column = f"column `{family.column}`; " if family.column else ""
    source = f" [{family.source}]" if family.source else ""
    yield f"families: {column}{family.text}{source}"
