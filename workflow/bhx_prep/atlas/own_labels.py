"""Labels of a custom atlas as numbers 1..R of its list of names.

Labels of a file are matched to names by the file's own table of labels, where that has them; else by the numbers that
the list of names states; else by 1..R. A name may state its side (``lh.bankssts``, ``V1_L``) where the table of a
file of one hemisphere does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import SIDE, Pair, sides
from bhx_prep.atlas.label_lists import BACKGROUND, LabelList, read_label_list
from bhx_prep.io.notes import quote
from bhx_prep.io.reading import reading

#: Entities that a BIDS table of labels leaves out, since it holds for images of any of their values.
_ANY: Final = re.compile(r"_(?:res|den)-[A-Za-z0-9]+")


def match_labels(
    values: np.ndarray, table: Mapping[int, str], listed: LabelList, what: str, side: int = -1
) -> np.ndarray:
    """Labels of a file as numbers 1..R of the list of names; 0 is no parcel.

    Parameters
    ----------
    values : numpy.ndarray of int
        Labels as the file has them.
    table : Mapping
        The file's own names of its labels; may be empty.
    listed : LabelList
        R names.
    what : str
        What the file is called in messages.
    side : int
        0 or 1 where the file is of the left or the right hemisphere, else -1.

    Returns
    -------
    numpy.ndarray of int16, of the shape of `values`

    Raises
    ------
    DataError
        If a label is no ROI of the list.
    """
    present = [int(value) for value in np.unique(values)]
    known = _by_name(table, listed, side)
    if not any(value in known for value in present):
        named = [(value, table[value]) for value in present if value in table and value > 0]
        odd = next(((value, name) for value, name in named if not _only_counts(value, name)), None)
        if odd is not None and not listed.numbers:
            msg = (
                f"{what}: its own names are not in atlas.names, such as {quote(odd[1])} ({odd[0]}): write them there, or"
                " numbers beside the names"
            )
            raise DataError(msg)
        table = {}
        numbers = listed.numbers or range(1, len(listed.names) + 1)
        known = {number: i for i, number in enumerate(numbers, 1) if number}
    empty = {value for value, name in table.items() if BACKGROUND.fullmatch(name.strip())} | {0, -1}
    unknown = [value for value in present if value not in known and value not in empty]
    if unknown:
        first = quote(table[unknown[0]]) if unknown[0] in table else str(unknown[0])
        absent = [listed.names[i - 1] for i in sorted(set(known.values()) - {known.get(v) for v in present})]
        lacking = f"; {len(absent)} names have no label, such as {quote(absent[0])}" if absent else ""
        hint = "" if table or listed.numbers else ": state numbers beside the names"
        msg = f"{what}: {len(unknown)} labels are not in atlas.names, such as {first}{lacking}{hint}"
        raise DataError(msg)
    out = np.zeros(values.shape, np.int16)
    for value in present:
        out[values == value] = known.get(value, 0)
    return out


def check_complete(found: np.ndarray, names: Sequence[str], what: str) -> None:
    """Refuse labels 1..R of which some are missing.

    Raises
    ------
    DataError
        With how many, and the first.
    """
    missing = np.setdiff1d(np.arange(1, len(names) + 1), found)
    if missing.size:
        first = quote(names[missing[0] - 1])
        msg = f"{what}: {missing.size} of the {len(names)} ROIs in atlas.names have no label there, such as {first}"
        raise DataError(msg)


def read_own_volume(path: Path, image: Any, listed: LabelList) -> Pair:
    """Labels 1..R of a label image, and its affine.

    The file's own table of labels is the ``.tsv`` of its name beside it, where there is one, as BIDS has it.

    Raises
    ------
    DataError
        If it is no label image, or its labels are not the names'.
    """
    with reading(path, "cannot be read, it is truncated or damaged"):
        values = np.asanyarray(image.dataobj)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        n = values.shape[3] if values.ndim == 4 else values.shape
        raise DataError(f"{path} holds {n} volumes: one image of labels is expected, cut it out")
    if values.dtype.kind not in "iu":
        odd = values[values != np.round(values)] if values.dtype.kind == "f" else values.ravel()[:1]
        if odd.size:
            msg = f"{path} holds {odd[0]:g}, no label: resample label images by the nearest neighbour"
            raise DataError(msg)
    labels = values.astype(np.int64)
    out = match_labels(labels, _own_table(path), listed, str(path))
    check_complete(out, listed.names, str(path))
    return out, np.asarray(image.affine)


def sides_of(left: np.ndarray, right: np.ndarray, names: Sequence[str], what: str) -> list[int]:
    """Side of every ROI: 0 or 1 where labels (V,) of the surfaces show it, else what its name states.

    Raises
    ------
    DataError
        If an ROI has vertices on both hemispheres, or its name states the other one.
    """
    stated = sides(names)
    both = np.intersect1d(left[left > 0], right[right > 0])
    if both.size:
        msg = (
            f"{what}: {quote(names[both[0] - 1])} is on both hemispheres ({both.size} such ROIs): use labels of which"
            " each side has its own, or a label image"
        )
        raise DataError(msg)
    for side, labels in enumerate((left, right)):
        for label in np.unique(labels[labels > 0]):
            if stated[label - 1] == 1 - side:
                where = ("left", "right")[side]
                raise DataError(
                    f"{what}: {quote(names[label - 1])} is on the {where} hemisphere: are they swapped?"
                )
            stated[label - 1] = side
    return stated


def _by_name(table: Mapping[int, str], listed: LabelList, side: int) -> dict[int, int]:
    """Value in a file -> number of the ROI of its name."""
    number_of = {name: i for i, name in enumerate(listed.names, 1)}
    if side >= 0:
        stated = sides(listed.names)
        bare = [_bare(name) for name in listed.names]
        here = [(name, i) for i, (name, of) in enumerate(zip(bare, stated, strict=True), 1) if of == side]
        names = [name for name, _ in here]
        number_of = {name: i for name, i in here if names.count(name) == 1} | number_of
    loose, loose_bare = (
        {key: i for i, key in enumerate(keys, 1) if keys.count(key) == 1}
        for keys in (
            [_loose(name) for name in listed.names],
            [_without_networks(name) for name in listed.names],
        )
    )
    known = {}
    for value, name in table.items():
        number = number_of.get(name.strip()) or (number_of.get(_bare(name)) if side >= 0 else None)
        number = number or loose.get(_loose(name))
        if not number and _loose(name) == _without_networks(name):
            number = loose_bare.get(_loose(name))
        number = number or loose.get(_without_networks(name))
        if number:
            known[value] = number
    return known


def _loose(name: str) -> str:
    """A name in lower case, with underscores between its words."""
    return re.sub(r"[\W_]+", "_", name.strip()).strip("_").lower()


def _without_networks(name: str) -> str:
    return re.sub(r"^(?:7|17)networks_", "", _loose(name))


def _only_counts(value: int, name: str) -> bool:
    """Whether a label's name says nothing but its number: ``Label 12``, ``12``."""
    return re.findall(r"\d+", name) == [str(value)] and BACKGROUND.fullmatch(name) is None and len(name) < 16


def _bare(name: str) -> str:
    """A name without its side and what joins the two, in small letters."""
    return re.sub(r"[^a-z0-9]+", "_", SIDE.sub("", name.removeprefix("ctx-")).lower()).strip("_")


def _own_table(path: Path) -> dict[int, str]:
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    for name in dict.fromkeys((f"{stem}.tsv", f"{_ANY.sub('', stem)}.tsv")):
        if (path.parent / name).is_file():
            own = read_label_list(path.parent / name)
            return dict(zip(own.numbers or (), own.names, strict=False))
    return {}
