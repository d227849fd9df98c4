"""Make a configuration from a recipe: files missing in the data folder, and the sections that read it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bhx_model.errors import ConfigError, DataError
from bhx_prep.config import config, recipes
from bhx_prep.config.mistakes import nearest
from bhx_prep.config.recipes import Recipe, Reproduction

#: Rows of connectivity, and the rows that a model has.
CONNECTIVITY: Final = (
    "fc",
    "fc_svm",
    "fc_kernel_ridge",
    "fc_partial",
    "fc_tangent",
    "permuted",
    "acquisition",
)
MODEL: Final = ("probe", "hub_tokens", "finetune", "function_regions", "function_regions_untrained")
#: Floors, by the columns of the participants table that they need.
FLOORS: Final = {"site": ("site",), "age_sex": ("age", "sex"), "motion": ("motion",)}


@dataclass(frozen=True)
class Plan:
    """A cohort's way to its table.

    Attributes
    ----------
    cohort : str
        Name of the recipe.
    recipe : Recipe
    input : str
        Value of `input`.
    way : Reproduction
        How that input is reproduced.
    data : Path
        Folder of the data.
    column : str, optional
        Column of the endpoint, where it is not the recipe's.
    weights : Path, optional
        Trained weights, for the rows of a model.
    """

    cohort: str
    recipe: Recipe
    input: str
    way: Reproduction
    data: Path
    column: str | None = None
    weights: Path | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """Rows of the endpoint's table: what needs no model, as far as its columns are known, and with weights a model's."""
        known = self.way.cohort.get("columns", {})
        floors = [name for name, needed in FLOORS.items() if set(needed) <= known.keys()]
        # motion is measured with every image, series alone have it in a column only
        if self.input != "timeseries":
            floors.append("motion")
        return (*CONNECTIVITY, *dict.fromkeys(floors), *(MODEL if self.weights is not None else ()))

    @property
    def results(self) -> str:
        """Folder that BHX writes to."""
        return f"results-{self.cohort}"


def make(
    cohort: str, data: Path | None, kind: str | None, column: str | None = None, weights: Path | None = None
) -> Plan:
    """Choose how a cohort is reproduced.

    Parameters
    ----------
    cohort : str
    data : Path, optional
        ``data/<cohort>`` when None.
    kind : str, optional
        Value of `input`; the recipe's first when None.
    column : str, optional
        Column of the endpoint.
    weights : Path, optional
        Trained weights.

    Raises
    ------
    ConfigError
        If no such cohort is known, or none with that input.
    """
    recipe = recipes.load(cohort)
    ways = {name: way.reproduce for name, way in recipe.inputs.items() if way.reproduce is not None}
    if not ways:
        raise ConfigError(
            f"{recipe.title} has a layout, but no endpoint or pretraining of the paper to reproduce"
        )
    chosen = kind or next(iter(ways))
    if chosen not in ways:
        raise ConfigError(
            f"--input: {recipe.title} is not reproduced from {chosen!r}{nearest(chosen, list(ways))}"
        )
    return Plan(cohort, recipe, chosen, ways[chosen], data or Path("data") / cohort, column, weights)


def missing(plan: Plan) -> list[str]:
    """What has to be there and is not, a phrase each: path and what it is."""
    return [
        f"{plan.data / need.path} ({need.what})"
        for need in plan.way.needs
        if not _is_there(plan.data, need.path)
    ]


def _is_there(root: Path, pattern: str) -> bool:
    # a link to nowhere is no file
    return root.is_dir() and any(os.path.exists(found) for found in root.glob(pattern))  # noqa: PTH110


def refuse_missing(plan: Plan, lacking: Sequence[str]) -> None:
    """Refuse to go on without the data.

    Raises
    ------
    DataError
        If something is missing.
    """
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise DataError(
            f"{plan.cohort}: the data are not there: no {lacking[0]}{more}; get them as the page says"
        )


def sections(plan: Plan) -> dict[str, Any]:
    """The configuration, as plain values that `bhx config check` takes.

    Raises
    ------
    ConfigError
        If the endpoint's column is not known and none was named.
    """
    recipe, folder = plan.recipe, str(plan.data)
    cohort: dict[str, Any] = {"input": plan.input}
    if recipe.layout is not None:
        cohort["layout"] = recipe.layout
    cohort = {**cohort, "root": folder, **_placed(plan.way.cohort, folder)}
    study: dict[str, Any] = {"results": plan.results, "cohorts": {plan.cohort: cohort}}
    for name, values in (("atlas", plan.way.atlas), ("features", plan.way.features)):
        if values:
            study[name] = _placed(values, folder)
    if recipe.experiment is not None:
        # of the paper's cohorts this one alone: the other may not be at hand
        study["experiments"] = {plan.cohort: {**recipe.experiment, "cohorts": [plan.cohort]}}
    if plan.weights is not None:
        study["experiments"] = {"given": {"weights": str(plan.weights)}}
    if recipe.endpoint is not None:
        column = plan.column or recipe.endpoint["column"]
        if column is None:
            raise ConfigError(f"{plan.cohort}: the endpoint's column is not known: name it with --column")
        study["endpoints"] = {plan.cohort: {"cohort": plan.cohort, **recipe.endpoint, "column": column}}
        study["endpoints"][plan.cohort]["methods"] = list(plan.methods)
    config.check(study)
    return study


def _placed(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {key: _placed(one, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [_placed(one, folder) for one in value]
    return value.replace("{data}", folder) if isinstance(value, str) else value
