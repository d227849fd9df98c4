"""Surfaces of the cortex from a segmented T1w image (`preproc.surfaces: cat-surf`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import ants
import nibabel as nib
import numpy as np
from nibabel.processing import resample_to_output
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from bhx_model.atomic_write import write_json
from bhx_model.data import npz
from bhx_model.errors import DataError, SiteError
from bhx_prep.brain_maps.surfaces import read_surface
from bhx_prep.preproc.disks import full_disk
from bhx_prep.preproc.embedded import surfaces_quality as quality
from bhx_prep.preproc.embedded.grids import save
from bhx_prep.preproc.embedded.step import Step
from bhx_prep.preproc.embedded.surfaces_labels import REGIONS, hemisphere_labels

#: Grid (mm) that thickness is computed on: that of images that are isotropic and about as fine.
_GRID_MM: Final = 1.0
_MINUTES: Final = 30


class _MakeSurfacesIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="T1w head of even brightness")
    gm = File(exists=True, mandatory=True)
    wm = File(exists=True, mandatory=True)
    csf = File(exists=True, mandatory=True)
    to_anat = File(exists=True, mandatory=True, desc="template -> T1w")
    templates = traits.Str(mandatory=True, desc="folder with `surfaces_machine.TEMPLATES`")


class _MakeSurfacesOut(TraitedSpec):
    quality = File(exists=True, desc="JSON: `usable`, `reason`, and numbers of either side")
    left = File(desc="surfaces of the left hemisphere, .npz; only where both are usable")
    right = File(desc="of the right")


class MakeSurfaces(Step):
    """White, pial and central surface, thickness, sphere and its registration to fsLR, of both hemispheres.

    Surfaces that cannot be used are no error: the volumes are as good without them. `quality` says why.
    """

    input_spec = _MakeSurfacesIn
    output_spec = _MakeSurfacesOut

    def _compute(self, folder: Path) -> None:
        found: dict[str, Any] = {"usable": False, "reason": None}
        try:
            self._both(folder, found)
            reasons = [
                f"{side}: {what}" for side in REGIONS for what in quality.failures(found[side])
            ] + quality.swapped(*(found[side]["centre_mm"][0] for side in ("left", "right")))
            found["reason"] = "; ".join(reasons) or None
        except DataError as error:
            found["reason"] = str(error)
        found["usable"] = found["reason"] is None
        write_json(folder / "quality.json", found)
        self._results["quality"] = str(folder / "quality.json")
        for side in REGIONS if found["usable"] else ():
            self._results[side] = str(folder / f"{side}.npz")

    def _both(self, folder: Path, found: dict[str, Any]) -> None:
        head: Any = nib.load(self.inputs.in_file)
        regions = ants.apply_transforms(
            ants.image_read(self.inputs.in_file),
            ants.image_read(str(Path(self.inputs.templates) / "cerebrum.nii.gz")),
            [self.inputs.to_anat],
            interpolator="genericLabel",
        )
        tissues = {name: getattr(self.inputs, name) for name in ("csf", "gm", "wm")}
        grid, volumes, labels = on_even_grid(head, tissues, regions.numpy())
        brightness = np.asarray(head.dataobj, np.float32)
        templates = Path(self.inputs.templates)
        for side in REGIONS:
            cut = hemisphere_labels(volumes, labels, grid, side)
            save(cut.values, cut.affine, folder / f"{side}_labels.nii.gz")
            made = self._reconstruct(folder, side)
            with np.load(templates / "cortex.npz", allow_pickle=False) as file:
                cortex = file[side]
            standard, _ = read_surface(templates / f"surface_{side}.surf.gii", side)
            found[side] = quality.measure(made, brightness, head.affine, cortex, standard)

    def _reconstruct(self, folder: Path, side: str) -> dict[str, np.ndarray]:
        templates = Path(self.inputs.templates)
        words = [
            sys.executable, "-m", "bhx_prep.preproc.embedded.surfaces_cat",
            "--labels", str(folder / f"{side}_labels.nii.gz"),
            "--target", str(templates / f"surface_{side}.surf.gii"),
            "--target-sphere", str(templates / f"sphere_{side}.surf.gii"),
            "--out", str(folder / f"{side}.npz"),
        ]  # fmt: skip
        try:
            with (folder / f"{side}.log").open("w") as log:
                ended = subprocess.run(
                    words, check=False, stdout=log, stderr=subprocess.STDOUT, timeout=60 * _MINUTES
                )
        except subprocess.TimeoutExpired as error:
            msg = f"cat-surf had not made the {side} hemisphere after {_MINUTES} minutes"
            raise DataError(msg) from error
        if ended.returncode in (-9, 137):
            msg = f"cat-surf was killed while it made the {side} hemisphere"
            raise MemoryError(msg)
        if ended.returncode:
            if (full := full_disk([folder])) is not None:
                raise SiteError(full)
            last = (folder / f"{side}.log").read_text(errors="replace").strip().splitlines()[-1:]
            msg = f"cat-surf did not make the {side} hemisphere (exit code {ended.returncode}): {' '.join(last)[:80]}"
            raise DataError(msg)
        return npz.read(folder / f"{side}.npz", "start the subject again")


def on_even_grid(
    head: Any, tissues: dict[str, str], regions: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Tissue probabilities and regions on voxels that are about 1 mm cubes.

    Parameters
    ----------
    head : nibabel image, (X, Y, Z)
        Whose grid the others are on.
    tissues : dict of str
        Files of probabilities.
    regions : array of int, (X, Y, Z)

    Returns
    -------
    affine : array, (4, 4)
    tissues : dict of array
    regions : array of int
    """
    zooms = np.asarray(head.header.get_zooms()[:3])
    images: dict[str, Any] = {name: nib.load(file) for name, file in tissues.items()}
    images["regions"] = nib.Nifti1Image(np.round(regions).astype(np.uint8), head.affine)
    if np.ptp(zooms) > 0.05 or not 0.7 < zooms.mean() < 1.05:
        images = {
            name: resample_to_output(image, [_GRID_MM] * 3, order=0 if name == "regions" else 1)
            for name, image in images.items()
        }
    affine = np.asarray(images["regions"].affine)
    volumes = {name: np.asarray(images[name].dataobj, np.float32) for name in tissues}
    return affine, volumes, np.asarray(images["regions"].dataobj)
