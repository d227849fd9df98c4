"""Describe the subjects of a table and their splits in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bhx_model.evaluation.prediction_file import people_sha256
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.report.tables.scores import Score


def who(endpoint: EndpointSection, scores: Sequence[Score]) -> str:
    """Say how many people there are, of which classes or values, of which cohorts, and how many are tested on."""
    label = _labels(scores)
    truth = np.array(list(label.values()))
    if endpoint.kind == "regression":
        parts = (
            f"{endpoint.column} {truth.mean():.3g} \u00b1 {truth.std(ddof=1):.2g}" if len(truth) > 1 else ""
        )
    else:
        parts = ", ".join(f"{int((truth == i).sum())} {c.name}" for i, c in enumerate(endpoint.classes))
    cohorts = sorted({person.partition("/")[0] for person in label})
    of = f" of {', '.join(cohorts)}" if len(cohorts) > 1 else ""
    tested = sorted({int(score["n_test"]) for score in scores})
    n = f"{tested[0]}" if len(tested) == 1 else f"{tested[0]} to {tested[-1]}"
    scored = "tested on" if scores[0].chosen_on == "val" else "validation subjects, who are scored,"
    return f"{len(label):,} subjects{of} ({parts}), {n} of them {scored} in each split"


def sha256(scores: Sequence[Score]) -> str:
    """Hash of who they are, over all splits."""
    return people_sha256(_labels(scores))


def _labels(scores: Sequence[Score]) -> dict[str, float]:
    """Label of everybody, by ``cohort/subject``; a split reads its subjects once, whatever the number of its rows."""
    found: dict[str, float] = {}
    seen = set()
    for score in scores:
        if score["seed"] not in seen:
            seen.add(score["seed"])
            found |= dict(
                zip(score.predictions.people.tolist(), score.predictions.truth.tolist(), strict=True)
            )
    return found


def splits(endpoint: EndpointSection, scores: Sequence[Score]) -> str:
    """Say how the people are split, and how often."""
    n = len({score["seed"] for score in scores})
    number = "1 split" if n == 1 else f"{n} splits"
    section = endpoint.splits
    if section.scheme == "leave-one-site-out":
        column = section.site or endpoint.stratify[0]
        text = f"{number}, each of which tests one site (column {column})"
    elif section.scheme == "file":
        text = f"{number} of {section.file.name if section.file else 'a file'}"
    else:
        drawn = section.rules.shares[:2] if endpoint.test_on else section.rules.shares
        shares = ":".join(f"{100 * share / sum(drawn):.3g}" for share in drawn)
        parts = "training and validation" if endpoint.test_on else "training, validation and test"
        balanced = ", ".join(["label", *endpoint.stratify])
        text = f"{number} at random, by subject, {shares} for {parts}, balanced over {balanced}"
    others = [one.cohort for one in endpoint.test_on]
    return f"{text}; all subjects of {', '.join(others)} are tested on" if others else text
