"""What all sections of ``config.yaml`` share."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+]+$")]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def to_json(section: Section, *, without: Collection[str] = ()) -> str:
    """Canonical JSON of a section, but for some of its fields."""
    values = section.model_dump(mode="json", exclude=set(without))
    return json.dumps(values, sort_keys=True, separators=(",", ":"))
