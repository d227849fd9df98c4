"""Match spellings of ROI names: prefixes, case, separators, Schaefer's older names.

Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bhx_model.errors import DataError

#: What stands before the hemisphere of names that state no number of networks: `Schaefer400_`, `lh_`, `ctx-lh-`.
_PREFIX: Final = re.compile(r"^(?:.*schaefer.*?|(?:ctx[ ._-])?[lr]h)[ ._-](?=[lr]h[ ._-])", re.IGNORECASE)
#: The number of networks that a name begins with; R puts an X before digits, FreeSurfer the hemisphere.
NETWORKS: Final = re.compile(r"^.*?(?<!\d)(7|17)[ ._-]?networks[ ._-]", re.IGNORECASE)
SCHAEFER: Final = re.compile(r"^[lr]h_([a-z]+)(?:_[a-z0-9]+)*_\d+$")
#: Networks that only the order of 7 has.
_OF_SEVEN: Final = {"vis", "sommot", "dorsattn", "salventattn", "limbic", "cont", "default"}
#: Parts of names that only the parcellations of before September 2019 have, by number of networks.
OLD: Final = {"7": re.compile(r"_default_pcc_\d|_salventattn_froper_\d"), "17": re.compile(r"[lr]h_limbic_")}


def key(name: str) -> str:
    """What a name is compared by: without prefix, in lower case, with underscores."""
    # C-PAC writes a mark before labels
    bare = _PREFIX.sub("", NETWORKS.sub("", name.strip().lstrip("#")))
    # R writes a dot for every character that is none of a name's
    return re.sub(r"[\W_]+", "_", bare).strip("_").lower()


def keys(names: Sequence[str], atlas_names: Sequence[str]) -> list[str]:
    """Keys of names; the names as they are where an atlas has two that would have one key."""
    if len({key(name) for name in atlas_names}) != len(atlas_names):
        return [name.strip() for name in names]
    return [key(name) for name in names]


def are_of_seven(given: Sequence[str]) -> bool:
    """Whether keys are of Schaefer's order of 7 networks."""
    networks = {m[1] for name in given if (m := SCHAEFER.match(name))}
    return len(networks) > 2 and networks <= _OF_SEVEN


def match(names: Sequence[str], atlas: str, wanted: Sequence[str]) -> tuple[NDArray[np.int64], str | None]:
    """Place of each ROI of an atlas among `names`.

    Parameters
    ----------
    names : sequence of str
    atlas : str
        Label of the atlas, for messages.
    wanted : sequence of str, (R,)
        Names of the atlas.

    Returns
    -------
    order : ndarray, (R,) int64
    note : str or None
        What was assumed: that Schaefer's names of before September 2019 are of the same parcels, one by one.

    Raises
    ------
    DataError
        If names are missing, unknown, given twice, or of another order of networks.
    """
    given, known = keys(names, wanted), keys(wanted, wanted)
    place = {name: i for i, name in enumerate(given)}
    if len(place) != len(given):
        twice = next(names[i] for i, name in enumerate(given) if place[name] != i)
        raise DataError(f"ROI {twice[:60]!r} is there twice: give every ROI once")
    if len(names) != len(wanted):
        msg = f"{len(names)} ROIs, but the model knows {len(wanted)} of atlas {atlas}{_odd_one(names, given, wanted, known)}"
        raise DataError(msg)
    missing = [i for i, name in enumerate(known) if name not in place]
    ours = {m[1] for name in wanted if (m := NETWORKS.match(name))}
    theirs = {m[1] for name in names if (m := NETWORKS.match(name))} or (
        {"7"} if are_of_seven(given) and not are_of_seven(known) else set()
    )
    if ours and theirs and ours != theirs:
        msg = (
            f"ROI names are of the {'- and '.join(sorted(theirs))}-network order ({names[0][:30]!r}), the model's of the "
            f"{'- and '.join(sorted(ours))}-network order: use that atlas"
        )
        raise DataError(msg)
    if not missing:
        return np.array([place[name] for name in known], np.int64), None
    if _older(given, known):
        note = (
            "ROI names are those of CBIG's lists of before September 2019: taken in their order, in which the parcels are "
            "the same"
        )
        return np.arange(len(wanted)), note
    unknown = next(name for name, one in zip(names, given, strict=True) if one not in set(known))
    at = missing[0]
    msg = (
        f"{len(missing)} ROIs of {atlas} are not among the names: row {at} is {names[at][:40]!r}, the model's is "
        f"{wanted[at][:40]!r} ({unknown[:30]!r} is unknown): use that atlas"
    )
    raise DataError(msg)


def _odd_one(names: Sequence[str], given: Sequence[str], wanted: Sequence[str], known: Sequence[str]) -> str:
    """What to do about names that are too many or too few: the first that is, if all others are those of the atlas."""
    extra = [name for name, one in zip(names, given, strict=True) if one not in set(known)]
    missing = [name for name, one in zip(wanted, known, strict=True) if one not in set(given)]
    if extra and not missing:
        return f": {extra[0][:40]!r} is none of them, leave it out"
    if missing and not extra and len(missing) < len(wanted):
        return f": {missing[0][:40]!r} is missing, give NaN for it if it has no coverage"
    return ": use that atlas"


def _older(given: Sequence[str], known: Sequence[str]) -> bool:
    """Whether names are Schaefer's older ones in the order of the newer: hemisphere and network agree row by row."""
    if not any(old.search(name) for old in OLD.values() for name in given):
        return False
    pairs = list(zip(given, known, strict=True))
    return all(
        SCHAEFER.match(a) and SCHAEFER.match(b) and a[:2] == b[:2] and _network(a) == _network(b)
        for a, b in pairs
    )


def _network(name: str) -> str:
    """Network of a Schaefer name, without its letter: in the older lists some have none."""
    network = name.split("_")[1]
    return "limbic" if network.startswith("limbic") else network
