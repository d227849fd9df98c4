"""Run the anatomical steps on one head, for `preproc.py`; needs the environment of ANTs.

One thread, by OMP_NUM_THREADS and ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS.

    .venv-ants/bin/python tests/benchmarks/preproc_anatomy.py --head head.json --templates results/templates \
        --resolution 1 --work DIR

Prints one line of JSON. Needs nothing of the project but the steps themselves: tissue is found by k-means inside the
given mask, so that no number depends on the mask that is judged.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow"))

from bhx_prep.preproc.embedded.bias import CorrectBias
from bhx_prep.preproc.embedded.brain_mask import BrainMask
from bhx_prep.preproc.embedded.normalise import Normalize
from bhx_prep.preproc.embedded.segment import Segment

#: Of a level's slice: below it is no top of a brain but a few voxels.
SLICE_MM2 = 100


def run(t1w: Path, templates: Path, resolution_mm: float, work: Path) -> dict[str, Any]:
    """The steps' outputs and, per step, CPU seconds."""
    head: Any = nib.load(t1w)
    template, template_mask = (str(templates / f"head_{name}.nii.gz") for name in ("T1w", "mask"))
    seconds: dict[str, float] = {}

    def step(name: str, interface: Any) -> Any:
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        start = time.process_time()
        made = interface.run(cwd=str(folder)).outputs
        seconds[name] = time.process_time() - start
        return made

    zooms = tuple(float(z) for z in head.header.get_zooms()[:3])
    bias = step("bias", CorrectBias(in_file=str(t1w), zooms=zooms)).out_file
    mask = step("mask", BrainMask(in_file=bias)).mask
    given = {"in_file": bias, "mask": mask, "template": template, "template_mask": template_mask}
    to_template = step("normalize", Normalize(**given, resolution_mm=resolution_mm)).to_template
    dseg = step("segment", Segment(in_file=bias, mask=mask)).dseg
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "anat": bias,
        "mask": mask,
        "to_template": to_template,
        "dseg": dseg,
        "cpu_s": seconds,
        "peak_gb": peak,
    }


def measure(anat: str, mask: str, to_template: str, true_mask: Path, templates: Path) -> dict[str, float]:
    """Numbers of a head whose brain is known.

    Parameters
    ----------
    anat, mask, to_template : str
        T1w of even brightness, brain mask on its grid, transform to the template.
    true_mask : Path
        The brain, on any grid.
    templates : Path
        Folder with the template and its mask.

    Returns
    -------
    dict
        `dice`; `outside_ml`, brain more than 4 mm outside the template's; `vertex_mm`, its top above (+) or below (-)
        the template's; `upper_grey_percent`, of the grey matter of the upper 30 mm what is outside the template's brain.
    """
    image: Any = nib.load(anat)
    given: Any = nib.load(true_mask)
    values = nib.Nifti1Image(np.asarray(given.dataobj, np.float32), given.affine)
    known = np.asarray(resample_from_to(values, image, order=1).dataobj) > 0.5
    found = np.asarray(nib.load(mask).dataobj) > 0  # type: ignore[attr-defined]
    grey = grey_matter(np.asarray(image.dataobj, np.float32), known)
    grid = ants.image_read(str(templates / "head_T1w.nii.gz"))
    source = ants.image_read(anat)

    def warped(of: np.ndarray) -> np.ndarray:
        moved = ants.apply_transforms(
            grid, source.new_image_like(of.astype(np.float32)), [to_template], "linear"
        )
        return moved.numpy() > 0.5

    brain, cortex = warped(known), warped(grey)
    template = ants.image_read(str(templates / "head_mask.nii.gz")).numpy() > 0
    spacing = np.asarray(grid.spacing)
    far = np.asarray(ndimage.distance_transform_edt(~template, sampling=spacing)) > 4
    upper = np.arange(template.shape[2]) > top(template, spacing) - 30 / spacing[2]
    upper_grey = cortex[..., upper]
    return {
        "dice": dice(found, known),
        "outside_ml": float((brain & far).sum() * np.prod(spacing) / 1000),
        "vertex_mm": float((top(brain, spacing) - top(template, spacing)) * spacing[2]),
        "upper_grey_percent": float(
            100 * (upper_grey & ~template[..., upper]).sum() / max(1, upper_grey.sum())
        ),
    }


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two masks, 0 to 1."""
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def top(mask: np.ndarray, spacing: np.ndarray) -> int:
    """Index of the highest axial slice with at least a square centimetre of a mask (X, Y, Z), Z upwards."""
    area = mask.sum(axis=(0, 1)) * spacing[0] * spacing[1]
    return int(np.flatnonzero(area >= SLICE_MM2).max())


def grey_matter(head: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The middle of three classes of brightness inside the brain (k-means), bool (X, Y, Z)."""
    inside = head[brain]
    centres = np.percentile(inside, [10, 50, 85]).astype(float)
    for _ in range(100):
        edges = (centres[1:] + centres[:-1]) / 2
        classes = np.digitize(inside, edges)
        moved = np.array([inside[classes == k].mean() for k in range(3)])
        if np.abs(moved - centres).max() < 1e-3 * centres[-1]:
            break
        centres = moved
    grey = np.zeros(brain.shape, bool)
    grey[brain] = classes == 1
    return grey


def own(folder: Path, ending: str) -> Path:
    """The file in the T1w image's own space, or from there to the template's."""
    (path,) = (
        path
        for path in folder.glob(f"*{ending}")
        if "_space-" not in path.name and ("_from-" not in path.name or "_from-T1w_to-MNI" in path.name)
    )
    return path


def main() -> None:
    """One head."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--head", required=True, type=json.loads, help="JSON with `t1w` and `mask`")
    parser.add_argument("--templates", required=True, type=Path)
    parser.add_argument("--resolution", type=float, default=1.0)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument(
        "--derivatives", type=Path, help="measure what a run of the workflow has left in an anat folder"
    )
    a = parser.parse_args()
    templates = a.templates.absolute()
    if a.derivatives is None:
        made = run(Path(a.head["t1w"]), templates, a.resolution, a.work.absolute())
    else:
        endings = {
            "anat": "desc-preproc_T1w.nii.gz",
            "mask": "desc-brain_mask.nii.gz",
            "to_template": "_xfm.h5",
        }
        made = {key: str(own(a.derivatives, ending)) for key, ending in endings.items()}
    numbers = measure(made["anat"], made["mask"], made["to_template"], Path(a.head["mask"]), templates)
    print("\n" + json.dumps({**numbers, "cpu_s": made.get("cpu_s"), "peak_gb": made.get("peak_gb")}))


if __name__ == "__main__":
    main()
