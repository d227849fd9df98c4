"""The steps as nipype interfaces: antspyx where there is no ANTs command line, our own numerics for the BOLD frames.

All ANTs calls sample their metrics on a regular grid or everywhere and have a fixed seed: with one thread equal
inputs give equal transforms. World coordinates are RAS, mm; ITK's own files are LPS, and stay so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
import pandas as pd
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, traits
from scipy import ndimage

from bhx_model.errors import DataError
from bhx_prep.io import motion
from bhx_prep.preproc.embedded import signals
from bhx_prep.preproc.embedded.grids import LPS, clean, open_grid, save
from bhx_prep.preproc.embedded.realign import realign, typical_frame

#: Deep tissue: this far (mm) inside the tissue's or the brain's border.
DEEP_FLUID_MM = 10.0


class _Step(SimpleInterface):
    """A step whose errors are a `DataError` where ANTs refuses the images, and bugs otherwise."""

    def _run_interface(self, runtime: Any) -> Any:
        try:
            self._compute(Path(runtime.cwd))
        except RuntimeError as error:
            if type(error) is not RuntimeError:
                raise
            # so ANTs and ITK report what they cannot do with an image, in many lines
            msg = f"ANTs: {' '.join(str(error).split())}"
            raise DataError(msg) from error
        return runtime

    def _compute(self, folder: Path) -> None:
        """Fill `_results`; files are written to `folder`."""
        raise NotImplementedError


def _register(*stages: list[str], start: str, prefix: Path, composite: bool) -> None:
    ants.registration(
        fixed=[
            "--dimensionality", "3", "--float", "1", "--random-seed", "1", "--collapse-output-transforms", "1",
            "--write-composite-transform", str(int(composite)), "--winsorize-image-intensities", "[0.005,0.995]",
            "--initial-moving-transform", start, *(word for stage in stages for word in stage),
            "--output", str(prefix),
        ],
        moving=None,
    )  # fmt: skip


class _CorrectBiasIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    zooms = traits.Tuple(traits.Float, traits.Float, traits.Float, mandatory=True)


class _CorrectBiasOut(TraitedSpec):
    out_file = File(exists=True, desc="RAS, float32, of even brightness")


class CorrectBias(_Step):
    """Bring a T1w image to RAS with a header that ITK accepts, and take its bias field out (N4)."""

    input_spec = _CorrectBiasIn
    output_spec = _CorrectBiasOut

    def _compute(self, folder: Path) -> None:
        image: Any = nib.as_closest_canonical(clean(nib.load(self.inputs.in_file), self.inputs.zooms))
        raw, out = folder / "ras.nii.gz", folder / "n4.nii.gz"
        image.to_filename(raw)
        head = ants.image_read(str(raw))
        # a bias field is smooth: 5 mm voxels show all of it
        shrink = max(1, round(5 / min(self.inputs.zooms)))
        corrected = ants.n4_bias_field_correction(
            head, shrink_factor=shrink, convergence={"iters": [30, 30, 20], "tol": 1e-5}
        )
        save(np.maximum(corrected.numpy(), 0), image.affine, out)
        self._results["out_file"] = str(out)


class _NormalizeIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="T1w head of even brightness")
    template = File(exists=True, mandatory=True, desc="head in MNI152NLin2009cAsym")
    template_mask = File(exists=True, mandatory=True, desc="its brain mask")
    resolution_mm = traits.Float(mandatory=True)


class _NormalizeOut(TraitedSpec):
    to_template = File(exists=True, desc="affine and SyN, T1w -> template")
    to_anat = File(exists=True, desc="its inverse")
    mask = File(exists=True, desc="brain mask of the T1w image")


class Normalize(_Step):
    """Register a head to the template head (affine, then SyN inside the brain), and bring its brain mask back."""

    input_spec = _NormalizeIn
    output_spec = _NormalizeOut

    def _compute(self, folder: Path) -> None:
        grid = open_grid(Path(self.inputs.template), self.inputs.resolution_mm, folder / "grid.nii.gz")
        template = ants.resample_image_to_target(ants.image_read(self.inputs.template), grid)
        mask = ants.image_read(self.inputs.template_mask)
        near = ants.iMath(ants.resample_image_to_target(mask, grid, interp_type="nearestNeighbor"), "MD", 2)
        ants.image_write(template, str(folder / "template.nii.gz"))
        ants.image_write(near, str(folder / "near.nii.gz"))
        pair = f"{folder / 'template.nii.gz'},{self.inputs.in_file},1,32"
        # shrink factors count voxels: keep the coarsest level at 8 mm whatever the grid
        coarse = max(1, round(8 / self.inputs.resolution_mm))
        middle = max(1, coarse // 2)
        fine = max(1, coarse // 4)
        affine = [
            "--metric", f"Mattes[{pair},Regular,0.25]", "--transform", "Affine[0.1]",
            "--convergence", "[200x100,1e-6,10]", "--shrink-factors", f"{coarse}x{middle}",
            "--smoothing-sigmas", "4x2mm", "--masks", "[NA,NA]",
        ]  # fmt: skip
        syn = [
            "--metric", f"Mattes[{pair}]", "--transform", "SyN[0.2,3,0]",
            "--convergence", "[60x40x3,1e-6,8]", "--shrink-factors", f"{coarse}x{middle}x{fine}",
            "--smoothing-sigmas", "4x2x0mm", "--masks", f"[{folder / 'near.nii.gz'},NA]",
        ]  # fmt: skip
        start = f"[{folder / 'template.nii.gz'},{self.inputs.in_file},1]"
        _register(affine, syn, start=start, prefix=folder / "xfm", composite=True)
        self._results["to_template"] = str(folder / "xfmComposite.h5")
        self._results["to_anat"] = str(folder / "xfmInverseComposite.h5")

        head = ants.image_read(self.inputs.in_file)
        back = ants.apply_transforms(head, mask, [self._results["to_anat"]], interpolator="linear").numpy()
        anat: Any = nib.load(self.inputs.in_file)
        found = refine_mask(back, np.asarray(anat.dataobj), np.asarray(anat.header.get_zooms()[:3]))
        if not found.any():
            msg = "no brain was found in the T1w image: the registration to the template went wrong"
            raise DataError(msg)
        save(found.astype(np.uint8), anat.affine, folder / "mask.nii.gz")
        self._results["mask"] = str(folder / "mask.nii.gz")


def refine_mask(probable: np.ndarray, head: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """Fit a brain mask that came from the template to the head's intensities.

    Parameters
    ----------
    probable : array, (X, Y, Z)
        The template's mask on the head's grid, 0 to 1.
    head : array, (X, Y, Z)
        T1w image of even brightness.
    zooms : array, (3,)
        Voxel sizes, mm.

    Returns
    -------
    array of bool, (X, Y, Z)
        One piece without holes: the brain that reaches up to 2 mm beyond the template's mask or ends before it.
    """
    inside = probable > 0.5
    typical = np.median(head[inside])
    outward = np.asarray(ndimage.distance_transform_edt(~inside, sampling=zooms))
    inward = np.asarray(ndimage.distance_transform_edt(inside, sampling=zooms))
    # within 2 mm of the border voxels decide for themselves: too dark is skull or air, too bright is fat
    bright_enough = (head > 0.35 * typical) & (head < 1.6 * typical)
    brain = (inside & (inward > 2.0)) | ((outward <= 2.0) & bright_enough)
    brain = ndimage.binary_opening(brain, iterations=max(1, round(1.0 / float(zooms.min()))))
    labels = np.empty(brain.shape, np.int32)
    ndimage.label(brain, output=labels)
    sizes = np.bincount(labels.ravel())[1:]
    if len(sizes) > 1:
        brain = labels == 1 + int(np.argmax(sizes))
    brain = ndimage.binary_closing(brain, iterations=2)
    return np.asarray(ndimage.binary_fill_holes(brain))


class _SegmentIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    mask = File(exists=True, mandatory=True)


class _SegmentOut(TraitedSpec):
    dseg = File(exists=True, desc="1 grey matter, 2 white matter, 3 cerebrospinal fluid")
    gm = File(exists=True)
    wm = File(exists=True)
    csf = File(exists=True)


class Segment(_Step):
    """Three tissues inside the brain mask (Atropos, from k-means)."""

    input_spec = _SegmentIn
    output_spec = _SegmentOut

    def _compute(self, folder: Path) -> None:
        head = ants.image_read(self.inputs.in_file)
        mask = ants.image_read(self.inputs.mask)
        low, high = np.percentile(head.numpy()[mask.numpy() > 0], [0.5, 99.5])
        head = head.new_image_like(np.clip(head.numpy(), low, high))
        # r=0: the same random numbers each time
        found = ants.atropos(a=head, x=mask, i="Kmeans[3]", m="[0.1,1x1x1]", c="[3,0]", r=0)
        source: Any = nib.load(self.inputs.in_file)
        affine = source.affine
        # k-means counts from dark to bright; BIDS has GM 1, WM 2, CSF 3
        labels = np.choose(found["segmentation"].numpy().astype(int), [0, 3, 1, 2]).astype(np.uint8)
        save(labels, affine, folder / "dseg.nii.gz")
        self._results["dseg"] = str(folder / "dseg.nii.gz")
        for name, image in zip(("csf", "gm", "wm"), found["probabilityimages"], strict=True):
            save(image.numpy(), affine, folder / f"{name}.nii.gz")
            self._results[name] = str(folder / f"{name}.nii.gz")


class _PrepareIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    zooms = traits.Tuple(traits.Float, traits.Float, traits.Float, mandatory=True)


class _PrepareOut(TraitedSpec):
    out_file = File(exists=True, desc="float32, not packed: every later step reads it frame by frame")


class Prepare(_Step):
    """Give a BOLD run a header to trust, and zeros for NaN in its background."""

    input_spec = _PrepareIn
    output_spec = _PrepareOut

    def _compute(self, folder: Path) -> None:
        out = folder / "bold.nii"
        clean(nib.load(self.inputs.in_file), self.inputs.zooms).to_filename(out)
        self._results["out_file"] = str(out)


class _RealignIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    n_dummies = traits.Int(mandatory=True)


class _RealignOut(TraitedSpec):
    matrices = File(exists=True, desc="(T, 4, 4), world of the reference -> world of the frame, RAS mm")
    movement = File(exists=True, desc="(T, 6), fMRIPrep's six parameters")
    reference = File(exists=True, desc="the frame that the others are brought to")
    boldref = File(exists=True, desc="mean of the realigned steady frames")


class Realign(_Step):
    """Rigid motion of every frame towards the most typical one."""

    input_spec = _RealignIn
    output_spec = _RealignOut

    def _compute(self, folder: Path) -> None:
        image: Any = nib.load(self.inputs.in_file)
        frames = np.asanyarray(image.dataobj)
        n, zooms = frames.shape[3], np.asarray(image.header.get_zooms()[:3])
        first = typical_frame(lambda t: frames[..., t], n, self.inputs.n_dummies)
        reference = np.asarray(frames[..., first])
        matrices = realign(lambda t: frames[..., t], n, image.affine, reference, zooms)
        centre = np.asarray(ndimage.center_of_mass(reference))
        movement = motion.parameters(matrices, image.affine, reference.shape, centre)

        mean = np.zeros(reference.shape)
        index = np.indices(reference.shape).reshape(3, -1)
        index = np.vstack([index, np.ones(index.shape[1])])
        steady = range(self.inputs.n_dummies, n)
        for t in steady:
            where = (np.linalg.inv(image.affine) @ matrices[t] @ image.affine @ index)[:3]
            mean += ndimage.map_coordinates(frames[..., t], where, order=1, mode="nearest").reshape(
                mean.shape
            )
        for name, array in (("matrices", matrices), ("movement", movement)):
            np.save(folder / f"{name}.npy", array)
            self._results[name] = str(folder / f"{name}.npy")
        for name, volume in (("reference", reference), ("boldref", mean / len(steady))):
            save(volume.astype(np.float32), image.affine, folder / f"{name}.nii.gz")
            self._results[name] = str(folder / f"{name}.nii.gz")


class _CoregisterIn(BaseInterfaceInputSpec):
    boldref = File(exists=True, mandatory=True)
    anat = File(exists=True, mandatory=True)
    anat_mask = File(exists=True, mandatory=True)


class _CoregisterOut(TraitedSpec):
    to_anat = File(exists=True, desc="rigid, BOLD reference -> T1w")


class Coregister(_Step):
    """Rigid registration of the BOLD reference to the brain of the T1w image.

    Tried from the scanner's own coordinates and from common centres of mass; the better end is taken.
    """

    input_spec = _CoregisterIn
    output_spec = _CoregisterOut

    def _compute(self, folder: Path) -> None:
        head, mask = ants.image_read(self.inputs.anat), ants.image_read(self.inputs.anat_mask)
        # BOLD shows nothing finer than this
        spacing = [max(2.0, s) for s in head.spacing]
        head = ants.resample_image(head, spacing, use_voxels=False, interp_type=0)
        mask = ants.resample_image_to_target(mask, head, interp_type="nearestNeighbor")
        brain, near = head * mask, ants.iMath(mask, "MD", max(1, round(4 / min(head.spacing))))
        bold = ants.image_read(self.inputs.boldref)
        bold = ants.n4_bias_field_correction(
            bold, shrink_factor=2, convergence={"iters": [20, 20], "tol": 1e-4}
        )
        for name, image in (("brain", brain), ("near", near), ("bold", bold)):
            ants.image_write(image, str(folder / f"{name}.nii.gz"))
        pair = f"{folder / 'brain.nii.gz'},{folder / 'bold.nii.gz'},1"
        coarse = max(1, round(6 / min(head.spacing)))
        fine = max(1, coarse // 2)
        stage = [
            "--metric", f"Mattes[{pair},32,Regular,0.5]", "--transform", "Rigid[0.1]",
            "--convergence", "[200x100,1e-6,10]", "--shrink-factors", f"{coarse}x{fine}",
            "--smoothing-sigmas", "3x1.5mm", "--masks", f"[{folder / 'near.nii.gz'},NA]",
        ]  # fmt: skip
        ends = []
        for name, start in (("scanner", "Identity"), ("centres", f"[{pair}]")):
            _register(stage, start=start, prefix=folder / name, composite=False)
            found = str(folder / f"{name}0GenericAffine.mat")
            moved = ants.apply_transforms(brain, bold, [found])
            unlike = ants.image_similarity(brain, moved, "MattesMutualInformation", fixed_mask=near)
            ends.append((unlike, found))
        self._results["to_anat"] = min(ends)[1]


class _ResampleIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    matrices = File(exists=True, mandatory=True)
    reference = File(exists=True, mandatory=True)
    bold_to_anat = File(exists=True, mandatory=True)
    anat_to_template = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True)
    template_mask = File(exists=True, mandatory=True)
    spacing_mm = traits.Float(mandatory=True)


class _ResampleOut(TraitedSpec):
    out_file = File(exists=True)
    mask = File(exists=True, desc="brain that is inside the field of view in every frame")
    boldref = File(exists=True, desc="mean over frames")


class Resample(_Step):
    """Bring every frame to the standard grid in one interpolation: warp, coregistration and motion together."""

    input_spec = _ResampleIn
    output_spec = _ResampleOut

    def _compute(self, folder: Path) -> None:
        grid = open_grid(Path(self.inputs.template), self.inputs.spacing_mm, folder / "grid.nii.gz")
        drawn: Any = nib.load(folder / "grid.nii.gz")
        affine = drawn.affine
        composed = ants.apply_transforms(
            grid,
            ants.image_read(self.inputs.reference),
            [self.inputs.anat_to_template, self.inputs.bold_to_anat],
            compose=str(folder / "to_bold"),
        )
        shift = ants.image_read(composed).numpy().reshape(-1, 3) * LPS[:3]
        index = np.indices(grid.shape).reshape(3, -1)
        world = (affine[:3, :3] @ index).T + affine[:3, 3] + shift  # where in the reference each voxel lies
        world = np.column_stack([world, np.ones(len(world))]).T

        image: Any = nib.load(self.inputs.in_file)
        frames = np.asanyarray(image.dataobj)
        matrices = np.load(self.inputs.matrices, allow_pickle=False)
        to_voxel = np.linalg.inv(image.affine)
        limit = np.asarray(frames.shape[:3])[:, None] - 1
        half = 0.5  # a voxel reaches half its size beyond its centre
        at = (to_voxel @ world)[:3]
        candidates = np.flatnonzero(np.all((at > -4) & (at < limit + 4), axis=0))
        world = world[:, candidates]
        out = np.zeros((*grid.shape, frames.shape[3]), np.float32)
        flat = out.reshape(-1, frames.shape[3])
        always = np.ones(len(candidates), bool)
        for t in range(frames.shape[3]):
            spline = ndimage.spline_filter(frames[..., t], output=np.float32)  # pyright: ignore[reportArgumentType]
            where = (to_voxel @ matrices[t] @ world)[:3]
            seen = np.all((where >= -half) & (where <= limit + half), axis=0)
            always &= seen
            values = ndimage.map_coordinates(spline, where[:, seen], order=3, mode="nearest", prefilter=False)
            flat[candidates[seen], t] = values
        # cubic interpolation overshoots at sharp borders; BOLD has no negative signal
        if frames.min() >= 0:
            np.maximum(out, 0, out=out)
        inside = ants.resample_image_to_target(
            ants.image_read(self.inputs.template_mask), grid, interp_type="linear"
        ).numpy()
        seen_always = np.zeros(flat.shape[0], bool)
        seen_always[candidates] = always
        mean = out.mean(axis=3)
        mask = (inside > 0.5) & seen_always.reshape(grid.shape)
        # a tenth of the brain's signal is none: dropout, or voxels that were masked before
        mask &= mean > 0.1 * np.median(mean[mask]) if mask.any() else False
        if not mask.any():
            msg = "the run and the T1w image do not overlap: registration went wrong"
            raise DataError(msg)
        nib.Nifti1Image(out, affine).to_filename(folder / "std.nii")
        save(mask.astype(np.uint8), affine, folder / "mask.nii.gz")
        save(mean, affine, folder / "boldref.nii.gz")
        self._results["out_file"] = str(folder / "std.nii")
        self._results["mask"] = str(folder / "mask.nii.gz")
        self._results["boldref"] = str(folder / "boldref.nii.gz")


class _MeasureIn(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="run on the standard grid")
    mask = File(exists=True, mandatory=True)
    movement = File(exists=True, mandatory=True)
    wm = File(exists=True, mandatory=True)
    csf = File(exists=True, mandatory=True)
    anat_mask = File(exists=True, mandatory=True)
    anat_to_template = File(exists=True, mandatory=True)
    tr_s = traits.Float(mandatory=True)
    n_dummies = traits.Int(mandatory=True)


class _MeasureOut(TraitedSpec):
    table = File(exists=True)
    metadata = File(exists=True)


class Measure(_Step):
    """Confounds of a run, measured on the standard grid."""

    input_spec = _MeasureIn
    output_spec = _MeasureOut

    def _compute(self, folder: Path) -> None:
        grid = ants.image_read(self.inputs.mask)
        inside = grid.numpy() > 0
        image: Any = nib.load(self.inputs.in_file)
        frames = np.asanyarray(image.dataobj)
        white, fluid = self._deep_tissue(grid, inside)
        columns, metadata = signals.confounds(
            frames[inside],
            frames[white],
            frames[fluid],
            np.load(self.inputs.movement, allow_pickle=False),
            self.inputs.tr_s,
            self.inputs.n_dummies,
        )
        table = pd.DataFrame(columns)
        table.to_csv(folder / "table.tsv", sep="\t", index=False, na_rep="n/a", float_format="%.8g")
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=2))
        self._results["table"] = str(folder / "table.tsv")
        self._results["metadata"] = str(folder / "metadata.json")

    def _deep_tissue(self, grid: Any, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        anat_mask = ants.image_read(self.inputs.anat_mask)
        depth = np.asarray(ndimage.distance_transform_edt(anat_mask.numpy() > 0, sampling=anat_mask.spacing))
        found = []
        for path, least_depth in ((self.inputs.wm, 0.0), (self.inputs.csf, DEEP_FLUID_MM)):
            tissue = ants.image_read(path)
            kept = tissue.numpy() * (depth > least_depth)
            moved = ants.apply_transforms(
                grid, tissue.new_image_like(kept.astype(np.float32)), [self.inputs.anat_to_template]
            ).numpy()
            # voxels of pure tissue; fewer demands where a coarse grid leaves hardly any
            masks = (inside & (moved > least) for least in (0.95, 0.8, 0.5))
            mask = next((m for m in masks if m.sum() >= 50), None)
            found.append(mask if mask is not None else inside & (moved >= np.sort(moved[inside])[-50:][0]))
        return found[0], found[1]
