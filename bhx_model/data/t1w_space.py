"""Describe the T1 that weights expect: grid, mask, intensities, and a coarse template to compare one with.

Needs no torch. An export holds it as ``t1w.npz``, so that a T1 can be made and checked from the export alone.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from bhx_model.atomic_write import atomic_write
from bhx_model.data import npz, t1w
from bhx_model.data.t1w import ModelGrid
from bhx_model.data.t1w_overlap import Coarse, coarse, compare, same_side
from bhx_model.errors import DataError

#: Name of the file, in an export and among the templates of a study.
FILE: Final = "t1w.npz"
#: Version of the form of the file.
VERSION: Final = 1
#: Correlation, of what differs between left and right in a volume and in the template, below which it is a mirror image.
MIRRORED: Final = -0.05
#: Voxel axes along which a volume may have been flipped, and what that is called.
_FLIPS: Final = {
    (1,): "flipped front to back",
    (2,): "upside down",
    (1, 2): "flipped front to back and upside down",
}


@dataclasses.dataclass(frozen=True, eq=False)
class T1wSpace:
    """Grid and appearance of the T1s of a training."""

    grid: ModelGrid
    template: str
    """Name of the template, e.g. ``MNI152NLin2009cAsym``."""
    reference: Coarse
    """The template on the grid, normalised as the T1s are, in blocks of about 4 mm."""
    min_dice: float
    """Overlap of the brain masks below which a T1 is refused."""
    min_correlation: float
    """Correlation with the template, of structure of 4 to 12 mm, below which a T1 is refused."""

    def describe(self) -> dict[str, Any]:
        """What a T1 has to be, for ``config.json`` and the model card."""
        low, high = t1w.ROBUST_PERCENTILES
        return {
            "template": self.template,
            "shape": list(self.grid.shape),
            "zooms_mm": self.grid.zooms_mm,
            "affine": self.grid.affine.tolist(),
            "axes": "RAS+ (x to the right, y to the front, z up)",
            "mask": "brain; voxels outside are 0",
            "intensity": {
                "recipe": "(value - mean) / standard deviation, of the brain's values between two percentiles",
                "percentiles": [low, high],
            },
            "interpolation": "linear, after a Gaussian where the new voxels are larger",
            "min_dice": self.min_dice,
            "min_correlation": self.min_correlation,
        }

    def conform(
        self, data: np.ndarray, affine: np.ndarray, mask: np.ndarray | None = None, name: str = "the T1"
    ) -> np.ndarray:
        """Mask, normalise and resample a T1 in MNI space, and compare it with the template.

        Parameters
        ----------
        data : (I, J, K) float
        affine : (4, 4) float
            Voxel to MNI space, mm.
        mask : (I, J, K), optional
            Brain mask; without it the T1 must be skull-stripped, its background 0.
        name : str
            What it is called in messages.

        Returns
        -------
        (X, Y, Z) float32
            As `embed` takes it.

        Raises
        ------
        DataError
            If it is empty, in another space, or flipped.
        """
        volume = t1w.conform(np.asarray(data, np.float32), np.asarray(affine, float), self.grid, name, mask)
        self.check(volume, name)
        return volume

    def check(self, volume: np.ndarray, name: str = "the T1") -> None:
        """Refuse a volume (X, Y, Z) on the grid that is not aligned with the template.

        Raises
        ------
        DataError
            If it is flipped, mirrored, or in another space.
        """
        background = float(np.median(volume[[0, -1]]))  # the outermost planes hold no brain
        ours = coarse(np.where(volume == background, 0, volume).astype(np.float32), self.grid)
        found = compare(ours, self.reference)
        if found.dice >= self.min_dice and found.correlation >= self.min_correlation:
            side = same_side(ours, self.reference, self.grid)
            if side < MIRRORED:
                msg = (
                    f"{name} is mirrored, left is right: its asymmetry correlates {side:.2f} with that of {self.template}:"
                    " reverse its first axis, or correct its affine"
                )
                raise DataError(msg)
            return
        how = next((text for axes, text in _FLIPS.items() if self._fits(ours, axes)), None)
        if how is not None:
            raise DataError(f"{name} is {how}: reorient it to RAS+, as the affine in config.json says")
        msg = (
            f"{name} does not lie as {self.template}: overlap {found.dice:.2f} (at least {self.min_dice:g}), correlation"
            f" {found.correlation:.2f} (at least {self.min_correlation:g}): register it to that space"
        )
        raise DataError(msg)

    def template_volume(self) -> np.ndarray:
        """The coarse template, (X, Y, Z) float32: blocks of about 4 mm, 0 outside of the brain."""
        width = max(1, round(self.reference.voxel_mm / self.grid.zooms_mm[0]))
        inside = self.reference.share > 0.5
        # a block's mean is over all of its voxels, of which those outside of the brain are 0
        values = np.where(inside, self.reference.values / np.maximum(self.reference.share, 0.5), 0)
        fine = values.repeat(width, 0).repeat(width, 1).repeat(width, 2)
        volume = np.zeros(self.grid.shape, np.float32)
        volume[tuple(slice(0, n) for n in fine.shape)] = fine
        return volume

    def _fits(self, ours: Coarse, axes: tuple[int, ...]) -> bool:
        flipped = Coarse(np.flip(ours.values, axes), np.flip(ours.share, axes), ours.voxel_mm)
        found = compare(flipped, self.reference)
        return found.dice >= self.min_dice and found.correlation >= self.min_correlation

    def save(self, path: Path) -> None:
        """Write the file; equal contents give equal bytes."""
        about = {
            "version": VERSION,
            "template": self.template,
            "min_dice": self.min_dice,
            "min_correlation": self.min_correlation,
            "voxel_mm": self.reference.voxel_mm,
        }
        with atomic_write(path) as part:
            np.savez_compressed(
                part,
                about=np.array(json.dumps(about, sort_keys=True)),
                shape=np.array(self.grid.shape),
                affine=self.grid.affine,
                values=self.reference.values.astype(np.float16),
                share=np.round(255 * self.reference.share).astype(np.uint8),
            )

    @classmethod
    def load(cls, path: Path) -> T1wSpace:
        """Read the file.

        Raises
        ------
        DataError
            If it is no such file, or of another version.
        OSError
            If it cannot be read.
        """
        arrays = npz.read(path, "take the export as it was made")
        try:
            about = json.loads(str(arrays["about"]))
            if about["version"] != VERSION:
                msg = (
                    f"{path} is of version {about['version']}, this code reads {VERSION}: install a newer bhx"
                )
                raise DataError(msg)
            x, y, z = (int(n) for n in arrays["shape"])
            reference = Coarse(
                arrays["values"].astype(np.float32),
                arrays["share"].astype(np.float32) / 255,
                float(about["voxel_mm"]),
            )
            return cls(
                ModelGrid((x, y, z), arrays["affine"].astype(float)),
                str(about["template"]),
                reference,
                float(about["min_dice"]),
                float(about["min_correlation"]),
            )
        except DataError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{path} does not describe a T1 ({error!r}): take the export as it was made"
            raise DataError(msg) from error


def space_of(
    grid: ModelGrid, template: str, volume: np.ndarray, *, min_dice: float, min_correlation: float
) -> T1wSpace:
    """Make the description from a template's volume (X, Y, Z) on the grid, normalised as T1s are."""
    return T1wSpace(grid, template, coarse(volume, grid), min_dice, min_correlation)
