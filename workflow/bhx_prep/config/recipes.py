"""Cohort recipes: metadata of a data set, and the steps from its provider to a table. One YAML file each.

A recipe is the only place where a fact about a data set stands; every fact names its source. `bhx_prep.config.layouts`
gives those that have a layout of their own, `bhx reproduce` prints them and makes configurations of them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from bhx_model.errors import ConfigError
from bhx_prep import installation
from bhx_prep.config import yaml_file
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.mistakes import close
from bhx_prep.config.section import Section, Value, read_section

#: What tables write for unknown, whatever the data set.
UNKNOWN: Final = ("", "n/a", "N/A", "NA", "NaN", "nan")


class Fact(Section):
    """A sentence and where it is from."""

    text: str = Field(description="What is so.")
    source: str = Field(description="Key of the recipe's `sources`.")


class Column(Section):
    """A column of a table."""

    name: str = Field(description="As the table spells it, blanks at its ends included.")
    meaning: str = Field(description="What it holds.")
    values: dict[Value, str] = Field(default={}, description="What its codes mean.")
    counts: dict[Value, int] = Field(
        default={}, description="How many rows have a value, as counted in the table; all values, or some."
    )


class Table(Section):
    """A table of the data set."""

    file: str = Field(description="Its name as published.")
    holds: str = Field(description="What its rows are.")
    source: str = Field(description="Key of the recipe's `sources`.")
    rows: int | None = Field(default=None, description="How many, as counted; null where it is not known.")
    columns: tuple[Column, ...] = Field(default=(), description="Those that BHX or a reader needs.")


class Access(Section):
    """How the data are had."""

    where: str = Field(description="Address.")
    how: str = Field(description="What has to be done, a sentence.")
    cost: Literal["free", "application", "not public"] = Field(description="What stands before it.")


class Paper(Section):
    """What the paper used of it; null is not recovered."""

    role: Literal["pretraining", "endpoint", "none"] = Field(description="What it was for.")
    subjects: int | None = Field(default=None, description="Subjects.")
    t1w: int | None = Field(default=None, description="T1w images.")
    bold: int | None = Field(default=None, description="BOLD runs.")
    text: str = Field(default="", description="What else is known.")
    source: str | None = Field(default=None, description="Key of the recipe's `sources`.")


class Times(Section):
    """Repetition times (s)."""

    source: str = Field(description="Key of the recipe's `sources`.")
    sites: dict[str, float] = Field(
        description="By site, as folders and files spell it; `all` where all are alike."
    )
    subjects: dict[Value, float] = Field(
        default={}, description="Of subjects who were not scanned as the rest of their site, by label."
    )

    def of(self, subject: str, site: str | None) -> float | None:
        """The time of a subject (label without ``sub-``) of a site; None if it is not known."""
        return self.subjects.get(subject) or self.sites.get(site or "")


class Family(Section):
    """How families are known."""

    column: str | None = Field(default=None, description="Column of the participants table; null for none.")
    text: str = Field(description="What is known of relatives.")
    source: str | None = Field(
        default=None, description="Key of the recipe's `sources`; null: nothing was found."
    )


class Size(Section):
    """How much there is."""

    subjects: int = Field(ge=1, description="Subjects.")
    t1w: int = Field(ge=0, description="T1w images.")
    bold: int = Field(ge=1, description="BOLD runs.")
    frames: int = Field(ge=1, description="Frames of a run, the median.")
    source: str = Field(description="Key of the recipe's `sources`.")


class Need(Section):
    """A file that has to be there."""

    path: str = Field(description="Below the folder of the data; `*` and `**` as in a shell.")
    what: str = Field(description="What it is, for the sentence where it is missing.")


class Reproduction(Section):
    """How `bhx reproduce` gets to a table with an input."""

    download: tuple[str, ...] = Field(
        min_length=1, description="Steps, commands among them; `{data}` is the folder."
    )
    needs: tuple[Need, ...] = Field(min_length=1, description="What has to be there before it runs.")
    cohort: dict[str, Any] = Field(
        default={}, description="Keys of the cohort's section beside input, layout, root."
    )
    atlas: dict[str, Any] = Field(default={}, description="Section `atlas`.")
    features: dict[str, Any] = Field(default={}, description="Section `features`.")
    size: Size | None = Field(default=None, description="How much there is; null where it is not known.")


class Input(Section):
    """One of the values that the cohort's `input` can have."""

    defaults: dict[str, Any] = Field(
        default={}, description="Keys of the cohort's section where the user does not say otherwise."
    )
    reproduce: Reproduction | None = Field(default=None, description="For `bhx reproduce`; null for none.")


class Recipe(Section):
    """A data set."""

    title: str = Field(description="Its name in a sentence.")
    layout: str | None = Field(description="Value of `layout` that reads it; null for none of its own.")
    documented: tuple[str, ...] = Field(min_length=1, description="Where its files and tables are described.")
    sources: dict[str, str] = Field(description="Where the facts are from, by the key that names them.")
    access: Access = Field(description="How the data are had.")
    terms: str = Field(description="Licence or data use agreement.")
    cite: str | None = Field(default=None, description="Publications to cite; null where it is not known.")
    missing: tuple[Value, ...] = Field(default=(), description="Codes of its tables that mean unknown.")
    id_columns: tuple[str, ...] = Field(
        default=("participant_id",),
        description="Columns of ids in its tables, the first that is there counts.",
    )
    second_header: bool = Field(
        default=False, description="Whether the second line of its tables describes the columns."
    )
    paper: Paper = Field(description="What the paper used of it.")
    tables: tuple[Table, ...] = Field(default=(), description="Its tables.")
    repetition_times: Times | None = Field(default=None, description="Null where only the scans state it.")
    site_codes: dict[Value, str] = Field(default={}, description="Site by its code in tables.")
    sites: str = Field(description="What is known of sites, a sentence.")
    exclusions: tuple[Fact, ...] = Field(default=(), description="Who is excluded and why.")
    family: Family = Field(description="How relatives are known.")
    endpoint: dict[str, Any] | None = Field(
        default=None, description="The paper's endpoint as a section `endpoints.<name>`, without `cohort`."
    )
    experiment: dict[str, Any] | None = Field(
        default=None, description="The paper's pretraining as a section `experiments.<name>`."
    )
    inputs: dict[str, Input] = Field(
        default={}, description="By value of `input`, the one to begin with first."
    )
    unknown: tuple[str, ...] = Field(default=(), description="What is not known, a sentence each.")

    def codes(self, column: str) -> dict[str, str]:
        """What the codes of a column mean, by the first table that states it; empty if none does."""
        stated = (c.values for table in self.tables for c in table.columns if c.name == column and c.values)
        return next(stated, {})

    @property
    def unknown_values(self) -> tuple[str, ...]:
        """All that its tables write for unknown."""
        return (*UNKNOWN, *self.missing)

    @model_validator(mode="after")
    def _sources_are_there(self) -> Recipe:
        cited = [fact.source for fact in self.exclusions] + [table.source for table in self.tables]
        cited += [
            way.reproduce.size.source for way in self.inputs.values() if way.reproduce and way.reproduce.size
        ]
        for part in (self.paper, self.repetition_times, self.family):
            cited += [part.source] if part is not None and part.source is not None else []
        if strange := sorted(set(cited) - self.sources.keys()):
            raise ConfigError(f"source {strange[0]!r} is not among the recipe's `sources`")
        if (self.paper.role == "endpoint") != (self.endpoint is not None):
            raise ConfigError("a data set is an endpoint of the paper if, and only if, it has an `endpoint`")
        return self

    @model_validator(mode="after")
    def _endpoint_is_one(self) -> Recipe:
        if self.endpoint is not None and self.endpoint.get("column") is not None:
            EndpointSection.model_validate({"cohort": "any", **self.endpoint})
        return self


def folder() -> Path:
    """Where the recipes are."""
    return installation.resources() / "cohorts"


@functools.cache
def names() -> tuple[str, ...]:
    """Names of all recipes."""
    return tuple(sorted(path.stem for path in folder().glob("*.yaml")))


@functools.cache
def load(name: str) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    name : str
        Its file's name without ending.

    Raises
    ------
    ConfigError
        If there is none of that name, or it is not as the schema has it.
    """
    if name not in names():
        near = close(name.lower(), list(names()))
        raise ConfigError(f"no cohort {name!r} is known{near}; known: {', '.join(names())}")
    return read(folder() / f"{name}.yaml")


def read(path: Path) -> Recipe:
    """Read a recipe's file.

    Raises
    ------
    ConfigError
        If it cannot be read (`yaml_file.load`) or is not as the schema has it.
    """
    values = yaml_file.load(path)
    try:
        return read_section(Recipe, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", error.mistakes) from None


def times(name: str) -> Times:
    """Repetition times (s) of a data set that has them."""
    stated = load(name).repetition_times
    assert stated is not None, f"{name}.yaml states none"
    return stated
