r"""Geometric harmonics: Laplace-Beltrami modes of the cortical surface, averaged in every parcel.

The modes (`bhx_prep.brain_maps.eigenmodes`) are those of each hemisphere's midthickness, cut along the medial wall. A
left mode correlates positively with the posterior-to-anterior coordinate, and a right mode with the left mode of the
same number at corresponding vertices (meshes of fsLR and fsaverage number them alike). Beyond some sixty modes the two
hemispheres' modes are no longer counterparts; their correlation is written beside the result
(``hemisphere_correlation``).

A parcel's value is the mean over its area (vertices weighted by a third of the triangles around them).

Examples
--------
::

    python -m bhx_prep.brain_maps.harmonics --templates results/templates --modes 200 --out harmonics.parquet
    bhx harmonics --left L.surf.gii --right R.surf.gii --labels atlas.dlabel.nii --names names.txt --modes 200 \
        --align-to results/templates --out harmonics.parquet
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from bhx_model.command_line import run_command
from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import hemispheres
from bhx_prep.atlas.label_files import names_on_surfaces, read_names, read_surface_labels
from bhx_prep.brain_maps import eigenmodes, join
from bhx_prep.brain_maps.align_modes import align
from bhx_prep.brain_maps.surfaces import cut, read_surface
from bhx_prep.io import overwriting

logger = logging.getLogger(__name__)

SIDES = ("left", "right")


def parcel_means(modes: np.ndarray, labels: np.ndarray, areas: np.ndarray, n: int) -> np.ndarray:
    """Area-weighted mean of every mode in every parcel.

    Parameters
    ----------
    modes : ndarray, (V, k)
    labels : ndarray, (V,) int
        0 for no parcel, else 1 to `n`.
    areas : ndarray, (V,)
        Weight of each vertex, mm^2.
    n : int
        Number of parcels.

    Returns
    -------
    ndarray, (n, k)
        Row r is label r + 1; NaN where no vertex has it.

    Raises
    ------
    ValueError
        If the arrays are not of the same vertices.
    DataError
        If a label is outside 0 to `n`.
    """
    if labels.shape != areas.shape or len(labels) != len(modes):
        raise ValueError(
            f"{len(modes)} vertices with modes, {len(labels)} with labels, {len(areas)} with areas"
        )
    if labels.min() < 0 or labels.max() > n:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}, the atlas has {n}: use its own labels"
        )
    inside = np.flatnonzero(labels)
    weights = sparse.csr_array((areas[inside], (labels[inside] - 1, inside)), shape=(n, len(labels)))
    total = np.asarray(weights.sum(axis=1))
    return np.divide(
        weights @ modes, total[:, None], out=np.full((n, modes.shape[1]), np.nan), where=total[:, None] > 0
    )


def compute(templates: Path, k: int) -> tuple[str, dict, dict]:
    """Atlas label, columns and metadata of the harmonics' table, from a folder of templates.

    Modes of the cortex have no value in the subcortex: its ROIs, if the atlas has any, get zeros, and the metadata list
    them (``without_cortex``).

    Parameters
    ----------
    templates : Path
        With ``atlas.json``, ``atlas_fsLR.npz``, ``surface_{left,right}.surf.gii`` and ``cortex.npz``.
    k : int
        Modes per hemisphere.

    Raises
    ------
    DataError
        If a surface is faulty, files do not fit each other, or a parcel has no vertex.
    """
    atlas = json.loads((templates / "atlas.json").read_bytes())
    names, hemisphere = atlas["names"], np.array(atlas["hemisphere"], np.int8)
    if why := atlas["missing"].get("atlas_fsLR.npz"):
        msg = f"the atlas is not available on fsLR-32k, where the harmonics are computed: {why}"
        raise DataError(msg)
    on_cortex = np.ones(len(names), bool)
    on_cortex[np.array(atlas.get("subcortical", ()), np.int64) - 1] = False
    rows = np.flatnonzero(on_cortex)
    cortical = np.zeros(len(names) + 1, np.int16)  # label of each among those of the cortex
    cortical[rows + 1] = np.arange(1, rows.size + 1)
    labels = _arrays(templates / "atlas_fsLR.npz")
    columns, metadata = solve(
        _template_surfaces(templates),
        {side: cortical[labels[side]] for side in SIDES},
        _arrays(templates / "cortex.npz"),
        [names[row] for row in rows],
        hemisphere[rows],
        k,
    )
    if rows.size < len(names):
        modes = {name: np.zeros(len(names)) for name in columns if name.startswith("mode_")}
        for name, column in modes.items():
            column[rows] = columns[name]
        columns = {"name": names, "hemisphere": hemisphere} | modes
        metadata["without_cortex"] = [name for name, flag in zip(names, on_cortex, strict=True) if not flag]
    metadata["surfaces"] = {
        name: atlas["files"].get(name) for name in ("surface_left.surf.gii", "surface_right.surf.gii")
    }
    return atlas["label"], columns, metadata


def solve(
    surfaces: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: Mapping[str, np.ndarray],
    cortex: Mapping[str, np.ndarray],
    names: Sequence[str],
    hemisphere: np.ndarray,
    k: int,
    template: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> tuple[dict, dict]:
    """Columns and metadata of the table of harmonics.

    Parameters
    ----------
    surfaces : mapping of ``left`` and ``right``
        Vertices (V, 3; mm) and triangles (F, 3) of each hemisphere.
    labels, cortex : mappings of ``left`` and ``right``
        Label 0..R of every vertex, and whether it is cortex (V).
    names : sequence of str
        R ROI names.
    hemisphere : ndarray, (R,)
        0 left, 1 right.
    k : int
        Modes per hemisphere.
    template : mapping of ``left`` and ``right``, optional
        Surfaces with the same vertices, to whose modes those of `surfaces` are aligned (`bhx_prep.brain_maps.align_modes`).

    Raises
    ------
    DataError
        If a surface is faulty, a parcel has no vertex, or the template has other vertices.
    """
    table = np.full((len(names), k), np.nan)
    metadata: dict[str, Any] = {"eigenvalues": {}}
    if template is None:
        solved = _hemispheres(surfaces, labels, cortex, k)
    else:
        # some modes more, so that the last ones find the rest of their group
        more = k + max(2, k // 10)
        standard = _hemispheres(template, labels, cortex, more, "template's ")
        solved = _hemispheres(surfaces, labels, cortex, more)
    for number, side in enumerate(SIDES):
        found = solved[side]
        metadata[side] = found.metadata
        if template is not None:
            metadata[side] |= _align(found, standard[side], k)
        values, vectors = found.values[:k], found.vectors[:, :k]
        means = parcel_means(vectors, labels[side][found.kept].astype(np.int64), found.areas, len(names))
        table[hemisphere == number] = means[hemisphere == number]
        metadata["eigenvalues"][side] = values.tolist()
    metadata["hemisphere_correlation"] = (
        np.abs(_correspondence(solved["left"], solved["right"])[:k]).round(4).tolist()
    )
    empty = [name for name, row in zip(names, table, strict=True) if np.isnan(row).any()]
    if empty:
        msg = f"{len(empty)} parcels have no vertex on the cortex, e.g. {empty[0]}: take atlas and surface of one space"
        raise DataError(msg)
    metadata |= {
        "sign": "left: positive correlation with y; right: with the left mode at corresponding vertices",
        "parcel_mean": "weighted by vertex area",
    }
    columns = {"name": names, "hemisphere": hemisphere.astype(np.int8)}
    columns |= {f"mode_{m + 1:03d}": table[:, m] for m in range(k)}
    return columns, metadata


def _align(found: _Solved, standard: _Solved, k: int) -> dict[str, Any]:
    """Turn modes to those of the template, in place; what is written of it about the first `k`."""
    weights = np.sqrt(found.areas * standard.areas)
    found.values, found.vectors, alignment = align(
        found.values, found.vectors, standard.values, standard.vectors, weights
    )
    return {
        "template_correlation": alignment["template_correlation"][:k],
        "groups": alignment["groups"],
    }


@dataclass
class _Solved:
    """Modes of one hemisphere."""

    kept: np.ndarray  # (V',) vertex numbers of the whole surface
    values: np.ndarray  # (k,)
    vectors: np.ndarray  # (V', k)
    areas: np.ndarray  # (V',) mm^2
    metadata: dict[str, Any]


def _hemispheres(
    surfaces: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: Mapping[str, np.ndarray],
    cortex: Mapping[str, np.ndarray],
    k: int,
    surface: str = "",
) -> dict[str, _Solved]:
    """Modes of both hemispheres, right ones with the signs of the left ones; `surface` precedes the side in messages."""
    solved: dict[str, _Solved] = {}
    for side in SIDES:
        vertices, triangles = surfaces[side]
        if len(labels[side]) != len(vertices):
            msg = f"{side}: {len(labels[side])} labels for {len(vertices)} vertices: atlas and surface do not fit"
            raise DataError(msg)
        try:
            part, part_triangles, kept = cut(vertices, triangles, cortex[side])
            logger.info("%d modes of the %s%s hemisphere, %d vertices", k, surface, side, len(part))
            values, vectors, metadata = eigenmodes.modes(part, part_triangles, k)
        except DataError as error:
            raise DataError(f"{surface}{side}: {error}") from error
        solved[side] = _Solved(kept, values, vectors, metadata.pop("vertex_areas_mm2"), metadata)
    right = solved["right"]
    right.vectors *= np.where(_correspondence(solved["left"], right) < 0, -1.0, 1.0)
    return solved


def _correspondence(left: _Solved, right: _Solved) -> np.ndarray:
    """Correlation (k,) of left and right modes at vertices of the same number, weighted by area."""
    shared = np.intersect1d(left.kept, right.kept)
    rows = [np.searchsorted(side.kept, shared) for side in (left, right)]
    a, b = left.vectors[rows[0]], right.vectors[rows[1]]
    weight = np.sqrt(left.areas[rows[0]] * right.areas[rows[1]])[:, None]
    return (weight * a * b).sum(axis=0) / np.sqrt((weight * a**2).sum(axis=0) * (weight * b**2).sum(axis=0))


def _template_surfaces(templates: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {side: read_surface(templates / f"surface_{side}.surf.gii") for side in SIDES}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx harmonics``."""
    add = parser.add_argument
    add("--left", type=Path, required=True, help="midthickness of the left hemisphere, closed (.surf.gii)")
    add("--right", type=Path, required=True, help="midthickness of the right hemisphere")
    add(
        "--labels",
        type=Path,
        nargs="+",
        required=True,
        help="parcels of both: a .dlabel.nii, or two .label.gii or .annot files, left first; 0 is the medial wall",
    )
    add(
        "--names",
        type=Path,
        help="ROI names in the order of the rows, one per line, or CBIG's lookup table (default: those of the label files)",
    )
    add("--modes", type=int, default=200, help="modes per hemisphere (%(default)s)")
    add(
        "--align-to",
        type=Path,
        metavar="TEMPLATES",
        help="for a subject's own surfaces on fsLR-32k: align their modes to those of the surfaces in this folder, and"
        " cut the medial wall as there, e.g. results/templates",
    )
    add("--out", type=Path, required=True, help="Parquet table: a row per ROI, a column per mode")


def command(args: argparse.Namespace) -> int:
    """Run ``bhx harmonics``."""
    overwriting.check_table(args.out)
    names = read_names(args.names) if args.names else names_on_surfaces(args.labels)
    labels: dict[str, np.ndarray] = dict(zip(SIDES, read_surface_labels(args.labels, names), strict=True))
    cortex, template = {side: labels[side] > 0 for side in SIDES}, None
    if args.align_to:
        cortex, template = _arrays(args.align_to / "cortex.npz"), _template_surfaces(args.align_to)
    columns, metadata = solve(
        {"left": read_surface(args.left, "left"), "right": read_surface(args.right, "right")},
        labels,
        cortex,
        names,
        np.array(hemispheres(names)),
        args.modes,
        template,
    )
    join.write_table(args.out, args.labels[0].name.split(".")[0], columns, metadata)
    worst = max(metadata[side]["residual"] for side in SIDES)
    logger.info(
        "%s: %d modes per hemisphere, %d ROIs, largest residual %.1e", args.out, args.modes, len(names), worst
    )
    if template:
        alike = np.concatenate([metadata[side]["template_correlation"] for side in SIDES])
        logger.info(
            "correlation with the template's modes: median %.2f, lowest %.2f", np.median(alike), alike.min()
        )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Compute the harmonics of the templates named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.brain_maps.harmonics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--templates", required=True, type=Path, help="folder made by bhx_prep.atlas.fetch")
    parser.add_argument("--modes", type=int, default=200, help="modes per hemisphere (200)")
    parser.add_argument("--out", required=True, type=Path, help="Parquet table")
    args = parser.parse_args(argv)
    return run_command(lambda: join.write_table(args.out, *compute(args.templates, args.modes)))


if __name__ == "__main__":
    sys.exit(main())
