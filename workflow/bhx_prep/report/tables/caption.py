"""Captions: what is needed to read a table, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from bhx_model.evaluation import methods
from bhx_model.evaluation.metrics import METRICS
from bhx_prep.report import published
from bhx_prep.report.tables.table import OVERLAP, THIS_RUN, RowKey, Table, row_name

SYNTHETIC = "SYNTHETIC DATA: this run's data are simulated; its numbers cannot be compared with the paper's."
CHOSEN_ON_TEST = (
    "CHOSEN ON TEST SUBJECTS, as the published code does: epochs and penalties were chosen by the scores of the "
    "split's test subjects, and its validation subjects are reported; nothing here stands beside rows that were "
    "chosen on validation."
)

PERMUTED = "PERMUTED LABELS ARE ABOVE CHANCE"
#: What nothing at all reaches, in the metric's unit, by metrics that need no class sizes.
CHANCE = {"auroc": 50.0, "pearson_r": 0.0}


def lead(table: Table) -> list[str]:
    """Text above the table: what is predicted, and warnings."""
    sentences = [f"Endpoint {table.endpoint} of cohort {table.cohort} ({table.task})."]
    if table.synthetic:
        sentences.append(SYNTHETIC)
    if table.planted:
        sentences.append(f"Planted in them, so that the right answer is known: {table.planted}.")
    if table.chosen_on == "test":
        sentences.append(CHOSEN_ON_TEST)
    known = {row_name(row): table.overlap(row) for row in table.rows(THIS_RUN) if table.overlap(row)}
    if known:
        sentences.append(overlap_warning(known, "test" if table.chosen_on == "val" else "validation"))
    sentences += _permuted_warning(table)
    sentences.append(f"{table.who}; {table.splits}.")
    return sentences


def _permuted_warning(table: Table) -> list[str]:
    """Warn where labels that were permuted are predicted: the splits, or what is read, give them away."""
    for metric, chance in CHANCE.items():
        entry = table.entry(RowKey(THIS_RUN, "", "permuted"), metric)
        if entry is not None and entry.ci_low is not None and entry.ci_low > chance:
            digits = table.decimals(metric)
            mean, low, high = (f"{value:.{digits}f}" for value in (entry.mean, entry.ci_low, entry.ci_high))
            return [
                f"{PERMUTED}: {METRICS[metric].label} {mean} ({low} to {high}). Either labels leak, or this is the one "
                "interval in some 40 that lies above chance by chance; other seeds tell."
            ]
    return []


def overlap_warning(known: Mapping[str, str], scored: str = "test") -> str:
    """Warn of rows whose weights were pretrained on scored subjects, or for which this is not known.

    Parameters
    ----------
    known : mapping
        Name of a row to how many of the scored subjects, ``2 of 14``, or ``unknown``.
    scored : str
        What these are called, ``validation`` where rows are chosen on test subjects.
    """
    return (
        f"{OVERLAP} {scored.upper()} SUBJECTS IN THE PRETRAINING of the scored weights: "
        + ", ".join(f"{row} {n}" for row, n in known.items())
        + "."
    )


def caption(table: Table) -> list[str]:
    """Return what is needed to read the table, in sentences, without those of `lead`."""
    chosen = "validation and scored on test" if table.chosen_on == "val" else "test and scored on validation"
    sentences = [
        f"This run: every row is of the same subjects and splits, chosen on {chosen} subjects. \u00b1 is the SD over "
        "splits, and says nothing of other people. The 95 % confidence interval in brackets is of people and splits "
        "together. Rows with fewer seeds than others are scored on some of the same splits.",
        f"Hash of the subjects: {table.people_sha256[:12]}; `bhx explain {table.name}:ROW` says how a row was made.",
    ]
    if table.rows("difference"):
        sentences.append(
            "Differences are to functional connectivity + linear model, split by split on the same subjects; p is corrected "
            "for the number of rows (Holm), metric by metric."
        )
    if table.rows("within sites"):
        sentences.append(
            "Within sites: every site's test subjects are scored by themselves, so that what differs between sites alone "
            "cannot score."
        )
    if table.rows("alike motion"):
        sentences.append(
            "Subjects who moved alike: test subjects in pairs of both classes with like mean framewise displacement; of "
            "other endpoints, within thirds of it. What motion alone tells cannot score."
        )
    lower = [METRICS[m].label for m in table.metrics if METRICS[m].better == "lower"]
    sentences.append(
        f"Lower is better for {', '.join(lower)}, higher for all else." if lower else "Higher is better."
    )
    sentences.append(
        "The mean-predictor baseline predicts the training mean for every subject; its Pearson's r is undefined."
        if table.kind == "regression"
        else "The majority-class baseline predicts the most frequent class of the training subjects"
        + ("; everybody of the positive class is what F1 is without data." if table.kind == "binary" else ".")
    )
    if any(row.method.endswith(methods.UNTRAINED) for row in table.rows(THIS_RUN)):
        sentences.append(
            "Untrained weights: the same encoder before its first step. The difference from them is what training adds, the "
            "connectivity code that it lets in among it."
        )
    return [*sentences, *_of_the_paper(table)]


def _of_the_paper(table: Table) -> list[str]:
    if not table.paper:
        if table.benchmark:
            return [
                f"The published values of {table.benchmark} do not stand beside synthetic subjects; "
                "`paper_beside_synthetic` of the endpoint shows them."
            ]
        return ["This endpoint is not in the paper."]
    block = published.endpoint(table.paper)
    used = {block.runs_source} | {e.source for e in table.entries if e.origin in ("published", "independent")}
    return [
        f"Published: BrainHarmonix, arXiv 2509.24693, {table.paper} ({block.task}), means over {block.runs} "
        f"runs [{block.runs_source}]. The paper itself was not available: numbers are second-hand; SDs and numbers of "
        "test subjects were not recovered. A dash: not a metric of the paper.",
        *sources(used),
    ]


def sources(used: set[str]) -> list[str]:
    """Say what the sources are whose tags occur in these strings, and how far they can be trusted."""
    return [
        f"[{tag}]: {about.text}. Trust: {about.trust}."
        for tag, about in published.sources().items()
        if any(tag in text for text in used)
    ]


def is_warning(sentence: str) -> bool:
    """Whether a sentence of `lead` is a warning, which is set in bold."""
    return sentence.startswith(("SYNTHETIC", "CHOSEN ON TEST", PERMUTED, OVERLAP))
