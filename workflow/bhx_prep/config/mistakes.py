"""Format mistakes in a configuration as sentences."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

#: Characters of a list of values that a sentence holds.
LONGEST = 130


def sentence(error: Mapping[str, Any], root: type[BaseModel]) -> str:
    """One of pydantic's errors with its dotted path, and the nearest key or value where one is misspelt."""
    path = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        known = _fields_at(root, error["loc"][:-1])
        return f"{path}: no such key{nearest(str(error['loc'][-1]), known)}"
    if error["loc"][-1:] == ("[key]",) and not isinstance(error["input"], str):
        above = ".".join(str(part) for part in error["loc"][:-2])
        return f"{above}: YAML reads a name there as {error['input']!r}, which is no text: put the name in quotes"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "path_type":
        message = "should be the path of a file or folder"
    if error["type"] == "missing":
        message = "is missing"
    elif error["type"] == "string_pattern_mismatch":
        message = (
            f"{error['input']!r} may hold only letters and digits; names are lower-case with a letter first"
        )
    elif "input" in error and isinstance(error["input"], str | int | float | bool):
        said = repr(error["input"])
        given = f"(is {said if len(said) <= LONGEST else said[: LONGEST // 2] + '..'})"
        if error["type"] == "string_type":  # where a name, an id or a label is expected
            message = "put it in quotes: YAML reads it as a number or a truth value, and not as text"
        message = f"{message} {given}"
        if error["type"] == "literal_error":
            known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
            if len(message) > LONGEST:  # too many to read
                message = f"Input should be one of {len(known)}, e.g. {known[0]!r} or {known[-1]!r} {given}"
            if "did you mean" in (near := nearest(str(error["input"]), known)):
                message += near
    return f"{path}: {message}" if path else message


def nearest(word: str, known: Mapping[str, Any] | list[str]) -> str:
    """End of a sentence about an unknown word: the nearest known one, or all of them."""
    return close(word, known) or f"; there are: {', '.join(known) or 'none'}"


def close(word: str, known: Mapping[str, Any] | list[str]) -> str:
    """End of a sentence about an unknown word: the nearest known one; empty where none is near."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def _fields_at(root: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = root
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:  # the name of a cohort, an experiment or an endpoint
            continue
        model = next(iter(_sections_in(field.annotation)), model)
    return list(model.model_fields)


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _sections_in(argument)
