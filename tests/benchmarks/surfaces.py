"""Quality measures of surfaces that the embedded preprocessing made of real heads, beside their goals.

    bhx preproc run --bids HEADS --subject 01 --out OUT --surfaces cat-surf --templates results/templates
    python tests/benchmarks/surfaces.py OUT --templates results/templates \
        --reference sub-01 pycortex/filestore/db/S1/surfaces

The surfaces are read, not made: that takes some minutes a subject. With a reference, two surfaces of each hemisphere
that another program made of the same T1w (`wm_lh.gii`, `pia_lh.gii`, `wm_rh.gii`, `pia_rh.gii`), in its coordinates: the
head S1 of pycortex's source distribution (BSD-2-Clause) comes with FreeSurfer's. Distances are measured over the cortex,
from ours to the nearest vertex of theirs along its normal; positive where ours lies outside. No part of the test suite.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.spatial import KDTree

from bhx_prep.brain_maps import eigenmodes
from bhx_prep.brain_maps.align_modes import align
from bhx_prep.brain_maps.surfaces import cut, read_surface
from bhx_prep.preproc.embedded import surfaces_quality
from bhx_prep.preproc.embedded.surfaces_machine import QUALITY

#: Least correlation of the subject's modes 2 to 4 with the template's, in either hemisphere.
LEAST_CORRELATION = 0.9
#: Mean thickness (mm), and minutes of CPU a subject.
THICKNESS, MINUTES = (2.2, 3.2), 10.0
SIDES = (("left", "L", "lh"), ("right", "R", "rh"))


def modes(
    own: tuple[np.ndarray, np.ndarray], template: tuple[np.ndarray, np.ndarray], cortex: np.ndarray
) -> list[float]:
    """Correlations of a hemisphere's modes 2 to 4 with the template's, at corresponding vertices."""
    solved = []
    for surface in (own, template):
        vertices, triangles, _ = cut(*surface, cortex)
        values, vectors, found = eigenmodes.modes(vertices, triangles, 8)
        solved.append((values, vectors, found["vertex_areas_mm2"]))
    (values, vectors, areas), (others, their, their_areas) = solved
    _, _, found = align(values, vectors, others, their, np.sqrt(areas * their_areas))
    return found["template_correlation"][1:4]


def distances(own: np.ndarray, reference: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """From vertices to a surface along its normals, mm; positive outside."""
    vertices, triangles = reference
    nearest = KDTree(vertices).query(own)[1]
    return ((own - vertices[nearest]) * surfaces_quality.normals(vertices, triangles)[nearest]).sum(axis=1)


def columns(
    quality: Path, templates: Path, reference: Path | None
) -> Iterator[tuple[str, str, str, bool | None]]:
    """Name, value, goal, and whether it is reached, of one head."""
    found = json.loads(quality.read_text())
    yield "usable", str(found["reason"] or "yes"), "yes", found["usable"]
    if not found["usable"]:
        return
    stem = quality.name.removesuffix(f"_{QUALITY}")
    minutes = sum(found[side]["cpu_seconds"] for side, *_ in SIDES) / 60
    yield "CPU minutes of surfaces", f"{minutes:.1f}", f"<= {MINUTES:g}", minutes <= MINUTES
    with np.load(templates / "cortex.npz", allow_pickle=False) as file:
        cortex = dict(file)
    for side, letter, hemi in SIDES:
        numbers, standard = found[side], f"{stem}_hemi-{letter}_space-fsLR_den-32k"
        yield f"{side} Euler characteristic", f"{numbers['euler']}", "2", numbers["euler"] == 2
        thick = numbers["thickness_mm"]
        yield f"{side} thickness, mm", f"{thick:.2f}", "2.2 to 3.2", THICKNESS[0] <= thick <= THICKNESS[1]
        for name, limit in surfaces_quality.LIMITS.items():
            if name in ("euler", "thickness_mm"):
                continue  # above, beside goals of their own
            within = limit.low <= numbers[name] <= limit.high
            yield f"{side} {name}", f"{numbers[name]:g}", f"{limit.low:g} to {limit.high:g}", within
        own = read_surface(quality.with_name(f"{standard}_midthickness.surf.gii"), side)
        least = min(
            correlations := modes(own, read_surface(templates / f"surface_{side}.surf.gii"), cortex[side])
        )
        said = " ".join(f"{r:.3f}" for r in correlations)
        yield f"{side} modes 2-4, r", said, f">= {LEAST_CORRELATION:g}", least >= LEAST_CORRELATION
        for ours, theirs in (("white", "wm"), ("pial", "pia")) if reference else ():
            made = read_surface(quality.with_name(f"{standard}_{ours}.surf.gii"), side)[0][cortex[side]]
            off = distances(made, read_surface(reference / f"{theirs}_{hemi}.gii"))
            close = np.mean(np.abs(off) < 1)
            text = f"{np.median(off):+.2f}, absolute {np.median(np.abs(off)):.2f} (medians), {close:.0%} within 1"
            yield f"{side} {ours} to the reference's, mm", text, "", None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("derivatives", type=Path)
    parser.add_argument("--templates", type=Path, required=True)
    parser.add_argument("--reference", nargs=2, action="append", default=[], metavar=("STEM", "FOLDER"))
    args = parser.parse_args()
    references = {stem: Path(folder) for stem, folder in args.reference}
    missed = 0
    for quality in sorted(args.derivatives.glob(f"sub-*/**/*_{QUALITY}")):
        stem = quality.name.removesuffix(f"_{QUALITY}")
        print(f"{stem} ({nib.load(quality.with_name(f'{stem}_desc-preproc_T1w.nii.gz')).shape})")
        for name, value, goal, reached in columns(quality, args.templates, references.get(stem)):
            missed += reached is False
            mark = {True: "reached", False: "MISSED", None: ""}[reached]
            print(f"  {name:34}{value:>52}  {goal:>18}  {mark}")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
