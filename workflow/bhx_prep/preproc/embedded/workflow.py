"""The nipype workflow of one subject: a branch per T1w image, and one per BOLD run that uses it."""

from __future__ import annotations

from pathlib import Path

from nipype import Node, Workflow
from nipype.algorithms.confounds import NonSteadyStateDetector

from bhx_prep.io.notes import Kind, kind_of
from bhx_prep.preproc.embedded.bias import CorrectBias
from bhx_prep.preproc.embedded.brain_mask import BrainMask
from bhx_prep.preproc.embedded.check_anat import CheckAnat
from bhx_prep.preproc.embedded.check_run import CheckRun
from bhx_prep.preproc.embedded.coregister import Coregister
from bhx_prep.preproc.embedded.derivatives import SaveAnat, SaveRun, bold_spacing
from bhx_prep.preproc.embedded.distortion_step import EstimateDistortion
from bhx_prep.preproc.embedded.measure import Measure
from bhx_prep.preproc.embedded.normalise import Normalize
from bhx_prep.preproc.embedded.prepare import Prepare
from bhx_prep.preproc.embedded.raw_files import RawFiles, Scan
from bhx_prep.preproc.embedded.realign_step import Realign
from bhx_prep.preproc.embedded.resample import Resample
from bhx_prep.preproc.embedded.segment import Segment
from bhx_prep.preproc.embedded.slice_timing_step import CorrectSliceTiming
from bhx_prep.preproc.embedded.surfaces import MakeSurfaces
from bhx_prep.preproc.embedded.surfaces_bold import SampleSurfaces
from bhx_prep.preproc.embedded.surfaces_save import SaveSurfaces


def build(
    files: RawFiles,
    root: Path,
    templates: Path,
    base: Path,
    work: Path,
    resolution_mm: float,
    surfaces: str = "none",
) -> Workflow:
    """Make the workflow; nothing runs yet.

    Parameters
    ----------
    files : RawFiles
        With at least one T1w image.
    root : Path
        Raw BIDS dataset.
    templates : Path
        Folder with ``head_T1w.nii.gz`` and ``head_mask.nii.gz``.
    base : Path
        Folder that the derivatives are written to, as ``sub-X/...``.
    work : Path
        Folder of nipype's own files.
    resolution_mm : float
        Grid of the T1w image in standard space.
    surfaces : str
        ``preproc.surfaces``.

    Returns
    -------
    Workflow
        Nodes are named ``step_stem``, e.g. ``realign_sub-01_task-rest``.
    """
    workflow = Workflow(f"sub-{files.subject}", base_dir=str(work))
    template, template_mask = str(templates / "head_T1w.nii.gz"), str(templates / "head_mask.nii.gz")
    branches = {}
    for anat in files.anats:
        branches[anat.stem] = _anat_branch(workflow, anat, root, base, template, template_mask, resolution_mm)
        if surfaces != "none":
            _surface_branch(workflow, anat, branches[anat.stem], root, base, templates)
    for run in files.runs:
        anat = files.anat_of(run)
        nodes, name = branches[anat.stem], f"{_folder(anat, root)}/{anat.stem}"
        _run_branch(workflow, run, nodes, name, root, base, template, template_mask, resolution_mm)
        if surfaces != "none":
            _sample_branch(workflow, run, nodes, name, root, base)
    return workflow


def _anat_branch(
    workflow: Workflow,
    scan: Scan,
    root: Path,
    base: Path,
    template: str,
    template_mask: str,
    resolution_mm: float,
) -> dict[str, Node]:
    bias = Node(CorrectBias(in_file=str(scan.path), zooms=scan.zooms), f"bias_{scan.stem}")
    mask = Node(BrainMask(), f"mask_{scan.stem}")
    normalize = Node(
        Normalize(template=template, template_mask=template_mask, resolution_mm=resolution_mm),
        f"normalize_{scan.stem}",
    )
    quality = Node(
        CheckAnat(
            name=f"{scan.stem}_T1w",
            file=str(base / _folder(scan, root) / f"{scan.stem}_desc-quality_T1w.json"),
            keep=scan.keep,
            template=template,
            template_mask=template_mask,
        ),
        f"quality_{scan.stem}",
        overwrite=True,  # for its line and its file
    )
    segment = Node(Segment(), f"segment_{scan.stem}")
    saved = Node(
        SaveAnat(
            base=str(base),
            folder=_folder(scan, root),
            stem=scan.stem,
            sidecar=scan.sidecar,
            source=str(scan.path.relative_to(root)),
            resolution_mm=resolution_mm,
            template=template,
        ),
        f"save_{scan.stem}",
        overwrite=True,  # its files lie outside its folder: nipype cannot know whether they are still there
    )
    workflow.connect(
        [
            (bias, mask, [("out_file", "in_file")]),
            (bias, normalize, [("out_file", "in_file")]),
            (mask, normalize, [("mask", "mask")]),
            (bias, quality, [("out_file", "anat")]),
            (mask, quality, [("mask", "mask")]),
            (normalize, quality, [("to_template", "to_template"), ("to_anat", "to_anat")]),
            (bias, segment, [("out_file", "in_file")]),
            (quality, segment, [("mask", "mask")]),
            (bias, saved, [("out_file", "anat")]),
            (quality, saved, [(name, name) for name in ("mask", "to_template", "to_anat")]),
            (segment, saved, [("dseg", "dseg"), ("gm", "gm"), ("wm", "wm"), ("csf", "csf")]),
        ]
    )
    # what follows takes mask and warp from the check: a head that fails it takes no further time
    return {"bias": bias, "quality": quality, "segment": segment}


def _run_branch(
    workflow: Workflow,
    scan: Scan,
    anat: dict[str, Node],
    anat_name: str,
    root: Path,
    base: Path,
    template: str,
    template_mask: str,
    resolution_mm: float,
) -> None:
    spacing_mm = bold_spacing(scan.zooms, resolution_mm)
    prepare = Node(Prepare(in_file=str(scan.path), zooms=scan.zooms), f"prepare_{scan.stem}")
    dummies = Node(NonSteadyStateDetector(), f"dummies_{scan.stem}")
    slices = scan.slices
    slice_timing = Node(
        CorrectSliceTiming(
            times_s=list(slices.times_s) if slices else [], axis=slices.axis if slices else 2, tr_s=scan.tr_s
        ),
        f"slicetiming_{scan.stem}",
    )
    realign = Node(Realign(), f"realign_{scan.stem}")
    coregister = Node(Coregister(), f"coregister_{scan.stem}")
    quality = Node(
        CheckRun(
            name=f"{scan.stem}_bold",
            file=str(base / _folder(scan, root) / f"{scan.stem}_desc-quality_bold.json"),
            keep=scan.keep,
            template=template,
            template_mask=template_mask,
        ),
        f"quality_{scan.stem}",
        overwrite=True,  # for its line and its file
    )
    resample = Node(
        Resample(template=template, template_mask=template_mask, spacing_mm=spacing_mm),
        f"resample_{scan.stem}",
    )
    measure = Node(Measure(tr_s=scan.tr_s), f"measure_{scan.stem}")
    saved = Node(
        SaveRun(
            base=str(base),
            folder=_folder(scan, root),
            stem=scan.stem,
            sidecar=scan.sidecar,
            source=str(scan.path.relative_to(root)),
            anat=anat_name,
            spacing_mm=spacing_mm,
            tr_s=scan.tr_s,
        ),
        f"save_{scan.stem}",
        overwrite=True,  # its files lie outside its folder: nipype cannot know whether they are still there
    )
    n_dummies = ("n_volumes_to_discard", "n_dummies")
    workflow.connect(
        [
            (prepare, dummies, [("out_file", "in_file")]),
            (prepare, realign, [("out_file", "in_file")]),
            (dummies, realign, [n_dummies]),
            (anat["bias"], coregister, [("out_file", "anat")]),
            (prepare, slice_timing, [("out_file", "in_file")]),
            (dummies, slice_timing, [n_dummies]),
            (slice_timing, resample, [("out_file", "in_file")]),
            (anat["quality"], coregister, [("mask", "anat_mask")]),
            (coregister, quality, [("to_anat", "to_anat")]),
            (
                anat["quality"],
                quality,
                [(name, name) for name in ("to_template", "standard", "standard_mask")],
            ),
            (realign, resample, [("matrices", "matrices"), ("reference", "reference")]),
            (quality, resample, [("to_anat", "bold_to_anat")]),
            (anat["quality"], resample, [("to_template", "anat_to_template")]),
            (resample, measure, [("out_file", "in_file"), ("mask", "mask")]),
            (realign, measure, [("movement", "movement"), ("rmsd", "rmsd")]),
            (dummies, measure, [n_dummies]),
            (anat["segment"], measure, [("wm", "wm"), ("csf", "csf")]),
            (anat["quality"], measure, [("mask", "anat_mask"), ("to_template", "anat_to_template")]),
            (dummies, saved, [n_dummies]),
            (slice_timing, saved, [("metadata", "timing")]),
            (resample, saved, [("out_file", "bold"), ("mask", "mask"), ("boldref", "boldref")]),
            (realign, saved, [("reference", "hmc_boldref")]),
            (coregister, saved, [("to_anat", "bold_to_anat")]),
            (measure, saved, [("table", "table"), ("metadata", "metadata")]),
        ]
    )
    # what the run is registered by: without distortion where there is a field map
    boldref = _distortion(workflow, scan, root, realign, resample, saved)
    workflow.connect(
        [
            (boldref, coregister, [("boldref", "boldref")]),
            (boldref, quality, [("boldref", "boldref")]),
            (boldref, saved, [("boldref", "coreg_boldref")]),
        ]
    )


def _distortion(
    workflow: Workflow, scan: Scan, root: Path, realign: Node, resample: Node, saved: Node
) -> Node:
    """Add the correction of distortion where there is a field map; the node whose reference is registered."""
    if scan.field_map is None:
        said = [text for text in scan.notes if kind_of(text) == Kind.DISTORTION]
        saved.inputs.distortion = {"DistortionCorrection": "none", "DistortionNote": "; ".join(said)}
        return realign
    distortion = Node(
        EstimateDistortion(
            field_map=scan.field_map.fields(),
            sources=[f"bids:raw:{Path(path).relative_to(root)}" for path in scan.field_map.sources],
        ),
        f"distortion_{scan.stem}",
    )
    workflow.connect(
        [
            (realign, distortion, [("boldref", "boldref")]),
            (distortion, resample, [("displacement", "displacement"), ("axis", "axis")]),
            (distortion, saved, [("metadata", "distortion")]),
        ]
    )
    return distortion


def _surface_branch(
    workflow: Workflow, scan: Scan, anat: dict[str, Node], root: Path, base: Path, templates: Path
) -> None:
    """Add the surfaces of a T1w image to its branch."""
    surfaces = Node(MakeSurfaces(templates=str(templates)), f"surfaces_{scan.stem}")
    saved = Node(
        SaveSurfaces(
            base=str(base),
            folder=_folder(scan, root),
            stem=scan.stem,
            sidecar=scan.sidecar,
        ),
        f"savesurfaces_{scan.stem}",
        overwrite=True,
    )
    workflow.connect(
        [
            (anat["bias"], surfaces, [("out_file", "in_file")]),
            (anat["segment"], surfaces, [("gm", "gm"), ("wm", "wm"), ("csf", "csf")]),
            (anat["quality"], surfaces, [("to_anat", "to_anat")]),
            (surfaces, saved, [("quality", "quality"), ("left", "left"), ("right", "right")]),
        ]
    )
    anat["surfaces"] = surfaces


def _sample_branch(
    workflow: Workflow, scan: Scan, anat: dict[str, Node], anat_name: str, root: Path, base: Path
) -> None:
    """Add the sampling of a run on surfaces, to nodes that are there."""
    slice_timing, realign, quality = (
        workflow.get_node(f"{step}_{scan.stem}") for step in ("slicetiming", "realign", "quality")
    )
    sampled = Node(
        SampleSurfaces(
            base=str(base),
            folder=_folder(scan, root),
            stem=scan.stem,
            sidecar=scan.sidecar,
            source=str(scan.path.relative_to(root)),
            anat=anat_name,
            tr_s=scan.tr_s,
        ),
        f"sample_{scan.stem}",
        overwrite=True,
    )
    workflow.connect(
        [
            (slice_timing, sampled, [("out_file", "in_file"), ("metadata", "timing")]),
            (realign, sampled, [("matrices", "matrices")]),
            (quality, sampled, [("to_anat", "bold_to_anat")]),
            (anat["surfaces"], sampled, [("left", "left"), ("right", "right")]),
        ]
    )
    if scan.field_map is None:
        sampled.inputs.distortion = workflow.get_node(f"save_{scan.stem}").inputs.distortion
        return
    distortion = workflow.get_node(f"distortion_{scan.stem}")
    names = (("displacement", "displacement"), ("axis", "axis"), ("metadata", "distortion"))
    workflow.connect([(distortion, sampled, list(names))])


def _folder(scan: Scan, root: Path) -> str:
    return str(scan.path.parent.relative_to(root))
