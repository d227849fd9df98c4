"""Save a subject's surfaces as GIfTI under fMRIPrep's names, or the reason why there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, traits

from bhx_model.atomic_write import write_json
from bhx_model.data import npz
from bhx_prep.preproc.dataset_description import passed_on
from bhx_prep.preproc.embedded.derivatives import generated_by
from bhx_prep.preproc.embedded.surfaces_files import HEMISPHERES, save_map, save_sidecar, save_surface
from bhx_prep.preproc.embedded.surfaces_labels import REGIONS
from bhx_prep.preproc.embedded.surfaces_machine import QUALITY

#: What surfaces are made of.
_SOURCES = (
    "desc-preproc_T1w.nii.gz",
    *(f"label-{tissue}_probseg.nii.gz" for tissue in ("GM", "WM", "CSF")),
    "from-MNI152NLin2009cAsym_to-T1w_mode-image_xfm.h5",
)
_SURFACES = ("white", "pial", "midthickness")
_METHODS = {
    "white": "cat-surf: from the central surface to the border of white and grey matter",
    "pial": "cat-surf: from the central surface to the border of grey matter and cerebrospinal fluid",
    "midthickness": "cat-surf: mean of white and pial surface",
    "thickness": "cat-surf: projection-based thickness (Dahnke et al. 2013), mm; not FreeSurfer's",
    "sphere": "cat-surf: spherical inflation of the midthickness",
    "registered": "cat-surf: Spherical Demons of the folding to the S1200 group midthickness; not FreeSurfer's, not MSM",
}


class _SaveSurfacesIn(BaseInterfaceInputSpec):
    base = traits.Str(mandatory=True, desc="folder of the derivatives")
    folder = traits.Str(mandatory=True, desc="below `base`: sub-X/anat")
    stem = traits.Str(mandatory=True)
    sidecar = traits.Dict(mandatory=True, desc="of the raw image")
    quality = File(exists=True, mandatory=True)
    left = File(exists=True)
    right = File(exists=True)


class _SaveSurfacesOut(TraitedSpec):
    out_file = File(exists=True, desc="the numbers")


class SaveSurfaces(SimpleInterface):
    """Write surfaces and thickness of both hemispheres, in the subject's own mesh and on fsLR-32k."""

    input_spec = _SaveSurfacesIn
    output_spec = _SaveSurfacesOut

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        folder = Path(given.base) / given.folder
        folder.mkdir(parents=True, exist_ok=True)
        found = json.loads(Path(given.quality).read_text(encoding="utf-8"))
        metadata = {
            "Sources": [f"bids::{given.folder}/{given.stem}_{name}" for name in _SOURCES],
            **passed_on(given.sidecar),
            "GeneratedBy": generated_by(),
        }
        if found["usable"]:
            for side in REGIONS:
                made = npz.read(getattr(given, side), "start the subject again")
                save_hemisphere(folder, given.stem, side, made, {**metadata, "Quality": found[side]})
        write_json(folder / f"{given.stem}_{QUALITY}", {**found, **metadata})
        self._results["out_file"] = str(folder / f"{given.stem}_{QUALITY}")
        return runtime


def save_hemisphere(
    folder: Path, stem: str, side: str, made: dict[str, np.ndarray], metadata: dict[str, Any]
) -> None:
    """Write one hemisphere: fMRIPrep's names, `made` as `surfaces_cat` writes it."""
    hemi = f"{stem}_hemi-{HEMISPHERES[side][0]}"
    standard = f"{hemi}_space-fsLR_den-32k"
    spheres = {
        f"{hemi}_sphere.surf.gii": "sphere",
        f"{hemi}_space-fsLR_desc-reg_sphere.surf.gii": "registered",
    }
    for name, kind in spheres.items():
        save_surface(folder / name, made[kind], made["triangles"], side, "sphere")
        save_sidecar(folder / name, {"Description": _METHODS[kind], **metadata})
    for kind in _SURFACES:
        own, resampled = folder / f"{hemi}_{kind}.surf.gii", folder / f"{standard}_{kind}.surf.gii"
        save_surface(own, made[kind], made["triangles"], side, kind)
        save_surface(resampled, made[f"fslr_{kind}"], made["fslr_triangles"], side, kind)
        for path in (own, resampled):
            save_sidecar(path, {"Description": _METHODS[kind], **metadata})
    for path, values in (
        (folder / f"{hemi}_thickness.shape.gii", made["thickness"]),
        (folder / f"{standard}_thickness.shape.gii", made["fslr_thickness"]),
    ):
        save_map(path, values, side, "thickness")
        save_sidecar(path, {"Description": _METHODS["thickness"], "Units": "mm", **metadata})
