"""Manual decisions on scans: a table with a line per scan that is excluded or kept, overriding its measures.

The table is the user's and is versioned with the study. Here it is read, checked and written; `bhx_prep.review.decided`
finds the scans that its lines name. Snakemake reads it whenever it plans, so nothing heavy is imported.
"""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import ConfigError
from bhx_prep.config.mistakes import nearest
from bhx_prep.io import bids_names, notes

#: Columns of the table, as it is written; a table may have them in any order.
COLUMNS: Final = (
    "cohort", "subject", "session", "task", "run", "modality", "decision", "who", "when", "why"
)  # fmt: skip
#: A column more, where the ten do not tell two scans apart, which differ in ``acq-`` say: the sample key.
KEY: Final = "key"
#: What may be decided.
DECISIONS: Final = ("exclude", "keep")
MODALITIES: Final = ("bold", "t1w")
#: Cells that say that a scan has no such entity.
_NONE: Final = frozenset({"", "n/a", "na", "nan", "none", "null"})
#: Characters of `why` that a reason quotes.
_WHY: Final = 120
#: Mistakes that are listed at most.
_MOST: Final = 12

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")


@dataclass(frozen=True)
class Decision:
    """A line of the table.

    Attributes
    ----------
    cohort, subject, session, task, run, modality : str
        The scan, by labels without their entity; empty where it has no such entity.
    decision : str
        One of `DECISIONS`.
    who, when, why : str
        Who decided, on which day (ISO 8601), and for what reason.
    key : str
        Sample key, where the others do not tell scans apart; else empty.
    line : int
        Of the file, for messages; 0 where it is from none.
    """

    cohort: str
    subject: str
    session: str
    task: str
    run: str
    modality: str
    decision: str
    who: str
    when: str
    why: str
    key: str = ""
    line: int = 0

    @property
    def scan(self) -> tuple[str, ...]:
        """What it is about: the same for two lines on one scan, however they write its run."""
        run = bids_names.unpadded({"run": self.run})["run"]
        key = bids_names.same_scan(self.key)
        return self.cohort, self.subject, self.session, self.task, run, self.modality, key

    @property
    def named(self) -> str:
        """The scan in words."""
        entities = (("sub", self.subject), ("ses", self.session), ("task", self.task), ("run", self.run))
        stem = "_".join(f"{entity}-{value}" for entity, value in entities if value)
        return f"{self.cohort} {self.key or stem} {self.modality}"

    @property
    def reason(self) -> str:
        """`why`, short enough for a row's reason."""
        return notes.brief(self.why, _WHY)


def read(path: Path, cohorts: Iterable[str]) -> list[Decision]:
    """Read the table; no decisions where there is no file.

    Parameters
    ----------
    path : Path
    cohorts : iterable of str
        Names of the study's cohorts.

    Raises
    ------
    ConfigError
        With every mistake, one a line: columns, unknown cohorts and decisions, scans that are decided twice.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8: save it as tab-separated text, UTF-8") from error
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}): correct `qc_decisions` in the configuration"
        raise ConfigError(msg) from error
    found, mistakes = parse(text, cohorts)
    if mistakes:
        raise mistaken(path, mistakes)
    return found


def mistaken(path: Path, mistakes: Sequence[str]) -> ConfigError:
    """The error of a table with mistakes, which lists them."""
    more = [f"  and {len(mistakes) - _MOST} more"] if len(mistakes) > _MOST else []
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    lines = [f"{count} in {path}:", *(f"  {line}" for line in mistakes[:_MOST]), *more]
    return ConfigError("\n".join(lines), mistakes)


def parse(text: str, cohorts: Iterable[str]) -> tuple[list[Decision], list[str]]:
    """Decisions of a table's text, and its mistakes, each a sentence."""
    names = tuple(cohorts)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        return [], []
    try:
        cells = list(csv.reader([line for _, line in rows], delimiter="\t", strict=True))
    except csv.Error as error:
        return [], [f"a cell's quotes do not close ({error}): write cells without quotes"]
    if len(cells) != len(rows):
        return [], ["the quotes of a cell close in another line only: write each scan in one line"]
    header = [cell.strip().casefold() for cell in cells[0]]
    if mistake := _columns(header, rows[0][1]):
        return [], [mistake]
    found, mistakes = [], []
    for (number, _), row in zip(rows[1:], cells[1:], strict=True):
        values = [cell.strip() for cell in row]
        if len(values) > len(header) and any(values[len(header) :]):
            mistakes.append(
                f"line {number} has {len(values)} cells, the first line {len(header)}: remove tabs"
            )
            continue
        values += [""] * (len(header) - len(values))
        decision = _decision(dict(zip(header, values, strict=False)), number)
        wrong = _wrong(decision, names)
        mistakes += [f"line {number}: {mistake}" for mistake in wrong]
        found += [] if wrong else [decision]
    return found, mistakes + _twice(found)


def _columns(header: Sequence[str], line: str) -> str:
    """What is wrong with the first line, if anything."""
    expected = f"write the columns {', '.join(COLUMNS)}, separated by tabs"
    if len(header) == 1 and len(re.split(r"[,;]|\s{2,}| ", line)) > 1:
        return f"its first line has no tabs: {expected}"
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name and name not in (*COLUMNS, KEY)]
    double = sorted({name for name in header if header.count(name) > 1 and name})
    if double:
        return f"column {double[0]} is there twice: {expected}"
    if missing:
        instead = f"; there is {notes.quote(unknown[0])}" if unknown else ""
        return f"column {', '.join(missing[:3])} is missing{instead}: {expected}"
    if unknown:
        return f"unknown column {notes.quote(unknown[0])}: remove it; {expected}"
    return ""


def _decision(row: dict[str, str], line: int) -> Decision:
    cells = {}
    for name in (*COLUMNS, KEY):
        value = row.get(name, "")
        if name in ("session", "task", "run", KEY, "who", "when") and value.casefold() in _NONE:
            value = ""
        cells[name] = value
    for name, entity in (("subject", "sub"), ("session", "ses"), ("task", "task"), ("run", "run")):
        cells[name] = cells[name].removeprefix(f"{entity}-")
    for name in ("modality", "decision"):
        cells[name] = cells[name].casefold()
    return Decision(**cells, line=line)


def _wrong(decision: Decision, cohorts: Sequence[str]) -> list[str]:
    """Mistakes of a line."""
    found = []
    if decision.cohort not in cohorts:
        hint = nearest(decision.cohort, list(cohorts))
        found.append(f"unknown cohort {notes.quote(decision.cohort)}{hint}")
    if not decision.subject:
        found.append("its subject is missing: write the label without sub-")
    if decision.modality not in MODALITIES:
        found.append(f"unknown modality {notes.quote(decision.modality)}: write bold or t1w")
    if decision.decision not in DECISIONS:
        found.append(f"unknown decision {notes.quote(decision.decision)}: write exclude or keep")
    if not decision.why:
        found.append("it does not say why: fill in the column why, which is shown wherever the scan is")
    if decision.when and not _is_date(decision.when):
        found.append(f"when is {notes.quote(decision.when)}: write a date as 2026-01-31")
    return found


def _is_date(text: str) -> bool:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    return bool(_DATE.fullmatch(text))


def _twice(decisions: Iterable[Decision]) -> list[str]:
    """A sentence for every line on a scan that an earlier line decides."""
    seen: dict[tuple[str, ...], Decision] = {}
    found = []
    for decision in decisions:
        first = seen.setdefault(decision.scan, decision)
        if first is decision:
            continue
        lines = f"lines {first.line} and {decision.line}"
        if first.decision == decision.decision:
            found.append(f"{lines} decide the same on {decision.named}: remove one")
        else:
            found.append(
                f"{lines} contradict each other on {decision.named} ({first.decision}, {decision.decision}): remove one"
            )
    return found


def to_text(decisions: Iterable[Decision]) -> str:
    """The table of some decisions, sorted by scan; a column `KEY` where one of them needs it."""
    rows = sorted(decisions, key=lambda decision: decision.scan)
    names = [field.name for field in fields(Decision)][:-1]
    with_key = any(row.key for row in rows)
    names = names if with_key else names[:-1]
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        # a cell holds one line of text, whatever was typed
        writer.writerow([" ".join(str(cell).split()) for cell in astuple(row)[: len(names)]])
    return out.getvalue()


def write(path: Path, decisions: Iterable[Decision]) -> None:
    """Write the table; an empty one has its first line alone."""
    text = to_text(decisions)
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
