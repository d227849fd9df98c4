"""Section `atlas`: the parcellation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from bhx_model.errors import ConfigError
from bhx_prep.config.section import Section

#: Regions of Tian's subcortex (2020, 3 T) by its scale.
TIAN_REGIONS = {"S1": 16, "S2": 32, "S3": 50, "S4": 54}


class AtlasSection(Section):
    """The parcellation: Schaefer 2018, by size and network order, with or without Tian's subcortex."""

    parcels: Literal[100, 200, 300, 400, 500, 600, 700, 800, 900, 1000] = Field(
        default=400, description="Number of cortical parcels."
    )
    networks: Literal[7, 17] = Field(default=17, description="Order of the parcels: by 7 or by 17 networks.")
    subcortex: Literal["S1", "S2", "S3", "S4"] | None = Field(
        default=None, description="Tian's subcortex before the cortex, by its scale (source `files`)."
    )
    source: Literal["packages", "templateflow", "files"] = Field(
        default="packages",
        description="Where the atlas comes from: installed Python packages (the demo), TemplateFlow, or the files below.",
    )
    volume: Path | None = Field(default=None, description="Label image in MNI space; overrides the source.")
    cifti: Path | None = Field(
        default=None, description="Label file on the 91k grayordinates; overrides the source."
    )
    left: Path | None = Field(
        default=None, description="Left label file on the surface; overrides the source."
    )
    right: Path | None = Field(
        default=None, description="Right label file on the surface; overrides the source."
    )
    names: Path | None = Field(
        default=None, description="Text file with one ROI name per line, or a label list (source `files`)."
    )

    @property
    def label(self) -> str:
        """Name of the atlas in files and shards, e.g. ``Schaefer17n400p``, ``Schaefer7n400pTianS3``."""
        return f"Schaefer{self.networks}n{self.parcels}p" + (
            f"Tian{self.subcortex}" if self.subcortex else ""
        )

    @property
    def n_subcortical(self) -> int:
        """Regions of the subcortex; they come before the cortical parcels."""
        return TIAN_REGIONS[self.subcortex] if self.subcortex else 0

    @model_validator(mode="after")
    def _files_are_named(self) -> AtlasSection:
        given = [self.volume, self.cifti, self.left, self.right]
        if self.source == "files" and not (any(given) and self.names):
            raise ConfigError(
                "source `files` needs `names` and at least one of `volume`, `cifti`, `left` + `right`"
            )
        if self.source != "files" and self.subcortex:
            raise ConfigError(
                "neither the packages nor TemplateFlow carry Tian's subcortex: set `source` to `files`, `volume` and"
                " `cifti` to the Tian lab's combined files and `names` to their label list"
            )
        if self.source != "files" and self.names:
            raise ConfigError("`names` are those of the source: remove it, or set `source` to `files`")
        return self
