"""Match ROI names of tables to the atlas's: prefixes, case, separators, and Schaefer's older names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from bhx_model.data.roi_names import NETWORKS, OLD, SCHAEFER, are_of_seven, key
from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.io.notes import quote


def order_of(atlas: Atlas) -> str | None:
    """``"7"`` or ``"17"``: the order of networks of a Schaefer atlas."""
    found = re.search(r"Schaefer(7|17)n", atlas.label)
    return found[1] if found else None


def places(atlas: Atlas) -> Mapping[str, int]:
    """Position of each ROI of the atlas by its key, see `keys`."""
    return _places(atlas.names)


@lru_cache(maxsize=4)
def _places(names: tuple[str, ...]) -> dict[str, int]:
    found = {key(name): i for i, name in enumerate(names)}
    return found if len(found) == len(names) else {name.strip(): i for i, name in enumerate(names)}


def keys(names: Sequence[str], atlas: Atlas) -> list[str]:
    """What names are compared by: without prefix, in lower case, with underscores.

    An atlas in which that makes two names equal is compared by names as they are.
    """
    exact = any(name.strip() in places(atlas) and key(name) != name.strip() for name in atlas.names[:3])
    return [name.strip() if exact else key(name) for name in names]


def match_names(names: Sequence[str], atlas: Atlas, where: str) -> np.ndarray:
    """Index of each ROI of the atlas among `names`, (R,).

    Names may differ in case, in separators and in the prefix ``17Networks_``.

    Parameters
    ----------
    names : sequence of str
    atlas : Atlas
    where : str
        File that the names are from, for the sentence.

    Raises
    ------
    DataError
        If names are of the other order of networks, of Schaefer's older release, missing, unknown, or given twice.
    """
    wanted_order = order_of(atlas)
    orders = {m[1] for name in names if (m := NETWORKS.match(name.strip()))}
    given = keys(names, atlas)
    wanted = places(atlas)
    if wanted_order == "17" and not orders and are_of_seven(given):
        orders = {"7"}
    if wanted_order and orders - {wanted_order}:
        msg = (
            f"{where}: ROI names are of the {'- and '.join(sorted(orders))}-network order ({quote(names[0])}), the atlas"
            f" of the {wanted_order}-network order: set atlas.networks, or use other tables"
        )
        raise DataError(msg)
    place = {name: i for i, name in enumerate(given)}
    if len(place) != len(given):
        twice = next(names[i] for i, name in enumerate(given) if place[name] != i)
        raise DataError(f"{where}: ROI {quote(twice)} occurs twice")
    for name in names:  # pandas numbers columns of one name
        stem = re.sub(r"\.\d{1,2}$", "", name.strip())
        if stem != name.strip() and key(name) not in wanted and key(stem) in place and key(stem) in wanted:
            raise DataError(f"{where}: ROI {quote(stem)} occurs twice, the second time as {quote(name)}")
    missing = [atlas.names[i] for name, i in wanted.items() if name not in place]
    unknown = [name for name, one in zip(names, given, strict=True) if one not in wanted]
    if missing or unknown:
        raise DataError(f"{where}: {_difference(names, missing, unknown, atlas, 198 - len(where))}")
    return np.array([place[name] for name in wanted])


def _difference(
    names: Sequence[str], missing: Sequence[str], unknown: Sequence[str], atlas: Atlas, room: int
) -> str:
    """How a table's names and the atlas's differ, with the first examples of both, in `room` characters."""
    order = order_of(atlas)
    renamed = [name for name in unknown if SCHAEFER.match(key(name))]
    if (
        order
        and len(names) == atlas.n_rois
        and len(renamed) == len(unknown)
        and 2 * len(unknown) < len(names)
    ):
        old = OLD[order]
        if any(old.search(key(name)) for name in atlas.names):
            return (
                f"the atlas has Schaefer's names of before September 2019, the table newer ones"
                f" ({_examples(unknown[:1])}): make the templates of the newer release"
            )
        return (
            f"Schaefer's names of before September 2019 ({_examples(unknown[:1])}): take all {len(names)} by position"
            " from the newer list, rename no single one"
        )
    text = ""
    for width in (21, 15):
        parts = []
        if missing:
            parts.append(f"{len(missing)} missing ({_examples(missing, width)})")
        if unknown:
            parts.append(f"{len(unknown)} unknown ({_examples(unknown, width)})")
        text = f"{len(names)} ROIs, {atlas.label} has {atlas.n_rois}: {' and '.join(parts)}"
        if len(text) <= room:
            break
    return text


def _examples(names: Sequence[str], width: int = 21) -> str:
    if len(names) == 1:
        return quote(names[0])
    some = [repr(name if len(name) <= width else f"..{name[2 - width :]}") for name in names[:2]]
    return ", ".join(some) + ", .." * (len(names) > 2)
