"""Write the BIDS dataset's description, its participants, and the record of which series became which files.

The record, ``code/bhx_ingest/<subject>[_<session>].json``, holds a hash per series. By it a second run knows what is
there already, completes what a killed one has left, and refuses to put one series in the place of another.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import bhx_model
from bhx_model.atomic_write import atomic_write, read_json, write_json
from bhx_model.errors import ConfigError, DataError
from bhx_prep.dicom.series import Series
from bhx_prep.io import overwriting

PROGRAM: Final = "bhx ingest"
_README: Final = """\
# {name}

Converted from DICOM by `bhx ingest dicom` (BHX {version}) with dcm2niix. Subjects' ids are labels; names, ids, dates, the
hospital and free text were removed from file names, sidecars and images' headers. {faces}
"""
_FACES: Final = {
    "none": "Faces were left in {which} anatomical images.",
    "face": "Faces were cut off {which} anatomical images; the forehead and the ears remain.",
    "command": "Faces were taken off {which} anatomical images by another program.",
}
#: Ages above this one are this one: the oldest are few.
OLDEST: Final = 89
_SEXES: Final = {"F": "F", "M": "M", "O": "O"}
_PARTICIPANTS: Final = {
    "age": {"Description": f"age at the scan, {OLDEST} for all above", "Units": "years"},
    "sex": {"Description": "sex as the scanner has it", "Levels": {"F": "female", "M": "male", "O": "other"}},
}


def check_places(source: Path, out: Path, others: Mapping[str, Path]) -> None:
    """Refuse nested folders, and tables of ids inside the output folder.

    Raises
    ------
    ConfigError
    """
    inner, outer = source.resolve(), out.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise ConfigError(
            f"{out} and {source} lie within each other: name a folder apart from the DICOM files"
        )
    for what, path in others.items():
        if outer in path.resolve().parents:
            raise ConfigError(
                f"{what} {path} lies in {out}, which must not contain identifying data: move it out"
            )


def begin(out: Path, name: str, deface: str, participants: Sequence[str]) -> None:
    """Write the files that make the folder a BIDS dataset, unless they exist.

    Raises
    ------
    ConfigError
        If the folder has files of somebody else's.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file: name a folder for the dataset")
    overwriting.check_dataset(out, PROGRAM)
    described = out / "dataset_description.json"
    name = name or out.absolute().name
    if not described.exists():
        write_json(
            described,
            {
                "Name": name,
                "BIDSVersion": "1.10.0",
                "DatasetType": "raw",
                "GeneratedBy": [{"Name": PROGRAM, "Version": bhx_model.__version__}],
            },
        )
    if not (out / "README.md").exists():
        with atomic_write(out / "README.md") as part:
            part.write_text(
                _README.format(
                    name=name, version=bhx_model.__version__, faces=_FACES[deface].format(which="the")
                ),
                "utf-8",
            )
    if participants and not (out / "participants.json").exists():
        write_json(out / "participants.json", {key: _PARTICIPANTS[key] for key in participants})


def state_faces(out: Path) -> None:
    """Describe in the README how faces of all existing anatomical images were removed, by their records.

    The user's own sentence on faces is kept.
    """
    records = sorted((out / "code/bhx_ingest").glob("*.json"))
    entries = [entry for path in records for entry in read_json(path, "remove it").values()]
    counts = Counter(entry["faces"] for entry in entries if entry.get("faces") in _FACES)
    if not counts:
        return
    which = {kind: f"{n} of {counts.total()}" if len(counts) > 1 else "the" for kind, n in counts.items()}
    faces = " ".join(text.format(which=which[kind]) for kind, text in _FACES.items() if kind in which)
    ours = "|".join(re.escape(text).replace(r"\{which\}", r"(?:the|\d+ of \d+)") for text in _FACES.values())
    readme = out / "README.md"
    before = readme.read_text("utf-8")
    after = re.sub(rf"(?:{ours})(?: (?:{ours}))*", faces, before, count=1)
    if after != before:
        with atomic_write(readme) as part:
            part.write_text(after, "utf-8")


def add_participants(out: Path, rows: Mapping[str, Mapping[str, str]]) -> None:
    """Add subjects to ``participants.tsv``; existing rows and columns are kept.

    Raises
    ------
    DataError
        If the table that is there is none.
    """
    path = out / "participants.tsv"
    present: list[list[str]] = []
    if path.exists():
        present = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig")), delimiter="\t"))
        if not present or not present[0] or present[0][0] != "participant_id":
            raise DataError(f"{path} has no first column participant_id: correct it, or remove it")
    known = {row[0] for row in present[1:] if row}
    new = {subject: row for subject, row in sorted(rows.items()) if subject not in known}
    if present and not new:
        return
    header = present[0] if present else ["participant_id", *next(iter(rows.values()))]
    more = [[{"participant_id": s, **row}.get(column, "n/a") for column in header] for s, row in new.items()]
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([header, *present[1:], *more])
    with atomic_write(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


def person(series: Series, wanted: Sequence[str]) -> dict[str, str]:
    """What of a patient enters the table of participants."""
    number, unit = series.age[:-1], series.age[-1:].upper()
    age = "n/a"
    if number.isdecimal() and unit in ("Y", "M", "W", "D"):
        years = int(number) // {"Y": 1, "M": 12, "W": 52, "D": 365}[unit]
        age = str(min(years, OLDEST))
    values = {"age": age, "sex": _SEXES.get(series.sex.upper(), "n/a")}
    return {key: values[key] for key in wanted}


def source_hash(series: Series, deface: object) -> str:
    """Hash of the images of a series, and of what is done to them."""
    return hashlib.sha256(json.dumps([sorted(series.files), deface]).encode()).hexdigest()


class Record:
    """What the files of one session were made of.

    Parameters
    ----------
    out : Path
        The dataset.
    subject, session : str
        Labels; the session's may be empty.
    """

    def __init__(self, out: Path, subject: str, session: str):
        name = f"sub-{subject}" + (f"_ses-{session}" if session else "")
        self.out = out
        self.path = out / "code/bhx_ingest" / f"{name}.json"
        remedy = "remove it and the session's files, and start again"
        self.entries: dict[str, Any] = read_json(self.path, remedy) if self.path.exists() else {}

    def is_done(self, file: str, source: str) -> bool:
        """Whether all files of a series exist.

        Parameters
        ----------
        file : str
            Name of the series' image below the dataset.
        source : str
            Of `source_hash`.

        Raises
        ------
        DataError
            If there are files of that name which were made of something else.
        """
        entry = self.entries.get(file)
        names = entry["files"] if entry else [file, file.replace(".nii.gz", ".json")]
        there = [name for name in names if (self.out / name).exists()]
        if there and (entry is None or entry["source"] != source):
            of = "another series, or with another `deface`" if entry else "something else"
            raise DataError(f"{there[0]} is there and was made of {of}: remove it, or name another folder")
        return bool(there) and len(there) == len(names)

    def add(self, file: str, source: str, names: Sequence[str], faces: str | None = None) -> None:
        """Note what is going to be written, before it is; `faces` is what becomes of a face, where there is one.

        Raises
        ------
        DataError
            If one of the files is there and is not of this series.
        """
        mine = self.entries.get(file, {}).get("files", ())
        if taken := [name for name in names if name not in mine and (self.out / name).exists()]:
            raise DataError(
                f"{taken[0]} is there and was made of something else: remove it, or name another folder"
            )
        self.entries[file] = {"source": source, "files": list(names)} | ({"faces": faces} if faces else {})
        write_json(self.path, self.entries)
