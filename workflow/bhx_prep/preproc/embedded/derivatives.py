"""What the workflow leaves: images, transforms, tables and their JSON in fMRIPrep 25's names."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, traits

from bhx_model.atomic_write import write_json
from bhx_prep.preproc.embedded.grids import open_grid, save

SPACE = "MNI152NLin2009cAsym"
NOTE = "Embedded preprocessing of BHX: a short nipype workflow on ANTs, not a replacement for fMRIPrep."


def generated_by() -> list[dict[str, str]]:
    """``GeneratedBy`` of the data set and of every image."""
    return [{"Name": "bhx-embedded", "Version": version("bhx"), "Description": NOTE}]


def write_description(folder: Path, raw: Path) -> None:
    """Write ``dataset_description.json``; every subject's job writes the same bytes.

    Parameters
    ----------
    folder : Path
        Of the derivatives.
    raw : Path
        Data set they were made of: where it says ``Synthetic``, they say so too.
    """
    try:
        described = json.loads((raw / "dataset_description.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        described = {}
    stated = _passed_on(described if isinstance(described, dict) else {})
    description = {
        "Name": f"BHX embedded preprocessing{' (synthetic)' if stated.get('Synthetic') else ''}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": generated_by(),
        **stated,
    }
    write_json(folder / "dataset_description.json", description, shared=True)


def resolution_label(spacing_mm: float) -> str:
    """Value of the entity ``res``: ``2`` for 2 mm, ``1p5`` for 1.5 mm."""
    return f"{spacing_mm:g}".replace(".", "p")


def bold_spacing(zooms: tuple[float, float, float], least_mm: float) -> float:
    """Spacing (mm) of a run's standard grid: the shortest edge of its voxels in whole mm, not below `least_mm`.

    Finer would only invent detail and fill the disk.
    """
    return max(float(least_mm), float(round(min(zooms))))


def _passed_on(sidecar: dict[str, Any], *fields: str) -> dict[str, Any]:
    # of the type that BIDS has for them: a sidecar may hold anything
    kinds = {"Synthetic": bool, **dict.fromkeys(fields, str)}
    return {name: sidecar[name] for name, kind in kinds.items() if isinstance(sidecar.get(name), kind)}


class _SaveAnatIn(BaseInterfaceInputSpec):
    base = traits.Str(mandatory=True, desc="folder of the derivatives")
    folder = traits.Str(mandatory=True, desc="below `base`: sub-X/anat")
    stem = traits.Str(mandatory=True)
    sidecar = traits.Dict(mandatory=True)
    source = traits.Str(mandatory=True, desc="path of the raw image below its dataset")
    resolution_mm = traits.Float(mandatory=True)
    template = File(exists=True, mandatory=True)
    anat = File(exists=True, mandatory=True)
    mask = File(exists=True, mandatory=True)
    dseg = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True)
    wm = File(exists=True, mandatory=True)
    csf = File(exists=True, mandatory=True)
    to_template = File(exists=True, mandatory=True)
    to_anat = File(exists=True, mandatory=True)


class _SavedOut(TraitedSpec):
    image = File(exists=True, desc="the last thing written")


class SaveAnat(SimpleInterface):
    """Write a T1w image's derivatives, in its own and in the standard space."""

    input_spec = _SaveAnatIn
    output_spec = _SavedOut

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        folder = Path(given.base) / given.folder
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {
            **_passed_on(given.sidecar),
            "Sources": [f"bids:raw:{given.source}"],
            "GeneratedBy": generated_by(),
        }

        def name(rest: str) -> Path:
            return folder / f"{given.stem}_{rest}"

        shutil.copyfile(given.anat, name("desc-preproc_T1w.nii.gz"))
        write_json(name("desc-preproc_T1w.json"), {"SkullStripped": False, **metadata})
        shutil.copyfile(given.mask, name("desc-brain_mask.nii.gz"))
        write_json(name("desc-brain_mask.json"), {"Type": "Brain", **metadata})
        shutil.copyfile(given.dseg, name("dseg.nii.gz"))
        for label in ("GM", "WM", "CSF"):
            shutil.copyfile(getattr(given, label.lower()), name(f"label-{label}_probseg.nii.gz"))
        shutil.copyfile(given.to_template, name(f"from-T1w_to-{SPACE}_mode-image_xfm.h5"))
        shutil.copyfile(given.to_anat, name(f"from-{SPACE}_to-T1w_mode-image_xfm.h5"))

        grid = open_grid(Path(given.template), given.resolution_mm, Path(runtime.cwd) / "grid.nii.gz")
        drawn: Any = nib.load(Path(runtime.cwd) / "grid.nii.gz")
        affine = drawn.affine
        standard = f"space-{SPACE}_res-{resolution_label(given.resolution_mm)}"
        metadata["Resolution"] = f"{given.resolution_mm:g} mm isotropic"
        mask = ants.apply_transforms(grid, ants.image_read(given.mask), [given.to_template], "genericLabel")
        save(mask.numpy().astype(np.uint8), affine, name(f"{standard}_desc-brain_mask.nii.gz"))
        write_json(name(f"{standard}_desc-brain_mask.json"), {"Type": "Brain", **metadata})
        dseg = ants.apply_transforms(grid, ants.image_read(given.dseg), [given.to_template], "genericLabel")
        save(dseg.numpy().astype(np.uint8), affine, name(f"{standard}_dseg.nii.gz"))
        head = ants.apply_transforms(
            grid, ants.image_read(given.anat), [given.to_template], "lanczosWindowedSinc"
        )
        image = name(f"{standard}_desc-preproc_T1w.nii.gz")
        write_json(
            image.with_name(image.name.replace(".nii.gz", ".json")), {"SkullStripped": False, **metadata}
        )
        save(np.maximum(head.numpy(), 0).astype(np.float32), affine, image)
        self._results["image"] = str(image)
        return runtime


class _SaveRunIn(BaseInterfaceInputSpec):
    base = traits.Str(mandatory=True)
    folder = traits.Str(mandatory=True, desc="below `base`: sub-X/func")
    stem = traits.Str(mandatory=True)
    sidecar = traits.Dict(mandatory=True)
    source = traits.Str(mandatory=True)
    spacing_mm = traits.Float(mandatory=True)
    tr_s = traits.Float(mandatory=True)
    n_dummies = traits.Int(mandatory=True)
    bold = File(exists=True, mandatory=True)
    mask = File(exists=True, mandatory=True)
    boldref = File(exists=True, mandatory=True)
    hmc_boldref = File(exists=True, mandatory=True)
    coreg_boldref = File(exists=True, mandatory=True)
    bold_to_anat = File(exists=True, mandatory=True)
    table = File(exists=True, mandatory=True)
    metadata = File(exists=True, mandatory=True)


class SaveRun(SimpleInterface):
    """Write a run's derivatives; the series comes last."""

    input_spec = _SaveRunIn
    output_spec = _SavedOut

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        folder = Path(given.base) / given.folder
        folder.mkdir(parents=True, exist_ok=True)
        standard = f"space-{SPACE}_res-{resolution_label(given.spacing_mm)}"

        def name(rest: str) -> Path:
            return folder / f"{given.stem}_{rest}"

        shutil.copyfile(given.hmc_boldref, name("desc-hmc_boldref.nii.gz"))
        shutil.copyfile(given.coreg_boldref, name("desc-coreg_boldref.nii.gz"))
        coregistration = ants.read_transform(given.bold_to_anat)
        ants.write_transform(coregistration, str(name("from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt")))
        shutil.copyfile(given.mask, name(f"{standard}_desc-brain_mask.nii.gz"))
        shutil.copyfile(given.boldref, name(f"{standard}_boldref.nii.gz"))
        shutil.copyfile(given.table, name("desc-confounds_timeseries.tsv"))
        write_json(name("desc-confounds_timeseries.json"), json.loads(Path(given.metadata).read_text()))
        metadata = {
            "RepetitionTime": given.tr_s,
            "SkullStripped": False,
            "SliceTimingCorrected": False,
            "NumberOfNonSteadyStateVolumes": given.n_dummies,
            "Resolution": f"{given.spacing_mm:g} mm isotropic",
            **_passed_on(given.sidecar, "TaskName"),
            "Sources": [f"bids:raw:{given.source}"],
            "GeneratedBy": generated_by(),
        }
        write_json(
            name(f"{standard}_desc-brain_mask.json"),
            {"Type": "Brain", "Resolution": metadata["Resolution"], **_passed_on(given.sidecar)},
        )
        write_json(name(f"{standard}_desc-preproc_bold.json"), metadata)
        series: Any = nib.load(given.bold)
        packed = nib.Nifti1Image(np.asanyarray(series.dataobj), series.affine)
        packed.set_data_dtype(np.int16)  # with a scale: 1/65535 of the range, far below the noise
        packed.header.set_xyzt_units("mm", "sec")
        packed.header.set_zooms((*series.header.get_zooms()[:3], given.tr_s))
        packed.set_sform(series.affine, 4)  # code 4: MNI
        packed.set_qform(series.affine, 4)
        image = name(f"{standard}_desc-preproc_bold.nii.gz")
        packed.to_filename(image)
        self._results["image"] = str(image)
        return runtime
