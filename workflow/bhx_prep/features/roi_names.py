"""ROI names as tables spell them, brought to the atlas's: prefixes, case, separators, and Schaefer's older names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.io.notes import quote

#: What stands before the hemisphere of names that state no number of networks: `Schaefer400_`, `lh_`, `ctx-lh-`.
_PREFIX = re.compile(r"^(?:.*schaefer.*?|(?:ctx[ ._-])?[lr]h)[ ._-](?=[lr]h[ ._-])", re.IGNORECASE)
#: The number of networks that a name begins with; R puts an X before digits, FreeSurfer the hemisphere.
_NETWORKS = re.compile(r"^.*?(?<!\d)(7|17)[ ._-]?networks[ ._-]", re.IGNORECASE)
_SCHAEFER = re.compile(r"^[lr]h_([a-z]+)(?:_[a-z0-9]+)*_\d+$")
#: Networks that only the order of 7 has.
_OF_SEVEN = {"vis", "sommot", "dorsattn", "salventattn", "limbic", "cont", "default"}
#: Parts of names that only the parcellations of before September 2019 have, by number of networks.
_OLD = {"7": re.compile(r"_default_pcc_\d|_salventattn_froper_\d"), "17": re.compile(r"[lr]h_limbic_")}


def order_of(atlas: Atlas) -> str | None:
    """``"7"`` or ``"17"``: the order of networks of a Schaefer atlas."""
    found = re.search(r"Schaefer(7|17)n", atlas.label)
    return found[1] if found else None


def places(atlas: Atlas) -> Mapping[str, int]:
    """Position of each ROI of the atlas by its key, see `keys`."""
    return _places(atlas.names)


@lru_cache(maxsize=4)
def _places(names: tuple[str, ...]) -> dict[str, int]:
    found = {_key(name): i for i, name in enumerate(names)}
    return found if len(found) == len(names) else {name.strip(): i for i, name in enumerate(names)}


def keys(names: Sequence[str], atlas: Atlas) -> list[str]:
    """What names are compared by: without prefix, in lower case, with underscores.

    An atlas in which that makes two names equal is compared by names as they are.
    """
    exact = any(name.strip() in places(atlas) and _key(name) != name.strip() for name in atlas.names[:3])
    return [name.strip() if exact else _key(name) for name in names]


def _key(name: str) -> str:
    # C-PAC writes a mark before labels
    bare = _PREFIX.sub("", _NETWORKS.sub("", name.strip().lstrip("#")))
    # R writes a dot for every character that is none of a name's
    return re.sub(r"[\W_]+", "_", bare).strip("_").lower()


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
    orders = {m[1] for name in names if (m := _NETWORKS.match(name.strip()))}
    given = keys(names, atlas)
    wanted = places(atlas)
    if wanted_order == "17" and not orders and _are_of_seven(given):
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
        raise DataError(f"{where}: ROI {quote(twice)} stands there twice")
    for name in names:  # pandas numbers columns of one name
        stem = re.sub(r"\.\d{1,2}$", "", name.strip())
        if stem != name.strip() and _key(name) not in wanted and _key(stem) in place and _key(stem) in wanted:
            raise DataError(
                f"{where}: ROI {quote(stem)} stands there twice, the second time as {quote(name)}"
            )
    missing = [atlas.names[i] for name, i in wanted.items() if name not in place]
    unknown = [name for name, key in zip(names, given, strict=True) if key not in wanted]
    if missing or unknown:
        raise DataError(f"{where}: {_difference(names, missing, unknown, atlas, 198 - len(where))}")
    return np.array([place[name] for name in wanted])


def _are_of_seven(given: Sequence[str]) -> bool:
    networks = {m[1] for name in given if (m := _SCHAEFER.match(name))}
    return len(networks) > 2 and networks <= _OF_SEVEN


def _difference(
    names: Sequence[str], missing: Sequence[str], unknown: Sequence[str], atlas: Atlas, room: int
) -> str:
    """How a table's names and the atlas's differ, with the first examples of both, in `room` characters."""
    order = order_of(atlas)
    renamed = [name for name in unknown if _SCHAEFER.match(_key(name))]
    if (
        order
        and len(names) == atlas.n_rois
        and len(renamed) == len(unknown)
        and 2 * len(unknown) < len(names)
    ):
        old = _OLD[order]
        if any(old.search(_key(name)) for name in atlas.names):
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
