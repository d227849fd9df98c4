"""Keys and values renamed since earlier versions: each is a mistake that gives the new name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

#: Key of a section -> its name now. A ``*`` stands for any name of a cohort, an experiment or an endpoint.
KEYS: Final[Mapping[tuple[str, ...], str]] = {
    ("cohorts", "*", "door"): "input",  # 0.1
}

#: Key, as it is called now -> its earlier values, and what they are called now.
VALUES: Final[Mapping[tuple[str, ...], Mapping[str, str]]] = {
    ("cohorts", "*", "input"): {"parcellated": "timeseries"},  # 0.1
}

_Change = Callable[[dict[str, Any], tuple[str, ...]], dict[str, Any]]


def with_new_names(raw: Any) -> tuple[Any, list[str]]:
    """Replace old names in a configuration by the current ones, so that everything else in it can be checked, too.

    Parameters
    ----------
    raw : any
        Plain values, as read from the file; not changed.

    Returns
    -------
    any
        The configuration with today's names.
    list of str
        A sentence for every earlier name, with its dotted path.
    """
    sentences: list[str] = []
    for path, new in KEYS.items():
        raw = _change(raw, path, (), lambda place, key, new=new: _rename(place, key, new, sentences))
    for path, values in VALUES.items():
        raw = _change(raw, path, (), lambda place, key, v=values: _revalue(place, key, v, sentences))
    return raw, sentences


def _change(node: Any, path: tuple[str, ...], done: tuple[str, ...], change: _Change) -> Any:
    """A copy of `node` in which `change` was applied to every mapping that `path` leads to."""
    if not isinstance(node, Mapping):
        return node
    key, *rest = path
    if not rest:
        return change(dict(node), (*done, key)) if key in node else node
    names = list(node) if key == "*" else [name for name in (key,) if name in node]
    return {**node, **{n: _change(node[n], tuple(rest), (*done, str(n)), change) for n in names}}


def _rename(section: dict[str, Any], path: tuple[str, ...], new: str, sentences: list[str]) -> dict[str, Any]:
    old, value = path[-1], section.pop(path[-1])
    if new in section:
        sentences.append(
            f"{'.'.join(path)}: `{old}` is called `{new}` now, which is given too: remove `{old}`"
        )
        return section
    meant = value
    if isinstance(value, str):  # both in one sentence
        meant = VALUES.get((path[0], "*", new), {}).get(value, value)
    written = f"{new}: {meant}" if isinstance(meant, str | int | float) else new
    sentences.append(f"{'.'.join(path)}: `{old}` is called `{new}` now: write `{written}`")
    return {**section, new: meant}


def _revalue(
    section: dict[str, Any], path: tuple[str, ...], values: Mapping[str, str], sentences: list[str]
) -> dict[str, Any]:
    value = section[path[-1]]
    if not isinstance(value, str) or value not in values:
        return section
    new = values[value]
    sentences.append(f"{'.'.join(path)}: `{value}` is called `{new}` now: write `{path[-1]}: {new}`")
    return {**section, path[-1]: new}
