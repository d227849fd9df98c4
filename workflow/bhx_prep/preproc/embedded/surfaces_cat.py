"""Surfaces of one hemisphere by cat-surf: central, white and pial surface, thickness, sphere, registration to fsLR.

A process of its own: cat-surf (GPL-2.0-or-later) is a package that the user installs, and its C code may end the
process where it cannot go on. Methods: thickness by projection (Dahnke et al. 2013), marching cubes with correction of
topology (Yotter et al. 2011), Spherical Demons (Yeo et al. 2010); order and settings as in T1Prep 0.8.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bhx_model.atomic_write import atomic_write
from bhx_model.command_line import run_command
from bhx_prep.preproc.embedded.surfaces_start import turned

#: Of the triangles of marching cubes so many are kept.
_KEPT = 0.25


def reconstruct(values: np.ndarray, affine: np.ndarray, seconds: dict[str, float]) -> dict[str, np.ndarray]:
    """White, pial and central surface of a hemisphere, its thickness and its sphere; vertices correspond.

    Parameters
    ----------
    values : array, (X, Y, Z)
        Labels as of `HemisphereLabels`.
    affine : array, (4, 4)
        Voxel to mm.
    seconds : dict
        What each stage took is added.

    Returns
    -------
    dict
        ``white``, ``pial``, ``midthickness``, ``sphere`` (V, 3; mm), ``triangles`` (F, 3), ``thickness`` (V; mm).
    """
    import cat_surf

    clock = _Clock(seconds)
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    labels = np.asarray(values, np.float32, order="F")
    thick, position, *_ = cat_surf.vol_thickness_pbt(
        labels,
        voxelsize=zooms,
        n_avgs=5,
        sulcal_barrier=True,
        barrier_gmtfactor=1.2,
        barrier_q=0.7,
        correct_thickness=0.0,
    )
    clock.stop("thickness")
    volume = (np.asarray(position, np.float32), affine)
    vertices, triangles = _central_surface(volume, (labels, affine), clock)
    thickness, _ = cat_surf.vol2surf(
        (np.asarray(thick, np.float32), affine),
        vertices,
        triangles,
        grid_start=-0.4,
        grid_end=0.4,
        grid_steps=5,
        map_func="waverage",
    )
    pial, _, white, _ = cat_surf.surf_to_pial_white(
        vertices, triangles, thickness, (labels, affine), method=2, remove_intersect=True
    )
    middle, triangles = cat_surf.fix_self_intersect((pial + white) / 2, triangles, reference=vertices)
    clock.stop("pial and white")
    sphere, _ = cat_surf.surf_to_sphere(middle, triangles, stop_at=6)
    clock.stop("sphere")
    return {
        "white": white,
        "pial": pial,
        "midthickness": middle,
        "sphere": sphere,
        "triangles": triangles,
        "thickness": thickness,
    }


def _central_surface(
    position: tuple[np.ndarray, np.ndarray], labels: tuple[np.ndarray, np.ndarray], clock: _Clock
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of the surface halfway between white matter and pia; volumes come with their affines."""
    import cat_surf

    vertices, triangles = cat_surf.vol_marching_cubes(
        position, label=labels, threshold=0.5, pre_fwhm=1.0, strength_sulci=1.0, sheet_offset=0.2
    )
    clock.stop("marching cubes")
    vertices, triangles = cat_surf.reduce_mesh(
        vertices, triangles, target_faces=round(_KEPT * len(triangles)), aggressiveness=7.0
    )
    start = vertices
    vertices, triangles = cat_surf.surf_deform(
        vertices, triangles, position, w1=0.1, w2=0.1, w3=1.0, sigma=0.2, isovalue=0.5, iterations=75
    )
    vertices, triangles = cat_surf.fix_self_intersect(vertices, triangles, reference=start)
    clock.stop("central surface")
    return vertices, triangles


def register_sphere(
    made: dict[str, np.ndarray],
    target: tuple[np.ndarray, np.ndarray],
    target_sphere: tuple[np.ndarray, np.ndarray],
    seconds: dict[str, float],
) -> np.ndarray:
    """The subject's sphere in the space of fsLR, (V, 3), by Spherical Demons on the folding.

    They start where anatomy has turned the sphere to (`turned`): fsLR's is some 40 degrees away from cat-surf's, and from
    there the central sulcus ends in its neighbour.
    """
    import cat_surf

    clock = _Clock(seconds)
    triangles = made["triangles"]
    start = turned(made["midthickness"], triangles, made["sphere"], target[0], target_sphere[0])
    found = cat_surf.spherical_demon(
        (made["midthickness"], triangles),
        (start, triangles),
        target,
        target_sphere,
        rotate=False,
        unfold=True,
    )
    clock.stop("registration")
    return np.asarray(found[0] if isinstance(found, tuple) else found)


def resample(
    made: dict[str, np.ndarray], target_sphere: tuple[np.ndarray, np.ndarray], seconds: dict[str, float]
) -> dict[str, np.ndarray]:
    """Surfaces and thickness on the vertices of fsLR-32k, as ``fslr_white`` and so on, by the registered sphere."""
    import cat_surf

    clock = _Clock(seconds)
    triangles, out = made["triangles"], {"fslr_triangles": target_sphere[1]}
    for name in ("white", "pial", "midthickness"):
        points, _, values = cat_surf.resample_to_sphere(
            made[name], triangles, made["registered"], triangles, *target_sphere, values=made["thickness"]
        )
        out[f"fslr_{name}"], out["fslr_thickness"] = np.asarray(points), np.asarray(values)
    clock.stop("resampling")
    return out


def intersections(vertices: np.ndarray, triangles: np.ndarray) -> int:
    """Number of pairs of triangles (F, 3), of vertices (V, 3), that cut each other."""
    import cat_surf

    return int(cat_surf.count_intersections(vertices, triangles))


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.start = seconds, time.monotonic()

    def stop(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self.start, 1)
        self.start = now


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the process that `bhx_prep.preproc.embedded.surfaces` starts."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.preproc.embedded.surfaces_cat", description=__doc__
    )
    parser.add_argument("--labels", type=Path, required=True, help="image of `HemisphereLabels`")
    parser.add_argument("--target", type=Path, required=True, help="midthickness on fsLR-32k, .surf.gii")
    parser.add_argument("--target-sphere", type=Path, required=True, help="its sphere, .surf.gii")
    parser.add_argument("--out", type=Path, required=True, help=".npz of what was made")
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    labels: Any = nib.load(args.labels)
    seconds: dict[str, float] = {}
    made = reconstruct(np.asarray(labels.dataobj, np.float32), labels.affine, seconds)
    target, sphere = (_read(path) for path in (args.target, args.target_sphere))
    made["registered"] = register_sphere(made, target, sphere, seconds)
    made |= resample(made, sphere, seconds)
    for name in ("white", "pial"):
        made[f"intersections_{name}"] = np.array(intersections(made[name], made["triangles"]))
    made["cpu_seconds"] = np.array(round(time.process_time(), 1))
    made["seconds"] = np.array(json.dumps(seconds))
    with atomic_write(args.out) as part, part.open("wb") as file:
        np.savez(file, **made)  # type: ignore[arg-type]


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image: Any = nib.load(path)
    vertices, triangles = image.agg_data(("pointset", "triangle"))
    return np.asarray(vertices, np.float64), np.asarray(triangles, np.int32)


if __name__ == "__main__":
    sys.exit(main())
