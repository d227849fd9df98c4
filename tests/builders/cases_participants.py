"""Cases of tables of phenotypes: how they are saved, which ids they have, and what their cells mean."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from input_cases import Seen, case

from bhx_model.errors import ConfigError
from bhx_prep.config import config
from bhx_prep.config.cohorts import TableSettings
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.evaluation import splits
from bhx_prep.evaluation.endpoint_labels import read_labels
from bhx_prep.evaluation.phenotype_checks import check_tables
from bhx_prep.ingest import participants

AREA = "Participants"
SUBJECTS = tuple(f"{i:02d}" for i in range(1, 21))
AGES = {subject: 20.0 + i for i, subject in enumerate(SUBJECTS)}
AGE = EndpointSection(cohort="a", column="age", kind="regression")


def text_of(
    rows: Sequence[Sequence[object]], header: Sequence[str] = ("participant_id", "age"), sep: str = "\t"
) -> str:
    """A table as text."""
    return "\n".join(sep.join(map(str, row)) for row in (header, *rows)) + "\n"


def ages(sep: str = "\t", spell: str = "sub-{}") -> str:
    """The right table, its ids spelt in some way."""
    return text_of([(spell.format(s), f"{age:g}") for s, age in AGES.items()], sep=sep)


def seen_labels(
    folder: Path,
    content: str | bytes,
    truth: dict[str, Any] | None = None,
    endpoint: EndpointSection = AGE,
    name: str = "participants.tsv",
    subjects: Sequence[str] = SUBJECTS,
    **settings: Any,
) -> Seen:
    """Labels of an endpoint from a table, against the right ones; a subject without a label is refused for its reason."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    truth = AGES if truth is None else truth
    table = participants.read(path, TableSettings(**settings), [endpoint.column]).match(subjects)
    column, excluded = participants.values(table, endpoint.column, subjects, endpoint.values)
    labels, refused, assumed = read_labels(column, endpoint)
    reasons = {**excluded, **refused}
    if not labels:
        return Seen("refused", next(iter(reasons.values())))
    found = [*table.notes(), *column.notes(), *assumed]
    left_out = [f"{s}: {reasons[s]}" for s in subjects if s in reasons]
    if any(truth.get(s) != label for s, label in labels.items()) or len(labels) + len(left_out) != len(
        subjects
    ):
        return Seen("wrong values", "; ".join(found))
    if not found and not left_out:
        return Seen("read")
    return Seen("note", "; ".join([*found, *left_out[:1]]))


def seen_check(folder: Path, content: str, endpoint: dict[str, Any], **cohort: Any) -> Seen:
    """What `bhx config check` says of a table; 20 subjects have a folder."""
    for subject in SUBJECTS:
        (folder / f"sub-{subject}").mkdir()
    (folder / "participants.tsv").write_text(content)
    section = {"input": "fmriprep", "root": str(folder), **cohort}
    raw = {"cohorts": {"a": section}, "endpoints": {"x": {"cohort": "a", "kind": "regression", **endpoint}}}
    found = check_tables(config.check(raw))
    if found.mistakes:
        return Seen("refused", found.mistakes[0])
    said = [*found.warnings, *found.notes]
    return Seen("note", said[0]) if said else Seen("read")


# --- how tables are saved ---

for _what, _sep, _name in (
    ("a table separated by semicolons", ";", "p.csv"),
    ("commas in a `.tsv`", ",", "p.tsv"),
    ("tabs in a `.csv`", "\t", "p.csv"),
):
    case(AREA, _what, "read")(lambda f, sep=_sep, name=_name: seen_labels(f, ages(sep), name=name))
for _what, _content in (
    ("a byte order mark", ages().encode("utf-8-sig")),
    ("UTF-16, as Excel's Unicode text", ages().encode("utf-16")),
    ("lines that end in CR", ages().replace("\n", "\r").encode()),
    ("a table compressed with gzip that is called `.tsv`", gzip.compress(ages().encode())),
):
    case(AREA, _what, "read")(lambda f, content=_content: seen_labels(f, content))


@case(AREA, "stray quotes in a TSV, where a quote means nothing", "read")
def stray_quotes(folder: Path) -> Seen:
    notes = {3: '"could not lie still', 15: '5" coil'}
    rows = [(f"sub-{s}", f"{age:g}", notes.get(i, "x")) for i, (s, age) in enumerate(AGES.items())]
    return seen_labels(folder, text_of(rows, ("participant_id", "age", "note")))


@case(AREA, "quoted cells of a CSV with commas and line ends in them", "read")
def quoted_cells(folder: Path) -> Seen:
    rows = [(f'"sub-{s}"', '"two\nlines, one cell"', f"{age:g}") for s, age in AGES.items()]
    return seen_labels(folder, text_of(rows, ("participant_id", "note", "age"), ","), name="p.csv")


@case(
    AREA,
    "a quote that is not closed, in a CSV that quotes commas",
    "refused",
    "quote on line 3 is not closed",
)
def open_quote(folder: Path) -> Seen:
    rows = [("01", '"a, b"', "20"), ("02", '"c', "21"), *((s, "d", "22") for s in SUBJECTS[2:])]
    return seen_labels(folder, text_of(rows, ("participant_id", "note", "age"), ","), name="p.csv")


@case(AREA, "columns separated by spaces", "refused", "separate columns by tabs")
def spaces(folder: Path) -> Seen:
    return seen_labels(folder, ages(" "))


@case(AREA, "a header without a name for R's row names", "refused", "does it lack the name of a first column")
def row_names(folder: Path) -> Seen:
    rows = [(i, s, f"{age:g}") for i, (s, age) in enumerate(AGES.items())]
    return seen_labels(folder, text_of(rows))


@case(AREA, "a line with too few cells", "note", "03: its line 4 has 2 cells, the header 3")
def short_line(folder: Path) -> Seen:
    rows = [(s, "M", f"{age:g}")[: 2 if s == "03" else 3] for s, age in AGES.items()]
    return seen_labels(folder, text_of(rows, ("participant_id", "sex", "age")))


@case(AREA, "decimal commas", "note", "decimal commas are read as points")
def decimal_commas(folder: Path) -> Seen:
    truth = {s: age + 0.5 for s, age in AGES.items()}
    rows = [(s, f"{age:g}".replace(".", ",")) for s, age in truth.items()]
    return seen_labels(folder, text_of(rows, sep=";"), truth)


@case(AREA, "commas that could separate thousands", "refused", "is the comma a decimal point")
def thousands(folder: Path) -> Seen:
    return seen_labels(folder, text_of([(s, f"1,{500 + i}") for i, s in enumerate(SUBJECTS)]))


@case(AREA, "a table of 100,000 columns", "read")
def many_columns(folder: Path) -> Seen:
    header = ("participant_id", "age", *(f"f{i}" for i in range(100_000)))
    rest = "\t".join(["0"] * 100_000)
    return seen_labels(folder, text_of([(s, f"{age:g}", rest) for s, age in AGES.items()], header))


@case(AREA, "a line of 17 million characters", "refused", "line 2 of .* has over 16,777,216 characters")
def endless_line(folder: Path) -> Seen:
    return seen_labels(folder, b"participant_id\tage\n" + b"x" * 17_000_000)


@case(AREA, "a spreadsheet file called `participants.tsv`", "refused", "save it as text separated by tabs")
def spreadsheet(folder: Path) -> Seen:
    return seen_labels(folder, b"PK\x03\x04\0\0[Content_Types].xml")


@case(AREA, "a table whose content git-annex has not fetched", "refused", "datalad get")
def annexed(folder: Path) -> Seen:
    (folder / "participants.tsv").symlink_to(".git/annex/objects/a/b/MD5E-s1--c.tsv")
    return Seen("wrong values", str(participants.read(folder / "participants.tsv")))


@case(AREA, "empty names at the end of a header, and commas in quoted cells", "read")
def empty_names(folder: Path) -> Seen:
    rows = [
        (s, '"left, 30, right"' if i % 3 else "x", f"{age:g}", "", "")
        for i, (s, age) in enumerate(AGES.items())
    ]
    return seen_labels(folder, text_of(rows, ("participant_id", "note", "age", "", ""), ","), name="p.csv")


@case(AREA, "a line `sep=;` above the header, and ids kept as text by formulas", "read")
def for_spreadsheets(folder: Path) -> Seen:
    rows = [(f'"=""{s}"""', f"{age:g}") for s, age in AGES.items()]
    return seen_labels(folder, "sep=;\n" + text_of(rows, sep=";"), name="p.csv")


@case(
    AREA, "a column `id` that may count rows, beside another column of ids", "refused", "'id' or in 'MRI_ID'"
)
def two_id_columns(folder: Path) -> Seen:
    rows = [(20 - i, f"S{s}", f"{age:g}") for i, (s, age) in enumerate(AGES.items())]
    return seen_labels(folder, text_of(rows, ("id", "MRI_ID", "age")))


@case(AREA, "two columns of the same name, one of which is needed", "refused", "two columns 'age'")
def two_columns(folder: Path) -> Seen:
    return seen_labels(folder, text_of([(s, 1, 2) for s in SUBJECTS], ("participant_id", "age", "age")))


# --- ids ---

for _what, _spell in (
    ("ids `SUB-01`", "SUB-{}"),
    ("ids `1.0` of the subjects 01", "{0}.0"),
    ("ids without leading zeros", "{0}"),
    ("ids with more leading zeros", "sub-00{}"),
):
    _ids = {s: _spell.format(s.lstrip("0") if "{0}" in _spell else s) for s in SUBJECTS}
    case(AREA, _what, "note", "ids of participants.tsv are spelt otherwise")(
        lambda f, ids=_ids: seen_labels(f, text_of([(ids[s], f"{age:g}") for s, age in AGES.items()]))
    )


@case(
    AREA, "ids `NDAR_INV01` of the subjects NDARINV01", "note", "ids of participants.tsv are spelt otherwise"
)
def ndar(folder: Path) -> Seen:
    truth = {f"NDARINV{s}": age for s, age in AGES.items()}
    return seen_labels(folder, ages(spell="NDAR_INV{}"), truth, subjects=list(truth))


@case(AREA, "the ids 01 and 1 in one cohort", "read")
def one_and_01(folder: Path) -> Seen:
    return seen_labels(folder, text_of([("01", 20), ("1", 30)]), {"01": 20, "1": 30}, subjects=["01", "1"])


@case(AREA, "two ids that would become one subject", "refused", "'A_1', 'A1', which would be one subject")
def colliding_ids(folder: Path) -> Seen:
    return seen_labels(folder, text_of([("A_1", 20), ("A1", 30)]), subjects=["A1"])


@case(AREA, "ids that a spreadsheet turned into dates", "refused", "'1-Mar' is a date")
def dates(folder: Path) -> Seen:
    return seen_check(folder, text_of([(f"{i}-Mar", i) for i in range(1, 21)]), {"column": "age"})


@case(AREA, "ids that match nobody", "refused", "'NDAR_INV01', 'NDAR_INV02', .* sub-01, sub-02, sub-03")
def unknown_ids(folder: Path) -> Seen:
    return seen_check(folder, ages(spell="NDAR_INV{}"), {"column": "age"})


@case(
    AREA,
    "a row per session, with the same age in both",
    "note",
    "have several rows .*; used where they agree",
)
def agreeing_sessions(folder: Path) -> Seen:
    rows = [(s, ses, f"{age:g}") for s, age in AGES.items() for ses in ("ses-1", "ses-2")]
    return seen_labels(folder, text_of(rows, ("participant_id", "session_id", "age")))


@case(AREA, "a row per session, with another age in each", "refused", "keep one session_id per participant")
def sessions(folder: Path) -> Seen:
    rows = [(s, ses, age + ses) for s, age in AGES.items() for ses in (1, 2)]
    return seen_check(folder, text_of(rows, ("participant_id", "session_id", "age")), {"column": "age"})


@case(AREA, "two rows of a participant with different diagnoses", "note", "differs between its 2 rows")
def two_diagnoses(folder: Path) -> Seen:
    rows = [(s, f"{age:g}") for s, age in AGES.items()]
    return seen_labels(folder, text_of([*rows, ("07", 99)]))


@case(AREA, "ids `1.000`, which may be a thousand", "refused", "may be a thousand")
def thousand_ids(folder: Path) -> Seen:
    return seen_check(folder, text_of([("1.000", 20), ("2.000", 21)]), {"column": "age"})


@case(AREA, "an id `001_1`, of sub-0011 or session 1 of sub-001", "refused", "may be a session of sub-001")
def session_in_id(folder: Path) -> Seen:
    path = folder / "participants.tsv"
    path.write_text(text_of([("001_1", 20)]))
    table = participants.read(path).match(["0011", "001"])
    return Seen("wrong values") if table.rows else Seen("refused", table.excluded["0011"])


# --- values ---


@case(
    AREA, "-9999, -999.0, n/a, NULL, # and empty cells of a regression", "note", "read as unknown are '-9999'"
)
def codes(folder: Path) -> Seen:
    unknown = ["-9999", "-999.0", "n/a", "NULL", "#", ""]
    rows = [(s, unknown[i] if i < 6 else f"{age:g}") for i, (s, age) in enumerate(AGES.items())]
    return seen_labels(folder, text_of(rows))


@case(AREA, "a class that is called NA", "read")
def class_na(folder: Path) -> Seen:
    spec = EndpointSection.model_validate(
        {"cohort": "a", "column": "age", "kind": "binary", "classes": ["NA", "EU"]}
    )
    rows = [(s, ("NA", "EU")[i % 2]) for i, s in enumerate(SUBJECTS)]
    return seen_labels(folder, text_of(rows), {s: i % 2 for i, s in enumerate(SUBJECTS)}, spec)


@case(AREA, "-999 where the cohort's `missing` does not name it", "read")
def legitimate(folder: Path) -> Seen:
    truth = {s: -999.0 + i for i, s in enumerate(SUBJECTS)}
    return seen_labels(folder, text_of([*truth.items()]), truth, missing=("n/a",))


@case(AREA, "an age of 999 in a column of ages", "note", r"age is 999 \(2 x\), far from all others")
def far_values(folder: Path) -> Seen:
    rows = [(s, 999 if s in ("03", "04") else f"{age:g}") for s, age in AGES.items()]
    return seen_check(folder, text_of(rows), {"column": "age"})


@case(AREA, "a column that is constant", "refused", "nothing can be predicted")
def constant(folder: Path) -> Seen:
    return seen_check(folder, text_of([(s, 7) for s in SUBJECTS]), {"column": "age"})


for _cells, _classes, _near in ((("Autism", "control"), ["control", "autism"], "Autism"),):
    case(AREA, f"{_cells[0]} where the class is called {_classes[-1]}", "refused", _near)(
        lambda f, cells=_cells, classes=_classes: seen_check(
            f,
            text_of([(s, cells[i % 2]) for i, s in enumerate(SUBJECTS)], ("participant_id", "dx")),
            {"column": "dx", "kind": "binary", "classes": classes},
        )
    )  # fmt: skip


@case(AREA, "1.0 and 2.00 where the classes are called 1 and 2", "read")
def equal_numbers(folder: Path) -> Seen:
    spec = EndpointSection.model_validate(
        {"cohort": "a", "column": "dx", "kind": "binary", "classes": [1, 2]}
    )
    rows = [(s, ("1.0", "2.00")[i % 2]) for i, s in enumerate(SUBJECTS)]
    truth = {s: i % 2 for i, s in enumerate(SUBJECTS)}
    return seen_labels(folder, text_of(rows, ("participant_id", "dx")), truth, spec)


@case(AREA, "classes that YAML reads as booleans", "refused", "write it in quotes")
def booleans(folder: Path) -> Seen:
    rows = [(s, ("No", "Yes")[i % 2]) for i, s in enumerate(SUBJECTS)]
    try:
        return seen_check(
            folder,
            text_of(rows, ("participant_id", "dx")),
            {"column": "dx", "kind": "binary", "classes": [False, True]},
        )
    except ConfigError as error:
        return Seen("refused", error.mistakes[0])


# --- families ---


@case(
    AREA, "families 555, 777, 888 and 999 in a data set that uses these numbers as codes for unknown", "read"
)
def families_like_codes(folder: Path) -> Seen:
    numbers = {s: (555, 777, 888, 999)[i // 5] for i, s in enumerate(SUBJECTS)}
    path = folder / "participants.tsv"
    path.write_text(text_of([*numbers.items()], ("participant_id", "rel_family_id")))
    table = participants.read(path, TableSettings(missing=("555", "777", "888", "999")))
    found = participants.families(table, "rel_family_id")
    right = found == {s: str(n) for s, n in numbers.items()}
    return Seen("read") if right else Seen("wrong values", str(found)[:100])


@case(AREA, "a column of families with the id of the twin", "read")
def twins_by_name(folder: Path) -> Seen:
    other = {s: f"sub-{SUBJECTS[i ^ 1]}" for i, s in enumerate(SUBJECTS)}
    path = folder / "participants.tsv"
    path.write_text(text_of([*other.items()], ("participant_id", "twin_of")))
    found = participants.families(participants.read(path), "twin_of")
    apart = [s for s in SUBJECTS if found[s] != found[other[s].removeprefix("sub-")]]
    return Seen("wrong values", str(apart)) if apart else Seen("read")


@case(AREA, "twins in two cohorts of one pretraining", "read")
def twins(folder: Path) -> Seen:
    families = {f"{cohort}/{i}": str(i) for cohort in ("a", "b") for i in range(100)}
    split = splits.split_pretraining(families, 0.3, 0, families)
    apart = {families[s] for s in split["train"]} & {families[s] for s in split["holdout"]}
    return Seen("wrong values", f"{len(apart)} families apart") if apart else Seen("read")


@case(AREA, "a family that is a code for unknown", "note", "family '0' has 40 members: is it a code")
def family_code(folder: Path) -> Seen:
    for i in range(21, 41):
        (folder / f"sub-{i}").mkdir()
    rows = [(f"{i:02d}", i, 0) for i in range(1, 41)]
    return seen_check(
        folder, text_of(rows, ("participant_id", "age", "family")), {"column": "age"}, family="family"
    )
