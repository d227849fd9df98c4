"""The base class of all sections of ``config.yaml``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from bhx_model import home_folder
from bhx_model.errors import ConfigError
from bhx_model.remote.urls import DOWNLOAD_WEIGHTS, was_url
from bhx_prep.config.mistakes import sentence

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+]+$")]


def as_text(value: Any) -> Any:
    """A number such as 2 or -9999 as text, as tables have it.

    Raises
    ------
    ConfigError
        For what YAML makes of the words yes, no, on, off, true, false and null.
    """
    if value is None or isinstance(value, bool):
        word = "null" if value is None else "yes, no, on, off, true or false"
        raise ConfigError(f"write it in quotes, as the table has it: YAML reads {word} as no text")
    return str(value) if isinstance(value, int | float) else value


_V = TypeVar("_V")

#: A value of a table or a file name; YAML reads some of them as numbers.
Value = Annotated[str, BeforeValidator(as_text, json_schema_input_type=str | float)]


def path_mistake(text: str) -> str | None:
    """Why a text names no file or folder, as where it was meant for a shell; None where it may."""
    if not text.strip():
        return "no path is given"
    if text[0] in "'\"" and text[-1] == text[0]:
        return "the quotation marks are part of the path: leave them out"
    if named := re.search(r"\$\{?[A-Za-z_]\w*\}?|\$\(.*\)|`.*`", text):
        return f"variables such as {named[0]} are not replaced here: write the path itself"
    try:
        home_folder.expanded(text)
    except ConfigError as error:
        return str(error)
    return None


def _as_path_text(value: Any) -> Any:
    """A path as it was written, as `Path` forgets that it was empty."""
    if isinstance(value, str | Path) and (mistake := path_mistake(str(value))) is not None:
        raise ConfigError(mistake)
    return value


def as_path(path: Path) -> Path:
    """A path of the user's, with the home folder in place of `~`.

    Raises
    ------
    ConfigError
        If it is a URL, or there is no such home folder.
    """
    if was_url(path):
        raise ConfigError(
            f"it is a URL, and a path of this machine is expected: download it (weights: `{DOWNLOAD_WEIGHTS}`)"
        )
    return home_folder.expanded(path)


#: A file or folder that the configuration names, relative to the folder that Snakemake or `bhx` works in.
UserPath = Annotated[Path, BeforeValidator(_as_path_text), AfterValidator(as_path)]


def once_each(values: tuple[_V, ...]) -> tuple[_V, ...]:
    """Values of a list without duplicates, which are refused.

    Raises
    ------
    ConfigError
        If one does.
    """
    if twice := [value for number, value in enumerate(values) if value in values[:number]]:
        raise ConfigError(f"{twice[0]!r} occurs twice: name it once")
    return values


class Section(BaseModel):
    """A part of the configuration: unknown keys and numbers without end are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_is_a_number(cls, given: Any, info: ValidationInfo) -> Any:
        if isinstance(given, bool) and info.field_name is not None:
            annotation = cls.model_fields[info.field_name].annotation
            if {int, float} & {annotation, *get_args(annotation)} and bool not in {
                annotation,
                *get_args(annotation),
            }:
                raise ConfigError("write a number: YAML reads yes, no, on, off, true and false as none")
        return given


_S = TypeVar("_S", bound=Section)


def read_section(model: type[_S], values: Any) -> _S:
    """Check the plain values of one section, as a job is given them.

    Raises
    ------
    ConfigError
        With every mistake.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        mistakes = [sentence(e, model) for e in error.errors(include_url=False)]
        raise ConfigError("; ".join(mistakes), mistakes) from None


def to_json(section: Section) -> str:
    """Canonical JSON of a section."""
    return json.dumps(section.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
