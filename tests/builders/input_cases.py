"""The catalogue of irregular inputs: what each is, what is expected, and what BHX does with it.

A case writes a small cohort, reads it the way the pipeline does, and returns what was seen. The modules
``cases_*.py`` beside this one hold the cases by area. They are run by the tests, by ``tests/benchmarks/inputs.py``,
which prints the catalogue, and they make the page ``docs/reference/inputs.md``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from small_templates import write_templates

from bhx_model.data import timeseries as stored_series
from bhx_model.errors import BhxError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.features import FeaturesSection
from bhx_prep.features import extract, store
from bhx_prep.features.scans import scans_of
from bhx_prep.ingest import index
from bhx_prep.ingest.stated_names import stated_names

#: `read`: the right values, nothing else to say. `note`: the right values, and a note. `refused`: one sentence.
Behaviour = Literal["read", "note", "refused"]

#: Notes of every table, and of every T1 where the templates have no head.
OF_EVERY_ROW = (extract.NO_MOTION, extract.NO_TEMPLATE)
#: Modules with cases.
MODULES = sorted(path.stem for path in Path(__file__).parent.glob("cases_*.py"))

SETTINGS = FeaturesSection(
    strategy="none", min_seconds=20, t1w_resolution_mm=4.0, t1w_shape=(40, 48, 40), harmonics=2, gradients=1
)


@dataclass(frozen=True)
class Seen:
    """What came of a case: a `Behaviour`, ``wrong values``, ``traceback``; and the sentence that a user reads."""

    behaviour: str
    text: str = ""


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes
    ----------
    area : str
        Heading in the catalogue.
    what : str
        The input, in a few words.
    expected : Behaviour
    says : str
        Regular expression that the sentence or note must contain; empty if nothing is said.
    run : callable
        Given an empty folder, writes the input there, reads it, returns what was seen.
    """

    area: str
    what: str
    expected: Behaviour
    says: str
    run: Callable[[Path], Seen]

    def holds(self, seen: Seen) -> bool:
        """Whether what was seen is what is expected, in one line of at most 300 characters."""
        short = len(seen.text) <= 300 and "\n" not in seen.text
        return seen.behaviour == self.expected and bool(re.search(self.says, seen.text)) and short


CASES: list[Case] = []


def case(
    area: str, what: str, expected: Behaviour, says: str = ""
) -> Callable[[Callable[[Path], Seen]], Callable[[Path], Seen]]:
    """Enter a function into the catalogue."""

    def enter(run: Callable[[Path], Seen]) -> Callable[[Path], Seen]:
        CASES.append(Case(area, what, expected, says, run))
        return run

    return enter


def catalogue() -> list[Case]:
    """All cases, by area."""
    for module in MODULES:
        importlib.import_module(module)
    return sorted(CASES, key=lambda c: c.area)


def markdown() -> str:
    """The page of the documentation: a table for every area."""
    lines = [
        "# Irregular inputs, and what BHX does with them",
        "",
        "Every line is a test (`tests/builders/cases_*.py`); `python tests/benchmarks/inputs.py` prints what each one gives",
        "today. *read*: the right values are read. *note*: the right values are read, and a note states what was assumed;",
        "`bhx index`, `bhx status` and the report's page count notes. *refused*: the scan, table or configuration is",
        "excluded with one sentence that states why.",
    ]
    area = ""
    for entry in catalogue():
        if entry.area != area:
            area = entry.area
            lines += ["", f"## {area}", "", "| input | behaviour |", "| --- | --- |"]
        lines.append(f"| {entry.what.replace('|', chr(92) + '|')} | {entry.expected} |")
    return "\n".join(lines) + "\n"


def run_case(entry: Case, folder: Path) -> Seen:
    """Run a case; an error that no sentence was written for is seen as a traceback."""
    try:
        return entry.run(folder)
    except BhxError as error:
        return Seen("refused", str(error))
    except Exception as error:
        return Seen("traceback", f"{type(error).__name__}: {error}")


def read_cohort(
    folder: Path, *, modality: str = "bold", settings: FeaturesSection = SETTINGS, **section: Any
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """QC rows of a cohort on the small atlas, and the series or volumes of its usable scans, by key.

    Parameters
    ----------
    folder : Path
        The cohort is in its folder ``data`` unless `section` names a `root`.
    section
        Keys of the cohort's section, `input` among them.
    """
    cohort = CohortSection(**{"root": folder / "data", **section})
    index_file = folder / "index" / "a.parquet"
    table = index.load(index_file.parent, "a", cohort, t1w_mm=settings.t1w_resolution_mm)
    subjects = sorted({row["subject"] for row in table.to_pylist()})
    scans = scans_of(index_file, "a", subjects, derivatives=None, space=cohort.space)
    work = extract.Extraction.prepare(settings, write_templates(folder / "templates"), stated_names(cohort))
    extract.extract(work, scans, "a", folder / "out")
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "out" / "qc.parquet").to_pylist()
    samples = store.read(folder / "out" / f"{modality}.arrow")[1]
    contents = {s.row["key"]: np.frombuffer(s.content, np.uint8) for s in samples}
    decode = stored_series.decode if modality == "bold" else (lambda content: content)
    return [r for r in rows if r["modality"] == modality], {k: decode(c) for k, c in contents.items()}


def seen_scan(
    folder: Path, truth: np.ndarray | None = None, *, modality: str = "bold", **section: Any
) -> Seen:
    """What becomes of a cohort of one scan whose right series are `truth` (R, T); any values are right when None."""
    rows, arrays = read_cohort(folder, modality=modality, **section)
    row = rows[0]
    if row["status"] != "ok":
        return Seen("refused", row["reason"])
    if truth is not None and not matches(arrays[row["key"]], truth):
        return Seen("wrong values", "; ".join(row["notes"]))
    said = [text for text in row["notes"] if text not in OF_EVERY_ROW]
    return Seen("note", "; ".join(said)) if said else Seen("read")


def matches(series: np.ndarray, truth: np.ndarray) -> bool:
    """Whether series are the right ones, as closely as shards hold them."""
    if series.shape != truth.shape:
        return False
    sd = np.nanstd(truth, axis=1, keepdims=True)
    return bool(np.nanmax(np.abs(series - truth) / np.where(sd > 0, sd, 1)) < 1e-3)
