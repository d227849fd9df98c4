"""Tables 1 and 2 of the paper as text."""

from __future__ import annotations

from collections.abc import Sequence

from bhx_model.evaluation.metrics import METRICS
from bhx_prep.config.experiments import REFERENCE
from bhx_prep.report import published
from bhx_prep.report.tables.caption import CHOSEN_ON_TEST, overlap_warning, sources
from bhx_prep.report.tables.sheet import Group, Sheet
from bhx_prep.report.tables.study_table import TITLES, Line
from bhx_prep.report.tables.table import OVERLAP

#: Decimals of metrics that are no share.
DECIMALS = 2


def study_sheet(name: str, lines: Sequence[Line]) -> Sheet:
    """Lay one of the paper's tables out.

    Parameters
    ----------
    name : str
        Of the table, with the suffix of rows chosen on test subjects where they are.
    lines : sequence of Line
    """
    title, of_test = TITLES[name.removesuffix(REFERENCE)], name.endswith(REFERENCE)
    endpoints = list(dict.fromkeys(line.endpoint for line in lines))
    lead = [f"{title}, of the BrainHarmonix paper (arXiv 2509.24693) and of this run."]
    synthetic = sorted({line.endpoint for line in lines if line.synthetic})
    if synthetic:
        lead.append(
            f"SYNTHETIC DATA: the subjects of {', '.join(synthetic)} are simulated; these numbers cannot be compared with "
            "the paper's."
        )
    if of_test:
        lead.append(CHOSEN_ON_TEST)
    known = {f"{line.endpoint}:{line.row}": line.overlap for line in lines if line.overlap}
    if known:
        lead.append(overlap_warning(known, "validation" if of_test else "test"))
    return Sheet(
        name=name,
        title=title + (", chosen on test subjects" if of_test else ""),
        lead=tuple(lead),
        headings=(
            "Model",
            "This run's row",
            "Metric",
            "Paper",
            "Measured by others",
            "This run (95 % CI)",
            "This run - paper",
            "Of the paper's cells: true positives, share of the positive class",
        ),
        n_left=3,
        groups=tuple(_group([line for line in lines if line.endpoint == name]) for name in endpoints),
        caption=tuple(_caption(lines)),
    )


def _group(lines: Sequence[Line]) -> Group:
    first = lines[0]
    asked = (
        ""
        if any(line.published for line in lines)
        else "; no published value stands beside synthetic subjects"
    )
    synthetic = f"; synthetic subjects{asked}" if first.synthetic else ""
    task = published.endpoint(first.benchmark).task
    heading = f"{first.benchmark} ({task}): endpoint {first.endpoint}, {first.who}; {first.splits}{synthetic}"
    rows, last = [], None
    for line in lines:
        rows.append(
            (
                line.label if line.row != last else "",
                line.method + (f" {OVERLAP}" if line.overlap else "") if line.row != last else "",
                METRICS[line.metric].heading,
                _published(line),
                _independent(line),
                _estimate(line, line.this_run, line.ci_low, line.ci_high, "") or line.note or "-",
                _estimate(line, line.difference, line.difference_low, line.difference_high, "+") or "-",
                _positive(line),
            )
        )
        last = line.row
    return Group(heading, tuple(rows))


def _published(line: Line) -> str:
    if line.follows:
        return f"{line.published} *"
    return line.published or line.published_note or "-"


def _independent(line: Line) -> str:
    if not line.independent:
        return "-"
    return f"{line.independent} [{line.independent_source}]" + (" **" if line.independent_task else "")


def _estimate(line: Line, mean: float | None, low: float | None, high: float | None, sign: str) -> str:
    if mean is None:
        return ""
    decimals = METRICS[line.metric].decimals
    digits = DECIMALS if decimals is None else decimals
    text = f"{mean:{sign}.{digits}f}"
    return (
        text if low is None or high is None else f"{text} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"
    )


def _positive(line: Line) -> str:
    if line.true_positives is None:
        return ""
    text = f"{line.true_positives:.1f} %; {line.positive_low:.1f} to {line.positive_high:.1f} %"
    return f"{text}; {line.reading}" if line.reading else text


def _caption(lines: Sequence[Line]) -> list[str]:
    chosen = "test" if lines and lines[0].chosen_on == "test" else "validation"
    sentences = [
        f"This run: mean over splits; epochs and penalties were chosen on {chosen} subjects; the 95 % confidence interval "
        "is of people and splits together. Of several methods of one stage the row takes the first that is there, "
        "fine-tuned before trained in epochs before linear, never the best; each endpoint's table has them all.",
        "`bhx explain TABLE:ENDPOINT:ROW` says how a row of this run was made.",
    ]
    if any(line.published for line in lines):
        sentences += [
            "Paper: second-hand, for the paper was not available; no spread was recovered, so the difference holds this "
            "run's uncertainty alone, and its people, preprocessing and splits are others.",
        ]
    if any(line.true_positives is not None for line in lines):
        sentences.append(
            "Accuracy and F1 together give the share of true positives among all subjects, (1 - accuracy) F1 / (2 (1 - "
            "F1)); the class whose F1 it is has at least that share, and at most that and all errors. It need not be the "
            "patients. Approximate: the paper's numbers are means over runs."
        )
        swapped = {
            (line.benchmark, published.endpoint(line.benchmark).people_source)
            for line in lines
            if "too few" in line.reading or "too many" in line.reading
        }
        sentences += [
            f"{benchmark}: either the positive class is the one that is possible, or the counts of [{source}] are swapped."
            for benchmark, source in sorted(swapped)
        ]
    if any(line.follows for line in lines):
        sentences.append(
            "*: not published; follows from the published accuracy and F1. It is the F1 of the other class than the "
            "published one, whichever that is, and the mean of both."
        )
    tasks = {
        f"{line.benchmark}: {line.independent_task} [{line.independent_source}]"
        for line in lines
        if line.independent_task
    }
    if tasks:
        sentences.append(f"**: another task on the same cohort, no comparison: {'; '.join(sorted(tasks))}.")
    used = {line.published_source for line in lines} | {line.independent_source for line in lines}
    used |= {published.endpoint(line.benchmark).people_source for line in lines if line.reading}
    return [*sentences, *sources(used - {""})]
