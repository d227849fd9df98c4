"""Assign stated ROI names to the axis of a table that they fit.

Used by the index, for arrays, and by the features. The standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from bhx_model.errors import ConfigError, DataError
from bhx_prep.io import bids_names, name_lists
from bhx_prep.io.notes import Kind, note, short

#: Axes of a table, as sentences call them.
AXES: Final = ("rows", "columns")


@dataclass(frozen=True)
class StatedAxes:
    """What a cohort states about tables without names.

    Attributes
    ----------
    orientation : str or None
        ``roi,frame`` or ``frame,roi``.
    names : tuple of str, or None
        ROI names in the order of the tables.
    source : str
        Where `names` are from, for notes; without names, why the list in the root cannot be used.
    is_explicit : bool
        Whether the configuration names that file; sidecars of a table come before one that only lies there.
    """

    orientation: str | None = None
    names: tuple[str, ...] | None = None
    source: str = ""
    is_explicit: bool = False

    @classmethod
    def of_json(cls, content: Any) -> StatedAxes:
        """From what `bhx_prep.ingest.stated_names` gives.

        Raises
        ------
        ConfigError
            If it is something else.
        """
        if content is None:
            return cls()
        try:
            names = None if content["names"] is None else tuple(map(str, content["names"]))
            return cls(content["orientation"], names, content["source"], bool(content["is_explicit"]))
        except (KeyError, TypeError) as error:
            raise ConfigError(f"--tables: it states no axes of tables ({error!r})") from error


def roi_axis(
    shape: Sequence[int],
    stated: StatedAxes,
    path: Path,
    sidecar: Path | None = None,
    possible: Sequence[int] = (0, 1),
) -> tuple[int, tuple[str, ...], str]:
    """The axis of ROIs of a table without names, their names, and the note that says where these are from.

    Parameters
    ----------
    shape : (rows, columns)
    stated : StatedAxes
        What the cohort states.
    path : Path
        Of the table: a list in its JSON sidecar, or a table of names beside it, counts before a list in the root.
    sidecar : Path, optional
        JSON file that applies to the table; one of its own name is found without it.
    possible : sequence of int
        Axes that the table's labels do not call frames.

    Raises
    ------
    DataError
        If nobody states names, or they fit no axis, or both.
    """
    names, source = _names_of(stated, path, sidecar)
    size = f"{short(path.name)} has no ROI names and is {shape[0]} x {shape[1]}"
    if names is None:
        problem = f", and {source}" if source else ""
        msg = (
            f"{size}{problem}: give the cohort `names` (one a line, in the table's order), and `orientation`"
        )
        raise DataError(msg)
    if stated.orientation is not None:
        possible = [axis for axis in possible if stated.orientation.split(",")[axis] == "roi"]
    if not possible:
        msg = f"{short(path.name)}: `orientation: {stated.orientation}` contradicts the labels of its axes"
        raise DataError(msg)
    fits = [axis for axis in possible if shape[axis] == len(names)]
    if not fits:
        where = f"its {AXES[possible[0]]} are not" if len(possible) == 1 else "neither side is"
        raise DataError(f"{size}: {where} the {len(names)} ROIs of {source}")
    if len(fits) > 1:
        msg = f"{size}: both sides could be the {len(names)} ROIs of {source}: set the cohort's `orientation`"
        raise DataError(msg)
    said = note(Kind.ROI_ORDER, f"{AXES[fits[0]]} are the ROIs of {source}, the table names none")
    return fits[0], names, said


def _names_of(stated: StatedAxes, path: Path, sidecar: Path | None) -> tuple[tuple[str, ...] | None, str]:
    """Names that hold for a table without any, and where they are from: the nearest statement counts."""
    if stated.names is not None and stated.is_explicit:
        return stated.names, stated.source
    own = path.with_name(path.name.split(".", 1)[0] + ".json")
    for file in dict.fromkeys((own, sidecar)):
        if file is not None and (names := _of_sidecar(file)):
            return names, short(file.name)
    lists = _lists_beside(path.parent, _atlas_of(path.name))
    if len(lists) > 1 and len({name_lists.read(file) for file in lists}) > 1:
        msg = f"{short(path.name)} has several lists of names beside it that differ: set the cohort's `names`"
        raise DataError(msg)
    if lists:
        return name_lists.read(lists[0]), short(lists[0].name)
    return stated.names, stated.source


@lru_cache(maxsize=64)
def _of_sidecar(file: Path) -> tuple[str, ...] | None:
    try:
        content = name_lists.json_of(file)
    except FileNotFoundError:
        return None
    return name_lists.in_fields(content)


@lru_cache(maxsize=64)
def _lists_beside(folder: Path, atlas: str | None) -> tuple[Path, ...]:
    """Tables of names next to a table (``atlas-X_dseg.tsv``), of its atlas if both state one."""
    return tuple(
        file
        for file in sorted(folder.glob("*_dseg.tsv"))
        if atlas is None or _atlas_of(file.name) in (None, atlas)
    )


def _atlas_of(name: str) -> str | None:
    entities = bids_names.parse(name)
    return entities.get("seg") or entities.get("atlas")
