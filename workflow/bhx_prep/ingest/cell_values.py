"""Interpret a cell of a table: a number, or a missing value."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from bhx_model.evaluation.labels import is_computable
from bhx_prep.io.notes import quote

#: Written where a value is not known, whatever the case of the letters: by BIDS, spreadsheets, R, SPSS, pandas, SQL.
UNKNOWN: Final = frozenset(
    {"", "n/a", "na", "nan", "null", "<na>", ".", "#", "#n/a", "#null!", "#value!", "#ref!", "#div/0!", "#name?", "#num!"}
)  # fmt: skip
#: The same as numbers.
UNKNOWN_NUMBERS: Final = frozenset({-999.0, -9999.0})

#: Interquartile ranges between a value and the quartiles of the others from which it is far.
FAR: Final = 10
MOST_FAR: Final = 5
#: Codes of surveys for refused, unknown or not applicable.
_NEGATIVE_CODES: Final = frozenset(
    {-1.0, -3.0, -4.0, -7.0, -8.0, -9.0, -77.0, -88.0, -99.0, -777.0, -888.0, -999.0, -9999.0}
)
#: Codes as well, where they are the only negative number: others have scales from -2 to 2.
_LONE_CODES: Final = frozenset({-2.0, -5.0, -6.0, -66.0, -666.0})

_CODE = re.compile(r"-?(9+|8+|7+)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_YEAR = re.compile(r"(?<!\d)(19[89]\d|20\d\d)(?!\d)")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")


def number_of(text: str) -> float | None:
    """A cell as a number, None where it is none; ``1_000``, ``nan`` and ``inf`` are none."""
    number = _read(text)
    return None if number is None or math.isinf(number) else number


def _read(text: str) -> float | None:
    """A cell as a number, infinite where it is too large for one."""
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    return float(text) if _NUMBER.fullmatch(text) else None


class MissingValues:
    """The cells that mean unknown.

    Parameters
    ----------
    given : collection of str, optional
        What a configuration names: a cell is unknown if it is one of them (of `UNKNOWN` in any case), or the same
        number; so is an empty cell.
        `UNKNOWN` and `UNKNOWN_NUMBERS` when None.
    """

    def __init__(self, given: Collection[str] | None = None):
        texts = UNKNOWN if given is None else frozenset({"", *(text.strip() for text in given)})
        self._texts = texts
        self._any_case = UNKNOWN & {text.lower() for text in texts}
        if given is None:
            self._numbers = UNKNOWN_NUMBERS
        else:
            self._numbers = frozenset(n for text in given if (n := number_of(text)) is not None)

    def __contains__(self, cell: str) -> bool:
        if cell in self._texts or cell.lower() in self._any_case:
            return True
        number = number_of(cell.replace(",", ".", 1))
        return number is not None and number in self._numbers


class KnownValues:
    """Values that a configuration names, and which of them a cell is: the same text, else the same number.

    ``1``, ``1.0`` and ``1,00`` are one number.

    Parameters
    ----------
    values : collection of str
    """

    def __init__(self, values: Collection[str]):
        self._texts = frozenset(values)
        self._by_number: dict[float, str | None] = {}
        for value in values:
            if (number := _code_of(value)) is not None:  # None where a cell could be one or the other
                self._by_number[number] = None if number in self._by_number else value
        self._found: dict[str, str | None] = {}

    def find(self, cell: str) -> str | None:
        """The value that a cell is, None where it is none of them."""
        if cell in self._texts:
            return cell
        if not self._by_number:
            return None
        if cell not in self._found:
            number = _code_of(cell)
            self._found[cell] = None if number is None else self._by_number.get(number)
        return self._found[cell]


def _code_of(text: str) -> float | None:
    return number_of(re.sub(r"^([+-]?\d+),0+$", r"\1", text.strip()))


def numbers_of(cells: Mapping[str, str], name: str) -> tuple[dict[str, float], dict[str, str], bool]:
    """Cells of a column as numbers.

    Decimal commas are read where the column has no decimal points, and its commas cannot separate thousands.

    Parameters
    ----------
    cells : mapping
        Subject to cell, nothing unknown among them.
    name : str
        Of the column.

    Returns
    -------
    numbers : dict
    refused : dict
        Subject to the reason why its cell is no number.
    commas : bool
        Whether decimal commas were read.
    """
    commas = _decimal_commas(cells.values())
    numbers, refused = {}, {}
    for subject, cell in cells.items():
        number = _read(cell.replace(",", ".") if commas else cell)
        if number is not None and is_computable(number):
            numbers[subject] = number
        elif number is not None:
            size = "small" if abs(number) < 1 else "large"
            refused[subject] = (
                f"{name} is {quote(cell)}, too {size} to compute with: state it in another unit"
            )
        elif _DECIMAL_COMMA.fullmatch(cell):
            refused[subject] = f"{name} is {quote(cell)}: is the comma a decimal point? write it as one"
        else:
            refused[subject] = f"{name} is {quote(cell)}, no number"
    return numbers, refused, commas


def category(cell: str) -> str:
    """One spelling of a level: 1 and 1.0 are the same."""
    number = number_of(cell)
    return cell.strip() if number is None else f"{number:.17g}"


def years_of(cells: Mapping[str, str]) -> dict[str, float]:
    """Years from 1980 on that cells name, a date or a year alone; subjects whose cell names none are not there."""
    found = {subject: _YEAR.search(cell) for subject, cell in cells.items()}
    return {subject: float(year[1]) for subject, year in found.items() if year}


def _decimal_commas(cells: Iterable[str]) -> bool:
    found = False
    for cell in cells:
        if "." in cell and number_of(cell) is not None:
            return False
        if _DECIMAL_COMMA.fullmatch(cell):
            found = found or not _THOUSANDS.fullmatch(cell)
        elif _THOUSANDS.fullmatch(cell):
            return False
    return found


def far_values(numbers: Collection[float]) -> list[tuple[float, int]]:
    """Values far from all others: codes for missing values, or typing errors, such as an IQ of 999.

    The largest and the smallest value, time and again, are far if they are `FAR` interquartile ranges from the quartiles of
    all others; and so is the one negative number, such as -9, of a column that is positive.

    Returns
    -------
    list of (value, count)
        The most extreme one first. Of more than `MOST_FAR`, as a long tail has, those that look like a code.
    """
    count = Counter(numbers)
    ordered = sorted(count)
    far: list[tuple[float, int]] = []
    while len(ordered) > 4 and len(far) <= MOST_FAR:
        ends = ((ordered[0], ordered[1:]), (ordered[-1], ordered[:-1]))
        value = next((v for v, others in ends if _is_far(v, others, count)), None)
        if value is None:
            break
        far.append((value, count[value]))
        ordered.remove(value)
    if len(far) > MOST_FAR:  # a long tail; codes may be at its end
        far = [(value, n) for value, n in far if _CODE.fullmatch(f"{value:.0f}")]
    return far


def _is_far(value: float, others: Sequence[float], count: Mapping[float, int]) -> bool:
    low, high = _quartiles([(v, count[v]) for v in others])
    width = (high - low) or (others[-1] - others[0])  # most values are one: their range
    if max(low - value, value - high) > FAR * width:
        return True
    if value in _LONE_CODES:
        return others[0] >= 0
    return value in _NEGATIVE_CODES and all(v >= 0 or v in _NEGATIVE_CODES for v in others)


def _quartiles(counted: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Lower and upper quartile of sorted values with their counts."""
    total = sum(n for _, n in counted)
    found = []
    for share in (0.25, 0.75):
        below = 0
        for value, n in counted:
            below += n
            if below >= share * total:
                found.append(value)
                break
    return found[0], found[1]


def same(cells: Iterable[str]) -> bool:
    """Whether all cells say the same: equal texts, or equal numbers."""
    distinct = set(cells)
    if len(distinct) <= 1:
        return True
    numbers = {number_of(cell) for cell in distinct}
    return len(numbers) == 1 and None not in numbers


def listed(names: Sequence[str], length: int = 100) -> str:
    """Names as text of limited length, with the number of those omitted."""
    shown: list[str] = []
    for name in names:
        short = name if len(name) <= 40 else f"{name[:38]}.."
        if shown and len(", ".join([*shown, short])) > length:
            break
        shown.append(short)
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
