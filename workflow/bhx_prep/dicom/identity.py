"""Identifying attributes of a DICOM header, and removing them from texts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Final

#: Elements whose every word tells who it is: names of people, places where they live.
OF_WORDS: Final = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "PatientAddress",
    "PatientTelephoneNumbers", "ReferringPhysicianName", "PerformingPhysicianName", "RequestingPhysician",
    "NameOfPhysiciansReadingStudy", "OperatorsName",
)  # fmt: skip
#: Ids, of which the parts with a digit tell it, too.
OF_IDS: Final = ("PatientID", "OtherPatientIDs", "MedicalRecordLocator", "AccessionNumber", "StudyID")
#: Elements that tell it as a whole, while their words may be ordinary ones.
AS_A_WHOLE: Final = (
    "PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstitutionName",
    "InstitutionAddress", "StationName", "DeviceSerialNumber",
)  # fmt: skip

#: All of them.
KEYWORDS: Final = (*OF_WORDS, *OF_IDS, *AS_A_WHOLE)

#: What stands in place of what was taken out.
HIDDEN: Final = "***"
#: Characters from which on a word is found within other words, too: `T1_ErikaMustermann`.
INSIDE: Final = 4
_MONTH = r"(?:jan|feb|mar|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]*"
#: What is like an id or a date.
_NUMBERS = re.compile(
    r"\d{6,}|\d{1,4}([./-])\d{1,2}\1\d{1,4}|(?:19|20)\d\d_\d{1,2}_\d{1,2}|\d{1,2}_\d{1,2}_(?:19|20)\d\d"
    rf"|\d{{1,2}}[-_. ]*{_MONTH}[-_., ]*\d{{2,4}}|{_MONTH}[-_. ]*\d{{1,2}}[-_., ]+\d{{2,4}}",
    flags=re.IGNORECASE,
)
_UMLAUTS = {ord(letter): f"{unicodedata.normalize('NFKD', letter)[0]}e" for letter in "äöü"} | {
    ord("ß"): "ss", ord("å"): "aa", ord("ø"): "oe", ord("æ"): "ae",
}  # fmt: skip


def words(values: Mapping[str, Any]) -> frozenset[str]:
    """Words that identify a patient.

    Parameters
    ----------
    values : mapping
        Keywords of DICOM to values, of which those in `KEYWORDS` are used.

    Returns
    -------
    frozenset of str
        In lower case; of two characters at least, since single letters are everywhere.
    """
    found = set()
    for keyword in OF_WORDS:
        for text in _texts(values.get(keyword)):
            found |= {text, *re.findall(r"[^\W_]+", text)}
    for keyword in OF_IDS:
        for text in _texts(values.get(keyword)):
            found |= {text, *(part for part in re.findall(r"[^\W_]+", text) if re.search(r"\d", part))}
    for keyword in AS_A_WHOLE:
        for text in _texts(values.get(keyword)):
            found.add(text)
            if re.fullmatch(r"\d{8}", text):
                found.add(f"{text[:4]}-{text[4:6]}-{text[6:]}")
    found |= {spelt for word in found if not word.isascii() for spelt in _without_accents(word)}
    return frozenset(
        word for word in found if len(word) > 1 and not (word.isdecimal() and len(word) < INSIDE)
    )


def _without_accents(word: str) -> tuple[str, str]:
    """Spellings of a name without special letters: Müller as Mueller, and as Muller."""
    bare = unicodedata.normalize("NFKD", word.replace("ß", "ss").replace("ø", "o").replace("æ", "ae"))
    return word.translate(_UMLAUTS), "".join(letter for letter in bare if not unicodedata.combining(letter))


def _texts(value: Any) -> Iterable[str]:
    if value is None:
        return []
    many = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
    return [text for one in many if (text := str(one).strip().lower())]


def identifies(text: str, of: Iterable[str]) -> bool:
    """Whether a text holds one of the words of `words`."""
    pattern = _pattern(of)
    return pattern is not None and pattern.search(text) is not None


def without(text: str, of: Iterable[str]) -> str:
    """The text with `HIDDEN` in place of what identifies a patient, and of everything like a date or an id."""
    pattern = _pattern(of)
    found = text if pattern is None else pattern.sub(HIDDEN, text)
    return _NUMBERS.sub(HIDDEN, found)


def _pattern(of: Iterable[str]) -> re.Pattern[str] | None:
    parts = []
    for word in sorted(of, key=lambda word: (-len(word), word)):
        inside = len(word) >= INSIDE
        parts.append(re.escape(word) if inside else rf"(?<![^\W_]){re.escape(word)}(?![^\W_])")
    return re.compile("|".join(parts), flags=re.IGNORECASE) if parts else None
