"""Read YAML files of the user's as plain values, with one-line errors, also for what YAML accepts and reads otherwise."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from bhx_model.errors import ConfigError, format_error

#: The parser of libyaml where PyYAML has it: a cohort may list thousands of subjects.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Values of a file, with what its anchors repeat: more are a mistake, or an anchor that holds itself.
MOST_VALUES: Final = 1_000_000
#: A whole number whose text is what YAML makes of it: 010 is 8, 1:30 is 90, 1_0 is 10.
_WHOLE_NUMBER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")


def read(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises
    ------
    ConfigError
        If it is missing, has no keys, or cannot be read (`load`).
    """
    if not path.exists():
        msg = f"there is no {path} here: name the configuration, go to the study's folder, or make one by `bhx init`"
        raise ConfigError(msg)
    values = load(path)
    if values is not None and not isinstance(values, dict):
        raise ConfigError(
            f"{path} has no keys: it starts with lines such as `cohorts:`, see `bhx config defaults`"
        )
    return values or {}


def load(path: Path) -> Any:
    """Read any YAML file of the user's; None where it is empty.

    Raises
    ------
    ConfigError
        If it cannot be opened, is not UTF-8 or not YAML, has a key twice (of two cohorts of one name YAML keeps the second
        and does not say so), or has a number or date that YAML reads otherwise than it is written (010 as 8).
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(format_error(error)) from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8; save the file in that encoding") from error
    try:
        node = yaml.compose(text, Loader=_Loader)
        if _expanded(node, {}) > MOST_VALUES:
            raise ConfigError(
                f"{path}: its anchors (&) repeat themselves without end: write out what they stand for"
            )
        lines = [
            f"{path}, line {line}: {key} occurs twice: keep one of them" for key, line in _repeated(node, ())
        ]
        lines += [f"{path}, line {line}: {mistake}" for mistake, line in _read_otherwise(node)]
        values = None if lines else yaml.load(text, Loader=_Loader)  # a safe loader
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(path, text, error)) from error
    if lines:
        raise ConfigError("\n".join(lines), lines)
    return values


def check_files(files: Iterable[Path]) -> None:
    """Read the files that Snakemake is about to read, which says less of what is wrong with them.

    Raises
    ------
    SystemExit
        With what is wrong with the first that cannot be used.
    """
    try:
        for file in files:
            read(file)
    except ConfigError as error:  # from within Snakemake an exception would show as a traceback
        raise SystemExit(str(error)) from None


def _not_yaml(path: Path, text: str, error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{path} is not YAML: {error}".partition("\n")[0]
    line = error.problem_mark.line + 1
    if "\t" in "".join(itertools.takewhile(str.isspace, [*text.splitlines(), "", ""][line - 1])):
        return f"{path}, line {line}: a tab; YAML is indented by spaces"
    opened = error.context_mark
    where = f" (in what starts at line {opened.line + 1})" if opened and opened.line + 1 != line else ""
    return (
        f"{path}, line {line}: not YAML, {error.problem}{where}: is a colon, quote or bracket missing there?"
    )


def _repeated(
    node: yaml.Node | None, above: tuple[str, ...], met: set[int] | None = None
) -> Iterator[tuple[str, int]]:
    """Dotted paths and lines of keys that a mapping already has; what an anchor repeats is looked at once."""
    met = set() if met is None else met
    if node is None or id(node) in met:
        return
    met.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            path = (*above, str(key.value))
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                yield ".".join(path), key.start_mark.line + 1
            seen.add(key.value)
            yield from _repeated(value, path, met)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _repeated(value, (*above, str(number)), met)


def _read_otherwise(node: yaml.Node | None, met: set[int] | None = None) -> Iterator[tuple[str, int]]:
    """Mistakes and lines of numbers and dates without quotes that YAML 1.1 reads otherwise than they are written."""
    met = set() if met is None else met
    if node is None or id(node) in met:
        return
    met.add(id(node))
    if isinstance(node, yaml.CollectionNode):
        for entry in node.value:
            for part in entry if isinstance(entry, tuple) else (entry,):
                yield from _read_otherwise(part, met)
        return
    kind = node.tag.rpartition(":")[2]
    line = node.start_mark.line + 1
    if kind == "timestamp":
        yield f"YAML reads {node.value} as a date: put it in quotes", line
    elif (kind == "int" and not _WHOLE_NUMBER.fullmatch(node.value)) or (
        kind == "float" and {"_", ":"} & {*node.value}
    ):
        number = yaml.load(node.value, Loader=_Loader)  # a safe loader
        yield f'YAML reads {node.value} as {number}: write "{node.value}" in quotes, or {number}', line


def _expanded(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many values a node stands for, with those that anchors repeat; infinite where one holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        pairs = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]
