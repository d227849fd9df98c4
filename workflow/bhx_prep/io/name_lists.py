"""Read lists of ROI names from files: one per line, a table with a column of names, or a JSON list.

The standard library only: the names of a cohort are read while a study is planned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bhx_model.errors import DataError
from bhx_prep.atlas.label_lists import read_label_list
from bhx_prep.io import axis_labels
from bhx_prep.io.notes import quote, short

#: Bytes of a list of names at most.
MAX_BYTES: Final = 4 << 20

_JSON_KEYS = ("ROINames", "roi_names", "ROIs", "rois", "names", "Names", "labels", "Labels", "regions", "Regions",
              "parcels", "Parcels", "columns", "Columns", "label_names")  # fmt: skip


def read(path: Path) -> tuple[str, ...]:
    """Names of a text file, in their order; ordered by the number in a column called index or label, if there is one.

    Raises
    ------
    DataError
        If it cannot be read, holds no names, or one twice.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{short(path.name)} is too large for a list of names")
    except OSError as error:
        raise DataError(f"{short(path.name)} cannot be read: {error.strerror}") from error
    if path.suffix == ".json":
        return _checked(_of_json(path), path)
    return _checked([axis_labels.clean(name) for name in read_label_list(path, short(path.name)).names], path)


def json_of(path: Path) -> Any:
    """Content of a JSON file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    DataError
        If it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{short(path.name)} cannot be read as JSON: fix or remove it") from error


def _of_json(path: Path) -> list[str]:
    content = json_of(path)
    names = content if _is_names(content) else in_fields(content)
    if names is None:
        raise DataError(f"{short(path.name)} holds no list of ROI names")
    return [axis_labels.clean(name) for name in names]


def in_fields(fields: Any) -> tuple[str, ...] | None:
    """The list of ROI names among a sidecar's fields, if there is one."""
    if not isinstance(fields, dict):
        return None
    for key in _JSON_KEYS:
        if _is_names(fields.get(key)):
            return tuple(_of_rois([axis_labels.clean(name) for name in fields[key]]))
    return None


def _of_rois(names: Sequence[str]) -> Sequence[str]:
    """Names without a first one for label 0, as nilearn lists it."""
    return names[1:] if names and names[0].lower() == "background" else names


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(name, str) for name in value)


def _checked(names: Sequence[str], path: Path) -> tuple[str, ...]:
    names = _of_rois([name for name in names if name])
    if len(names) < 2:
        raise DataError(f"{short(path.name)} holds no list of ROI names")
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{short(path.name)} holds a name twice: {quote(twice)}")
    return tuple(names)
