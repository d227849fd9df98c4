"""Section `features`: from derivatives to parcel series and T1 volumes, and the denoising strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from bhx_model.errors import ConfigError
from bhx_prep.config.mistakes import nearest
from bhx_prep.config.section import Section

#: Voxels along an axis of a grid.
Edge = Annotated[int, Field(gt=0)]

#: Folder of the denoising strategies that come with BHX.
STRATEGIES = Path(__file__).parents[1] / "features" / "strategies"


def strategy_file(name: str) -> Path:
    """File of a denoising strategy: one of ours by its name, or a YAML file by its path.

    Raises
    ------
    ConfigError
        If there is no such file.
    """
    own = not name.endswith((".yaml", ".yml"))
    path = STRATEGIES / f"{name.replace('+', '-')}.yaml" if own else Path(name)
    if not path.is_file():
        known = sorted(file.stem for file in STRATEGIES.glob("*.yaml"))
        if own:
            hint = nearest(name, known)
        elif path.stem in known and STRATEGIES.name in path.parts:  # ours, where an earlier version had them
            hint = f"; write `{path.stem}` for the one that comes with BHX"
        else:
            hint = "; is its path right?"
        raise ConfigError(f"no denoising strategy {name!r}{hint}")
    return path


def _known_strategy(name: str) -> str:
    strategy_file(name)
    return name


def _harmonics(value: Any) -> Any:
    """One sentence for a union, of which pydantic gives one per member."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if value != "none" and (
        not isinstance(number, int) or isinstance(number, bool) or not 2 <= number <= 1000
    ):
        raise ConfigError("should be a number from 2 to 1000, or `none`")
    return number


StrategyName = Annotated[str, AfterValidator(_known_strategy)]


class FeaturesSection(Section):
    """From derivatives to parcel series and T1 volumes."""

    strategy: StrategyName = Field(
        default="paper",
        description="Denoising strategy: a name from `workflow/bhx_prep/features/strategies/` or a YAML file.",
    )
    min_coverage: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of a parcel's voxels with signal below which its series is NaN.",
    )
    min_rois: float = Field(
        default=0.9, ge=0, le=1, description="Share of parcels with coverage that a run needs."
    )
    max_mean_fd_mm: float = Field(
        default=0.5, gt=0, description="Mean framewise displacement (mm) above which a run is excluded."
    )
    min_seconds: float = Field(
        default=100.0, gt=0, description="Shortest run (s), after dropped and censored frames."
    )
    patch_seconds: float = Field(
        default=35.28,
        gt=0,
        description="Temporal patch of the function encoder (s). If frames were cut out of a run, "
        "`min_seconds` counts the whole patches between the cuts, because no patch crosses a cut.",
    )
    t1w_resolution_mm: float = Field(
        default=1.0, gt=0, description="Voxel size (mm) of the model's T1 grid. The paper: 1."
    )
    t1w_shape: tuple[Edge, Edge, Edge] = Field(
        default=(160, 192, 160),
        description="Voxels of the model's T1 grid, a crop of the MNI grid. The paper: 160, 192, 160.",
    )
    t1w_min_dice: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="Overlap (Dice) with the template's brain mask below which a T1 is excluded.",
    )
    t1w_min_correlation: float = Field(
        default=0.5,
        ge=-1,
        le=1,
        description="Correlation with the template, of structure of 4 to 12 mm, below which a T1 is excluded.",
    )
    harmonics: Annotated[
        Annotated[int, Field(ge=2, le=1000)] | Literal["none"], BeforeValidator(_harmonics)
    ] = Field(
        default=200,
        description="Geometric harmonics per hemisphere; the paper: 200. `none` for an atlas without a surface: the "
        "position code then uses the gradients alone.",
    )
    gradients: int = Field(default=30, ge=1, le=100, description="Connectivity gradients. The paper: 30.")
