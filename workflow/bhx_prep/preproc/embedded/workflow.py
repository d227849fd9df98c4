"""The nipype workflow of one subject: a branch per T1w image, and one per BOLD run that uses it."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Places:
    """Where the branches of a subject read and write: raw data, derivatives, templates, and the T1w image's grid (mm)."""

    root: Path
    base: Path
    templates: Path
    resolution_mm: float

    def folder(self, scan: Scan) -> str:
        """Folder of a scan's derivatives below `base`, that of the scan below `root`."""
        return str(scan.path.parent.relative_to(self.root))

    def template(self) -> dict[str, str]:
        """The template's head and brain mask, as steps take them."""
        return {
            "template": str(self.templates / "head_T1w.nii.gz"),
            "template_mask": str(self.templates / "head_mask.nii.gz"),
        }


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
    places = Places(root, base, templates, resolution_mm)
    branches = {}
    for anat in files.anats:
        branches[anat.stem] = _anat_branch(workflow, anat, places)
        if surfaces != "none":
            _surface_branch(workflow, anat, branches[anat.stem], places)
    for run in files.runs:
        anat = files.anat_of(run)
        nodes, name = branches[anat.stem], f"{places.folder(anat)}/{anat.stem}"
        _run_branch(workflow, run, nodes, name, places)
        if surfaces != "none":
            _sample_branch(workflow, run, nodes, name, places)
    return workflow


def _check(step: type[CheckAnat | CheckRun], scan: Scan, suffix: str, places: Places) -> Node:
    """Node that measures a scan and ends its branch where it fails a limit."""
    numbers = places.base / places.folder(scan) / f"{scan.stem}_desc-quality_{suffix}.json"
    check = step(name=f"{scan.stem}_{suffix}", file=str(numbers), keep=scan.keep, **places.template())
    return Node(check, f"quality_{scan.stem}", overwrite=True)  # for its line and its file


def _anat_branch(workflow: Workflow, scan: Scan, places: Places) -> dict[str, Node]:
    bias = Node(CorrectBias(in_file=str(scan.path), zooms=scan.zooms), f"bias_{scan.stem}")
    mask = Node(BrainMask(), f"mask_{scan.stem}")
    normalize = Node(
        Normalize(**places.template(), resolution_mm=places.resolution_mm),
        f"normalize_{scan.stem}",
    )
    quality = _check(CheckAnat, scan, "T1w", places)
    segment = Node(Segment(), f"segment_{scan.stem}")
    saved = Node(
        SaveAnat(
            base=str(places.base),
            folder=places.folder(scan),
            stem=scan.stem,
            sidecar=scan.sidecar,
            source=str(scan.path.relative_to(places.root)),
            resolution_mm=places.resolution_mm,
            template=places.template()["template"],
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
    places: Places,
) -> None:
    """Add a run to the branch of its T1w image."""
    run = _run_nodes(scan, anat_name, places)
    n_dummies = ("n_volumes_to_discard", "n_dummies")
    workflow.connect(
        [
            (run["prepare"], run["dummies"], [("out_file", "in_file")]),
            (run["prepare"], run["realign"], [("out_file", "in_file")]),
            (run["dummies"], run["realign"], [n_dummies]),
            (anat["bias"], run["coregister"], [("out_file", "anat")]),
            (run["prepare"], run["slice_timing"], [("out_file", "in_file")]),
            (run["dummies"], run["slice_timing"], [n_dummies]),
            (run["slice_timing"], run["resample"], [("out_file", "in_file")]),
            (anat["quality"], run["coregister"], [("mask", "anat_mask")]),
            (run["coregister"], run["quality"], [("to_anat", "to_anat")]),
            (
                anat["quality"],
                run["quality"],
                [(name, name) for name in ("to_template", "standard", "standard_mask")],
            ),
            (run["realign"], run["resample"], [("matrices", "matrices"), ("reference", "reference")]),
            (run["quality"], run["resample"], [("to_anat", "bold_to_anat")]),
            (anat["quality"], run["resample"], [("to_template", "anat_to_template")]),
            (run["resample"], run["measure"], [("out_file", "in_file"), ("mask", "mask")]),
            (run["realign"], run["measure"], [("movement", "movement"), ("rmsd", "rmsd")]),
            (run["dummies"], run["measure"], [n_dummies]),
            (anat["segment"], run["measure"], [("wm", "wm"), ("csf", "csf")]),
            (anat["quality"], run["measure"], [("mask", "anat_mask"), ("to_template", "anat_to_template")]),
            (run["dummies"], run["saved"], [n_dummies]),
            (run["slice_timing"], run["saved"], [("metadata", "timing")]),
            (run["resample"], run["saved"], [("out_file", "bold"), ("mask", "mask"), ("boldref", "boldref")]),
            (run["realign"], run["saved"], [("reference", "hmc_boldref")]),
            (run["coregister"], run["saved"], [("to_anat", "bold_to_anat")]),
            (run["measure"], run["saved"], [("table", "table"), ("metadata", "metadata")]),
        ]
    )
    # what the run is registered by: without distortion where there is a field map
    boldref = _distortion(workflow, scan, places.root, run)
    workflow.connect(
        [
            (boldref, run["coregister"], [("boldref", "boldref")]),
            (boldref, run["quality"], [("boldref", "boldref")]),
            (boldref, run["saved"], [("boldref", "coreg_boldref")]),
        ]
    )


def _run_nodes(scan: Scan, anat_name: str, places: Places) -> dict[str, Node]:
    """Make the steps of a run, by what they do."""
    nodes: dict[str, Node] = {}
    spacing_mm = bold_spacing(scan.zooms, places.resolution_mm)
    nodes["prepare"] = Node(Prepare(in_file=str(scan.path), zooms=scan.zooms), f"prepare_{scan.stem}")
    nodes["dummies"] = Node(NonSteadyStateDetector(), f"dummies_{scan.stem}")
    slices = scan.slices
    nodes["slice_timing"] = Node(
        CorrectSliceTiming(
            times_s=list(slices.times_s) if slices else [], axis=slices.axis if slices else 2, tr_s=scan.tr_s
        ),
        f"slicetiming_{scan.stem}",
    )
    nodes["realign"] = Node(Realign(), f"realign_{scan.stem}")
    nodes["coregister"] = Node(Coregister(), f"coregister_{scan.stem}")
    nodes["quality"] = _check(CheckRun, scan, "bold", places)
    nodes["resample"] = Node(
        Resample(**places.template(), spacing_mm=spacing_mm),
        f"resample_{scan.stem}",
    )
    nodes["measure"] = Node(Measure(tr_s=scan.tr_s), f"measure_{scan.stem}")
    nodes["saved"] = Node(
        SaveRun(
            base=str(places.base),
            folder=places.folder(scan),
            stem=scan.stem,
            sidecar=scan.sidecar,
            source=str(scan.path.relative_to(places.root)),
            anat=anat_name,
            spacing_mm=spacing_mm,
            tr_s=scan.tr_s,
        ),
        f"save_{scan.stem}",
        overwrite=True,  # its files lie outside its folder: nipype cannot know whether they are still there
    )
    return nodes


def _distortion(workflow: Workflow, scan: Scan, root: Path, run: dict[str, Node]) -> Node:
    """Add the correction of distortion where there is a field map; the node whose reference is registered."""
    if scan.field_map is None:
        said = [text for text in scan.notes if kind_of(text) == Kind.DISTORTION]
        run["saved"].inputs.distortion = {"DistortionCorrection": "none", "DistortionNote": "; ".join(said)}
        return run["realign"]
    distortion = Node(
        EstimateDistortion(
            field_map=scan.field_map.fields(),
            sources=[f"bids:raw:{Path(path).relative_to(root)}" for path in scan.field_map.sources],
        ),
        f"distortion_{scan.stem}",
    )
    workflow.connect(
        [
            (run["realign"], distortion, [("boldref", "boldref")]),
            (distortion, run["resample"], [("displacement", "displacement"), ("axis", "axis")]),
            (distortion, run["saved"], [("metadata", "distortion")]),
        ]
    )
    return distortion


def _surface_branch(workflow: Workflow, scan: Scan, anat: dict[str, Node], places: Places) -> None:
    """Add the surfaces of a T1w image to its branch."""
    surfaces = Node(MakeSurfaces(templates=str(places.templates)), f"surfaces_{scan.stem}")
    saved = Node(
        SaveSurfaces(
            base=str(places.base),
            folder=places.folder(scan),
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
    workflow: Workflow, scan: Scan, anat: dict[str, Node], anat_name: str, places: Places
) -> None:
    """Add the sampling of a run on surfaces to existing nodes."""
    slice_timing, realign, quality = (
        workflow.get_node(f"{step}_{scan.stem}") for step in ("slicetiming", "realign", "quality")
    )
    sampled = Node(
        SampleSurfaces(
            base=str(places.base),
            folder=places.folder(scan),
            stem=scan.stem,
            sidecar=scan.sidecar,
            source=str(scan.path.relative_to(places.root)),
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
