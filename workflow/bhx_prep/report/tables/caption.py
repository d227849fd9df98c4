"""What is needed to read a table, in sentences."""

from __future__ import annotations

from bhx_model.evaluation import methods
from bhx_model.evaluation.metrics import METRICS
from bhx_prep.report import published
from bhx_prep.report.tables.table import THIS_RUN, Table

PLUS_MINUS = "\u00b1"


def lead(table: Table) -> list[str]:
    """Return what must stand over the table: who is predicted, and warnings of how."""
    sentences = [f"Endpoint {table.endpoint} of cohort {table.cohort} ({table.task})."]
    if table.synthetic:
        sentences.append(
            "SYNTHETIC DATA: this run's data are simulated; its numbers cannot be compared with the paper's."
        )
    if table.planted:
        sentences.append(f"Planted in them, so that the right answer is known: {table.planted}.")
    if table.chosen_on == "test":
        sentences.append(
            "CHOSEN ON TEST SUBJECTS, as the published code does: epochs and penalties were chosen by the scores of the "
            "split's test subjects, and its validation subjects are reported; nothing here stands beside rows that were "
            "chosen on validation."
        )
    return sentences


def caption(table: Table) -> list[str]:
    """Return what is needed to read the table, in sentences, without those of `lead`."""
    sentences = []
    seeds = max((e.n_seeds or 0 for e in table.entries if e.origin == THIS_RUN), default=0)
    chosen = "validation, scored on test" if table.chosen_on == "val" else "test, scored on validation"
    if seeds > 1:
        sentences.append(
            f"This run: mean {PLUS_MINUS} SD over random splits of the subjects (one per seed; models selected on "
            f"{chosen}), then the 95 % confidence interval of that mean (Student's t with n - 1 "
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
    if any(row.method.endswith(methods.UNTRAINED) for row in table.rows(THIS_RUN)):
        sentences.append(
            "Untrained weights: the same encoder before its first step. The difference from them is what training adds, the "
            "connectivity code that it lets in among it."
        )
    return [*sentences, *_of_the_paper(table)]


def _of_the_paper(table: Table) -> list[str]:
    if not table.paper:
        return ["This endpoint is not in the paper."]
    block = published.endpoint(table.paper)
    used = {block.runs_source} | {t for row in block.rows for t in published.sources() if t in row.source}
    return [
        f"Published: BrainHarmonix, arXiv 2509.24693, {table.paper} ({block.task}), means over {block.runs} "
        f"runs [{block.runs_source}]. The paper itself was not available: numbers are second-hand; SDs and numbers of "
        "test subjects were not recovered. A dash: not a metric of the paper.",
        *(f"[{tag}]: {text}." for tag, text in published.sources().items() if tag in used),
    ]


def is_warning(sentence: str) -> bool:
    """Whether a sentence of `lead` is a warning, which is set in bold."""
    return sentence.startswith(("SYNTHETIC", "CHOSEN ON TEST"))
