"""Write the workflow's derivatives: images, transforms, tables and their JSON under fMRIPrep 25's names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, traits

from bhx_model import __version__
from bhx_model.atomic_write import write_json
from bhx_prep.preproc.altering_results import altering_results
from bhx_prep.preproc.dataset_description import passed_on, write_dataset
from bhx_prep.preproc.embedded.frames import Frames, FrameWriter
from bhx_prep.preproc.embedded.grids import open_grid, save

SPACE = "MNI152NLin2009cAsym"
NOTE = "Embedded preprocessing of BHX: a short nipype workflow on ANTs, not a replacement for fMRIPrep."


def generated_by() -> list[dict[str, str]]:
    """``GeneratedBy`` of the data set and of every image."""
    return [{"Name": "bhx-embedded", "Version": __version__, "Description": NOTE}]


def write_description(folder: Path, raw: Path, preproc: Mapping[str, Any]) -> None:
    """Write ``dataset_description.json`` and what belongs to it; every subject's job writes the same bytes.

    Parameters
    ----------
    folder : Path
        Of the derivatives.
    raw : Path
        Data set they were made of: where it says ``Synthetic``, they say so too.
    preproc : mapping
        Section `preproc` of the configuration.
    """
    write_dataset(
        folder,
        raw,
        name="BHX embedded preprocessing",
        text=NOTE,
        generated_by=generated_by(),
        settings=altering_results(preproc),
    )


def resolution_label(spacing_mm: float) -> str:
    """Value of the entity ``res``: ``2`` for 2 mm, ``1p5`` for 1.5 mm."""
    return f"{spacing_mm:g}".replace(".", "p")


def bold_spacing(zooms: tuple[float, float, float], least_mm: float) -> float:
    """Spacing (mm) of a run's standard grid: the shortest edge of its voxels in whole mm, not below `least_mm`.

    Finer would only invent detail and fill the disk.
    """
    return max(float(least_mm), float(round(min(zooms))))


class _Saved:
    """Files of one scan, in fMRIPrep's names, and what each is made of.

    Parameters
    ----------
    base : str
        Folder of the derivatives.
    folder : str
        Below it: ``sub-X/anat``.
    stem : str
        Beginning of the names.
    common : mapping
        Fields of every sidecar.
    """

    def __init__(self, base: str, folder: str, stem: str, common: Mapping[str, Any]) -> None:
        self.folder = Path(base) / folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.uri = f"bids::{folder}/{stem}_"
        self.stem, self.common = stem, dict(common)

    def path(self, rest: str) -> Path:
        """Where the file is whose name ends in `rest`."""
        return self.folder / f"{self.stem}_{rest}"

    def describe(self, rest: str, sources: Sequence[str], **fields: Any) -> Path:
        """Write a file's sidecar; the path of the file comes back.

        Sources that begin with ``bids:`` are URIs, others ends of names of the same scan.
        """
        uris = [source if source.startswith("bids:") else self.uri + source for source in sources]
        sidecar = self.path(rest.partition(".")[0] + ".json")
        write_json(sidecar, {**fields, "Sources": uris, **self.common, "GeneratedBy": generated_by()})
        return self.path(rest)

    def copy(self, given: str, rest: str, sources: Sequence[str], **fields: Any) -> None:
        """Copy a file to its place, with its sidecar."""
        shutil.copyfile(given, self.describe(rest, sources, **fields))


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
        saved = _Saved(given.base, given.folder, given.stem, passed_on(given.sidecar))
        t1w, mask = "desc-preproc_T1w.nii.gz", "desc-brain_mask.nii.gz"
        to_template = f"from-T1w_to-{SPACE}_mode-image_xfm.h5"
        saved.copy(given.anat, t1w, [f"bids:raw:{given.source}"], SkullStripped=False)
        saved.copy(given.mask, mask, [t1w], Type="Brain")
        saved.copy(given.dseg, "dseg.nii.gz", [t1w, mask])
        for label in ("GM", "WM", "CSF"):
            saved.copy(getattr(given, label.lower()), f"label-{label}_probseg.nii.gz", [t1w, mask])
        saved.copy(given.to_template, to_template, [t1w, mask])
        saved.copy(given.to_anat, f"from-{SPACE}_to-T1w_mode-image_xfm.h5", [t1w, mask])

        grid = open_grid(Path(given.template), given.resolution_mm, Path(runtime.cwd) / "grid.nii.gz")
        drawn: Any = nib.load(Path(runtime.cwd) / "grid.nii.gz")
        affine = drawn.affine
        standard = f"space-{SPACE}_res-{resolution_label(given.resolution_mm)}"
        saved.common["Resolution"] = f"{given.resolution_mm:g} mm isotropic"
        for name, image, fields in ((mask, given.mask, {"Type": "Brain"}), ("dseg.nii.gz", given.dseg, {})):
            labels = ants.apply_transforms(grid, ants.image_read(image), [given.to_template], "genericLabel")
            place = saved.describe(f"{standard}_{name}", [name, to_template], **fields)
            save(labels.numpy().astype(np.uint8), affine, place)
        head = ants.apply_transforms(
            grid, ants.image_read(given.anat), [given.to_template], "lanczosWindowedSinc"
        )
        place = saved.describe(f"{standard}_{t1w}", [t1w, to_template], SkullStripped=False)
        save(np.maximum(head.numpy(), 0).astype(np.float32), affine, place)
        self._results["image"] = str(place)
        return runtime


class _SaveRunIn(BaseInterfaceInputSpec):
    base = traits.Str(mandatory=True)
    folder = traits.Str(mandatory=True, desc="below `base`: sub-X/func")
    stem = traits.Str(mandatory=True)
    sidecar = traits.Dict(mandatory=True)
    source = traits.Str(mandatory=True)
    anat = traits.Str(mandatory=True, desc="its T1w's derivatives: sub-X/anat/sub-X, below `base`")
    spacing_mm = traits.Float(mandatory=True)
    tr_s = traits.Float(mandatory=True)
    n_dummies = traits.Int(mandatory=True)
    timing = traits.Dict(mandatory=True, desc="fields of the sidecar about slice timing")
    distortion = traits.Dict(mandatory=True, desc="and about distortion")
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
        saved = _Saved(given.base, given.folder, given.stem, passed_on(given.sidecar))
        raw, t1w = f"bids:raw:{given.source}", f"bids::{given.anat}_desc-preproc_T1w.nii.gz"
        to_template = f"bids::{given.anat}_from-T1w_to-{SPACE}_mode-image_xfm.h5"
        reference, to_anat = (
            "desc-coreg_boldref.nii.gz",
            "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt",
        )
        saved.copy(given.hmc_boldref, "desc-hmc_boldref.nii.gz", [raw])
        saved.copy(given.coreg_boldref, reference, [raw, "desc-hmc_boldref.nii.gz"])
        coregistration = ants.read_transform(given.bold_to_anat)
        ants.write_transform(coregistration, str(saved.describe(to_anat, [reference, t1w])))

        standard = f"space-{SPACE}_res-{resolution_label(given.spacing_mm)}"
        mask, preproc = f"{standard}_desc-brain_mask.nii.gz", f"{standard}_desc-preproc_bold.nii.gz"
        resolution = {"Resolution": f"{given.spacing_mm:g} mm isotropic"}
        made_of = [raw, "desc-hmc_boldref.nii.gz", to_anat, to_template]
        saved.copy(given.boldref, f"{standard}_boldref.nii.gz", made_of, **resolution)
        saved.copy(given.mask, mask, [preproc], Type="Brain", **resolution)
        table = "desc-confounds_timeseries.tsv"
        shutil.copyfile(given.table, saved.path(table))
        columns = json.loads(Path(given.metadata).read_text())
        write_json(saved.path(table.replace(".tsv", ".json")), columns)
        image = saved.describe(
            preproc,
            [*made_of, *given.distortion.get("DistortionSources", ())],
            RepetitionTime=given.tr_s,
            SkullStripped=False,
            **given.timing,
            **given.distortion,
            NumberOfNonSteadyStateVolumes=given.n_dummies,
            **resolution,
            **passed_on(given.sidecar, "TaskName"),
        )
        frames = Frames(Path(given.bold))
        ends = [(frame.min(), frame.max()) for frame in frames]
        limits = float(min(low for low, _ in ends)), float(max(high for _, high in ends))
        # int16 with a scale: 1/65535 of the range, far below the noise; code 4: MNI
        with FrameWriter(
            image, frames.affine, frames.shape, tr_s=given.tr_s, code=4, limits=limits
        ) as writer:
            for frame in frames:
                writer.append(frame)
        self._results["image"] = str(image)
        return runtime
