"""Whether the limits of the embedded preprocessing exclude real heads, and accept images that are no T1w image of a head.

    .venv-ants/bin/python tests/benchmarks/gates.py [--heads colin27] [--cases real water flair] [--resolution 4]

Every head of `preproc_heads.py` that can be had, as it is and spoiled: water instead of it, alone or in a shell, a FLAIR, a
T2w, an EPI and a CT made of its intensities, all of them below zero, without its upper 35 mm, its left half or all above the
neck, with a slab of zeros, without a part of the frontal lobe; and tilted by 45 degrees, without its face or its skull, or
mirrored, which may be registered well. A line per image; exit code 1 if a real head is refused, a spoiled one passes, or
none was tried. An image takes two CPU minutes at 1 mm, and half a minute at 4 mm, which is enough here.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import nibabel as nib
import numpy as np
import preproc_heads
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bhx_model.errors import DataError
from bhx_prep.dicom.deface import MARGIN_MM, NORMAL, plane_of
from bhx_prep.preproc.embedded.series import check_brightness

#: Axes of the arrays run to the right, to the front and upwards; lengths are voxels.
Spoil = Callable[[np.ndarray, np.ndarray], np.ndarray]


def water(head: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """A ball of 80 mm."""
    middle = np.asarray(head.shape) / 2
    place = np.moveaxis(np.indices(head.shape), 0, -1) - middle
    ball = np.linalg.norm(place * zooms, axis=-1) < 80
    return np.abs(100 * ball + 4 * np.random.default_rng(0).standard_normal(head.shape))


def shell(head: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """Water of a brain's size and form, and around it a bright shell as of scalp, with a dark gap."""
    middle = np.asarray(head.shape) / 2
    place = (np.moveaxis(np.indices(head.shape), 0, -1) - middle) * zooms / [68, 84, 66]
    radius = np.linalg.norm(place, axis=-1)
    noise = 4 * np.random.default_rng(0).standard_normal(head.shape)
    return np.abs(100.0 * (radius < 1) + 160.0 * ((radius > 1.1) & (radius < 1.18)) + noise)


def ct(head: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Bone is bright, all soft tissue alike, and air 0, as where 1,000 were added."""
    top = np.percentile(head, 99.5)
    inside = np.asarray(
        ndimage.binary_fill_holes(ndimage.binary_opening(head > 0.1 * top, iterations=2)), bool
    )
    bone = inside & (head < 0.15 * top) & ~np.asarray(ndimage.binary_erosion(inside, iterations=25), bool)
    return np.where(bone, 2000, np.where(inside, 1030 + 10 * head / top, 0)) + 5.0


def epi(head: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """The contrast of T2, blurred to 4 mm, without bone and scalp."""
    return ndimage.gaussian_filter(t2(head, zooms) * brain(head), 4 / 2.355 / zooms)


def negative(head: np.ndarray, _: np.ndarray) -> np.ndarray:
    """The sign lost."""
    return -head


def flair(head: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Fluid stays dark, grey matter becomes brighter than white matter."""
    white = np.percentile(head[head > 0.1 * head.max()], 78)
    return white * np.interp(head / white, [0, 0.3, 0.5, 0.75, 1, 1.2, 3], [0, 0.2, 0.5, 1, 0.78, 0.8, 1.1])


def t2(head: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Bright becomes dark, but for the air."""
    top = np.percentile(head, 99.5)
    return np.where(head > 0.12 * top, top - np.minimum(head, top), 0.3 * head)


def top_of(head: np.ndarray) -> int:
    """Plane of the vertex."""
    bright = ndimage.binary_opening(head > 0.15 * np.percentile(head, 99), iterations=2)
    return int(np.flatnonzero(bright.any(axis=(0, 1)))[-1])


def cut(head: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """Without the upper 35 mm."""
    return head[:, :, : top_of(head) - round(35 / zooms[2])]


def neck(head: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """What lies more than 110 mm below the vertex."""
    return head[:, :, : top_of(head) - round(110 / zooms[2])]


def half(head: np.ndarray, _: np.ndarray) -> np.ndarray:
    """The right half."""
    return head[head.shape[0] // 2 :]


def slab(head: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """16 mm of zeros, 50 mm below the vertex."""
    spoiled = head.copy()
    spoiled[:, :, top_of(head) - round(58 / zooms[2]) : top_of(head) - round(42 / zooms[2])] = 0
    return spoiled


def tilt(head: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """The chin on the breast."""
    turn = np.diag(1 / zooms) @ Rotation.from_euler("x", 45, degrees=True).as_matrix() @ np.diag(zooms)
    middle = np.asarray(head.shape) / 2
    return ndimage.affine_transform(head, turn, middle - turn @ middle, order=1)


def brain(head: np.ndarray) -> np.ndarray:
    """Its mask, by the workflow's own network."""
    from bhx_prep.preproc.embedded.brain_mask import largest_piece, probability  # of the second environment

    return largest_piece(probability(head.astype(np.float32)) > 0.5)


def stripped(head: np.ndarray, _: np.ndarray) -> np.ndarray:
    """The brain alone."""
    return head * brain(head)


def mirrored(head: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Left and right exchanged: no brightness tells."""
    return head[::-1]


def reversed_slices(head: np.ndarray, _: np.ndarray) -> np.ndarray:
    """The slices from the top to the bottom, as a header says that is wrong by its sign: a mirrored head upside down."""
    return head[:, :, ::-1]


def upside_down(head: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Turned by 180 degrees about the axis from left to right: the crown where the header has the neck."""
    return head[:, ::-1, ::-1]


def back_to_front(head: np.ndarray, _: np.ndarray) -> np.ndarray:
    """The face where the header has the back of the head: mirrored."""
    return head[:, ::-1]


def defaced(head: np.ndarray, zooms: np.ndarray, too_far_mm: float = 0.0) -> np.ndarray:
    """Without what `bhx ingest dicom` cuts off with `deface: face`."""
    plane_mm = plane_of(brain(head), np.diag([*zooms, 1.0])) - too_far_mm
    place = np.moveaxis(np.indices(head.shape), 0, -1) * zooms
    return np.where(place @ NORMAL > plane_mm, 0, head)


def misdefaced(head: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """With the face, up to 15 mm of the frontal lobe removed."""
    return defaced(head, zooms, 15.0 + MARGIN_MM)


#: What is made of a head, and whether it must be excluded; the last ones may come out right.
SPOILED: dict[str, tuple[Spoil, bool]] = {
    "real": (lambda head, _: head, False),
    "water": (water, True),
    "shell": (shell, True),
    "flair": (flair, True),
    "t2": (t2, True),
    "epi": (epi, True),
    "ct": (ct, True),
    "negative": (negative, True),
    "cut": (cut, True),
    "neck": (neck, True),
    "half": (half, True),
    "slab": (slab, True),
    "misdefaced": (misdefaced, True),
    "reversed": (reversed_slices, True),
    "upside": (upside_down, True),
    "back": (back_to_front, True),
    "tilt": (tilt, False),
    "defaced": (defaced, False),
    "stripped": (stripped, False),
    "mirrored": (mirrored, False),
}


def judge(path: Path, templates: Path, resolution_mm: float, folder: Path) -> str | None:
    """Why an image is excluded; None if it passes. The check prints its numbers."""
    # of the second environment
    from bhx_prep.preproc.embedded.bias import CorrectBias
    from bhx_prep.preproc.embedded.brain_mask import BrainMask
    from bhx_prep.preproc.embedded.check_anat import CheckAnat
    from bhx_prep.preproc.embedded.normalise import Normalize

    image = nib.load(path)
    values = np.asarray(image.dataobj)  # type: ignore[attr-defined]
    zooms = tuple(float(z) for z in image.header.get_zooms()[:3])  # type: ignore[attr-defined]
    files = {
        name: str(templates / f"head_{what}.nii.gz")
        for name, what in (("template", "T1w"), ("template_mask", "mask"))
    }
    try:
        check_brightness(float(values.mean()), float(values.std()))
        anat = CorrectBias(in_file=str(path), zooms=zooms).run(cwd=str(folder)).outputs.out_file
        mask = BrainMask(in_file=anat).run(cwd=str(folder)).outputs.mask
        warp = (
            Normalize(in_file=anat, mask=mask, resolution_mm=resolution_mm, **files)
            .run(cwd=str(folder))
            .outputs
        )
        CheckAnat(
            name=folder.name,
            file=str(folder / "quality.json"),
            anat=anat,
            mask=mask,
            to_template=warp.to_template,
            to_anat=warp.to_anat,
            **files,
        ).run(cwd=str(folder))
    except DataError as why:
        return str(why)
    return None


def main(argv: list[str] | None = None) -> int:
    """Print a line per image; 1 if one is judged wrongly, or none was tried."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heads", nargs="+", default=list(preproc_heads.HEADS), metavar="HEAD")
    parser.add_argument("--cases", nargs="+", default=list(SPOILED), choices=SPOILED, metavar="CASE")
    parser.add_argument("--templates", type=Path, default=Path("results/templates"), help="(%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("results/benchmarks/gates"), help="(%(default)s)")
    parser.add_argument("--resolution", type=float, default=4.0, help="of the registration, mm (%(default)s)")
    a = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    wrong, tried = 0, 0
    for name in a.heads:
        try:
            head = nib.as_closest_canonical(nib.load(preproc_heads.make(name, a.work / "heads").t1w))
        except preproc_heads.Absent as why:
            print(f"{name} is skipped: {why}", file=sys.stderr)
            continue
        values = np.asarray(head.dataobj, np.float32).reshape(head.shape[:3])  # type: ignore[attr-defined]
        for case in a.cases:
            spoil, must_fail = SPOILED[case]
            folder = (a.work / f"{name}-{case}").absolute()
            folder.mkdir(parents=True, exist_ok=True)
            made = spoil(values, np.asarray(head.header.get_zooms()[:3]))  # type: ignore[attr-defined]
            nib.Nifti1Image(made.astype(np.float32), head.affine).to_filename(folder / "T1w.nii.gz")  # type: ignore[attr-defined]
            why = judge(folder / "T1w.nii.gz", a.templates.absolute(), a.resolution, folder)
            is_wrong = (case == "real" and why is not None) or (must_fail and why is None)
            wrong, tried = wrong + is_wrong, tried + 1
            verdict = f"excluded: {why}" if why else "passes"
            print(f"{name} {case}: {verdict}{' (WRONG)' if is_wrong else ''}", flush=True)
    return int(wrong > 0 or not tried)


if __name__ == "__main__":
    sys.exit(main())
