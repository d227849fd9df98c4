"""Section `atlas`: the parcellation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from bhx_model.errors import ConfigError
from bhx_prep.config.section import Label, Section, UserPath

#: Regions of Tian's subcortex (2020, 3 T) by its scale.
TIAN_REGIONS = {"S1": 16, "S2": 32, "S3": 50, "S4": 54}


def _listed(value: Any) -> Any:
    """One path, or none, as a list of paths."""
    return () if value is None else (value,) if isinstance(value, str | Path) else value


class AtlasSection(Section):
    """The parcellation: Schaefer 2018, by size and network order, or an atlas of your own, by its name and files."""

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
    name: Label | None = Field(
        default=None,
        description="Name of an atlas of your own, e.g. `CC200` (source `files`). It then has the ROIs of `names`; "
        "`parcels`, `networks` and `subcortex` are Schaefer's and have no effect. Tables need no label file.",
    )
    volume: Annotated[
        tuple[UserPath, ...], BeforeValidator(_listed, json_schema_input_type=Path | tuple[Path, ...] | None)
    ] = Field(
        default=(),
        description="Label image in MNI space, or one for each space of the cohorts; the file names state "
        "the spaces. Overrides the source.",
    )
    cifti: UserPath | None = Field(
        default=None, description="Label file on the 91k grayordinates; overrides the source."
    )
    left: UserPath | None = Field(
        default=None, description="Left label file on the surface; overrides the source."
    )
    right: UserPath | None = Field(
        default=None, description="Right label file on the surface; overrides the source."
    )
    names: UserPath | None = Field(
        default=None,
        description="ROI names, one per line, or a table of numbers and names: FreeSurfer's or CBIG's lookup table, BIDS' "
        "`dseg.tsv`, Workbench's label list (source `files`).",
    )

    @property
    def label(self) -> str:
        """Name of the atlas in files and shards, e.g. ``Schaefer17n400p``, ``Schaefer7n400pTianS3``, ``CC200``."""
        if self.name:
            return self.name
        return f"Schaefer{self.networks}n{self.parcels}p" + (
            f"Tian{self.subcortex}" if self.subcortex else ""
        )

    @property
    def n_subcortical(self) -> int:
        """Regions of Tian's subcortex; they come before the cortical parcels."""
        return TIAN_REGIONS[self.subcortex] if self.subcortex else 0

    @property
    def label_files(self) -> tuple[Path, ...]:
        """Files that the config names, but for the names."""
        return (*self.volume, *(path for path in (self.cifti, self.left, self.right) if path))

    @property
    def named_files(self) -> list[str]:
        """All files that the config names: what is made of them is made again when one changes."""
        return [str(path) for path in (self.names, *self.label_files) if path]

    @model_validator(mode="after")
    def _files_are_named(self) -> AtlasSection:
        if self.name:
            self._check_own()
        elif self.source == "files" and not (self.label_files and self.names):
            raise ConfigError(
                "source `files` needs `names` and at least one of `volume`, `cifti`, `left` + `right`; an atlas other "
                "than Schaefer's needs a `name`, and then `names` alone may do"
            )
        if (self.left is None) != (self.right is None):
            raise ConfigError("`left` and `right` belong together: name both or neither")
        if self.source != "files" and self.subcortex:
            raise ConfigError(
                "neither the packages nor TemplateFlow carry Tian's subcortex: set `source` to `files`, `volume` and"
                " `cifti` to the Tian lab's combined files and `names` to their label list"
            )
        if self.source != "files" and self.names:
            raise ConfigError("`names` are those of the source: remove it, or set `source` to `files`")
        return self

    def _check_own(self) -> None:
        if self.source != "files":
            raise ConfigError(
                f"`name` is that of your own atlas, the source `{self.source}` has Schaefer's: set `source` to `files`"
            )
        if not self.names:
            raise ConfigError(
                f"the ROIs of {self.name} are not named: set `names` to a text file, one a line"
            )
        fields = type(self).model_fields
        for key in ("parcels", "networks", "subcortex"):
            if getattr(self, key) != fields[key].default:
                raise ConfigError(
                    f"`{key}` describes Schaefer's atlas, but `name` is {self.name}: remove one of them; the number of "
                    "ROIs of your own atlas is that of `names`"
                )
