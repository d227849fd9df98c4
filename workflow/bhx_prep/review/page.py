"""The page of a cohort: its scans as a table to sort and filter, their pictures, and decisions to download."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import jinja2
import markupsafe

from bhx_prep.io.script_json import script_json
from bhx_prep.review.drawings import KINDS

Row = Mapping[str, Any]

#: Columns of text, in the order of the page.
TEXTS: Final = {
    "subject": "label",
    "session": "label",
    "task": "label",
    "run": "label",
    "modality": "bold or t1w",
    "state": "whether the scan is used",
}
#: What of a row the page shows beside its table.
_DETAILS: Final = (
    "key",
    "reason",
    "overruled",
    "notes",
    "decision",
    "who",
    "when",
    "why",
    "batch",
    "ambiguous",
)
#: Folders in a reason or note, of which the file's name is enough: they may name people.
_FOLDERS: Final = re.compile(r"(?<![\w<])(?:~?/(?:[^\s/:;,()'\"]+/)+|(?:[\w.+@-]+/){2,})")


@dataclass(frozen=True)
class Reports:
    """Pages that fMRIPrep wrote: their folder as an address from this page, and subject to their names."""

    folder: str = ""
    of: Mapping[str, Sequence[str]] = field(default_factory=dict)


def page(
    cohort: str,
    rows: Sequence[Row],
    numbers: Mapping[str, str],
    reports: Reports,
    *,
    synthetic: bool,
) -> str:
    """The page as HTML.

    Parameters
    ----------
    cohort : str
    rows : sequence of mappings
        A scan each: `TEXTS`, numbers, and what is shown of a scan that is chosen.
    numbers : mapping
        Names of the numbers, in their order, to what they are.
    reports : Reports
    synthetic : bool
        Whether any of the data are simulated.

    Returns
    -------
    str
        Without any address of another machine; pictures are in the files of `bundle` beside it.
    """
    columns = [{"name": name, "help": text, "number": False} for name, text in TEXTS.items()]
    columns += [{"name": name, "help": text, "number": True} for name, text in numbers.items()]
    data = {
        "cohort": cohort,
        "kinds": list(KINDS),
        "columns": columns,
        "fields": [*TEXTS, *_DETAILS, *numbers],
        "rows": [_row(row, numbers) for row in rows],
        "reports": {
            subject: [[name, quote(f"{reports.folder}/{name}")] for name in names]
            for subject, names in reports.of.items()
        },
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bhx_prep.review", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2").render(
        cohort=cohort,
        sentence=_sentence(rows),
        synthetic=synthetic,
        data=script_json(data),
        script=markupsafe.Markup(Path(__file__).with_name("page.js").read_text(encoding="utf-8")),
    )


def _row(row: Row, numbers: Iterable[str]) -> list[Any]:
    """What the page is given of a scan, in the order of its fields, whose names it need not hold again and again."""
    shown = {name: row.get(name) for name in (*TEXTS, *_DETAILS)}
    for name in ("reason", "overruled"):
        shown[name] = without_folders(shown[name])
    shown["notes"] = [without_folders(note) for note in shown["notes"] or ()]
    texts = [value if value not in ("", [], False) else None for value in shown.values()]
    return [*texts, *(_rounded(row.get(name)) for name in numbers)]


def without_folders(text: str | None) -> str | None:
    """A sentence in which files are named without their folders."""
    return None if text is None else _FOLDERS.sub("", text)


def _rounded(value: Any) -> float | int | None:
    """A number as the page needs it: a large cohort has millions of them."""
    if value is None or not math.isfinite(value):
        return None
    number = float(f"{value:.6g}")
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _sentence(rows: Sequence[Row]) -> str:
    states: dict[str, int] = {}
    for row in rows:
        states[row["state"]] = states.get(row["state"], 0) + 1
    parts = [f"{n:,} {state}" for state, n in sorted(states.items(), key=lambda item: (-item[1], item[0]))]
    return f"{len(rows):,} scans of {len({row['subject'] for row in rows}):,} subjects: {', '.join(parts)}."
