"""Match the rows of a decision table to scans."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bhx_prep.config.mistakes import nearest
from bhx_prep.io import bids_names, notes
from bhx_prep.review.decisions import Decision

#: Columns of the index that say what a scan is.
NAMING = ("subject", "session", "task", "run", "modality", "key")

#: A scan's modality and sample key, as all tables of a cohort have them.
Place = tuple[str, str]


def place_of(row: Mapping[str, Any]) -> Place:
    """Place of a row of the index, of the quality control or of the page; `run-01` is `run-1`."""
    return row["modality"], bids_names.same_scan(row["key"])


def find(
    decisions: Sequence[Decision], rows: Iterable[Mapping[str, Any]]
) -> tuple[dict[Place, Decision], list[str]]:
    """Scans of a cohort that its decisions name.

    Parameters
    ----------
    decisions : sequence of Decision
        Of one cohort.
    rows : iterable of mapping
        Columns `NAMING` of its index.

    Returns
    -------
    found : dict
        Place of a scan to what was decided of it.
    mistakes : list of str
        A sentence for every line that names no scan of the index, or several.
    """
    if not decisions:
        return {}, []
    subjects = {decision.subject for decision in decisions}
    known: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    labels = set()
    for row in rows:
        labels.add(row["subject"])
        if row["subject"] in subjects:
            known[row["subject"]].append(row)
    found: dict[Place, Decision] = {}
    mistakes = []
    for decision in decisions:
        places = _places(decision, known[decision.subject])
        if not places:
            mistakes.append(f"{_line(decision)}{_unknown(decision, known[decision.subject], labels)}")
        elif len(places) > 1:
            keys = ", ".join(sorted(key for _, key in places)[:2])
            mistakes.append(
                f"{_line(decision)}{decision.named} is {len(places)} scans ({keys}, ..): name one in a column key"
            )
        elif places[0] in found:
            mistakes.append(
                f"{_line(decision)}{decision.named} is decided by line {found[places[0]].line}, too: remove one"
            )
        else:
            found[places[0]] = decision
    return found, mistakes


def _places(decision: Decision, rows: Sequence[Mapping[str, Any]]) -> list[Place]:
    mine = [row for row in rows if row["modality"] == decision.modality]
    if decision.key:
        asked = bids_names.same_scan(decision.key)
        return sorted({place_of(row) for row in mine if bids_names.same_scan(row["key"]) == asked})
    places = sorted({place_of(row) for row in mine if _entities(row) == _entities(vars(decision))})
    if not places and decision.modality == "t1w" and len({row["session"] for row in mine}) > 1:
        # the one T1w that fMRIPrep merges of several sessions, which is no file of the raw data
        merged = decision.session == decision.run == ""
        return [("t1w", bids_names.sample_key(decision.cohort, decision.subject, {}))] if merged else []
    return places


def _entities(row: Mapping[str, Any]) -> tuple[str, ...]:
    run = bids_names.unpadded({"run": row["run"] or ""})["run"]
    # a T1w of no task is one of any
    task = row["task"] if row["modality"] == "bold" else ""
    return row["session"] or "", task or "", run


def _line(decision: Decision) -> str:
    return f"line {decision.line}: " if decision.line else ""


def _unknown(decision: Decision, rows: Sequence[Mapping[str, Any]], labels: set[str]) -> str:
    """Why a decision names no scan."""
    if not rows:
        same = [label for label in labels if label.lstrip("0") == decision.subject.lstrip("0")]
        hint = f"; did you mean {same[0]!r}?" if same else nearest(decision.subject, sorted(labels)[:2000])
        hint = hint if len(hint) < 60 else ""
        return f"there is no subject {notes.quote(decision.subject)} in cohort {decision.cohort}{hint}"
    mine = sorted({row["key"].partition("_")[2] for row in rows if row["modality"] == decision.modality})
    there = f"there is {', '.join(mine[:2])}{', ..' if len(mine) > 2 else ''}" if mine else "there is none"
    return f"unknown scan {decision.named}: of this subject and modality {there}"
