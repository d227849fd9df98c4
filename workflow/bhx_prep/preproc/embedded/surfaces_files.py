"""Surfaces and maps on them as GIfTI under fMRIPrep's names; the hemisphere is in name and metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from nibabel import gifti

from bhx_model.atomic_write import atomic_write, write_json

#: Letter of a side in names, and its structure in metadata.
HEMISPHERES: Final = {"left": ("L", "CortexLeft"), "right": ("R", "CortexRight")}

#: What `AnatomicalStructureSecondary` and `GeometricType` say of a surface.
_KINDS: Final = {
    "white": ("GrayWhite", "Anatomical"),
    "pial": ("Pial", "Anatomical"),
    "midthickness": ("MidThickness", "Anatomical"),
    "sphere": ("", "Spherical"),
}
_SCANNER: Final = 1
_INTENTS: Final = {"thickness": "NIFTI_INTENT_SHAPE", "series": "NIFTI_INTENT_TIME_SERIES"}


def save_surface(path: Path, vertices: np.ndarray, triangles: np.ndarray, side: str, kind: str) -> None:
    """Write a surface.

    Parameters
    ----------
    path : Path
        ``.surf.gii``.
    vertices : array, (V, 3)
        RAS mm.
    triangles : array, (F, 3)
        Counterclockwise from outside.
    side : str
        ``left`` or ``right``.
    kind : str
        ``white``, ``pial``, ``midthickness`` or ``sphere``.
    """
    secondary, geometric = _KINDS[kind]
    meta = {"AnatomicalStructurePrimary": HEMISPHERES[side][1], "GeometricType": geometric}
    if secondary:
        meta["AnatomicalStructureSecondary"] = secondary
    points = gifti.GiftiDataArray(
        np.asarray(vertices, np.float32),
        intent="NIFTI_INTENT_POINTSET",
        coordsys=gifti.GiftiCoordSystem(_SCANNER, _SCANNER, np.eye(4)),
        meta=gifti.GiftiMetaData(meta),
    )
    faces = gifti.GiftiDataArray(
        np.asarray(triangles, np.int32),
        intent="NIFTI_INTENT_TRIANGLE",
        meta=gifti.GiftiMetaData({"TopologicalType": "Closed"}),
    )
    _write(path, [points, faces], side)


def save_map(path: Path, values: np.ndarray, side: str, name: str) -> None:
    """Write one value per vertex, (V,): ``.shape.gii``."""
    array = gifti.GiftiDataArray(
        np.asarray(values, np.float32),
        intent=_INTENTS["thickness"],
        meta=gifti.GiftiMetaData({"Name": name}),
    )
    _write(path, [array], side)


def save_series(path: Path, series: np.ndarray, side: str, tr_s: float) -> None:
    """Write a series, (V, T) with `tr_s` between the frames: ``.func.gii``, an array per frame."""
    step = gifti.GiftiMetaData({"TimeStep": f"{1000 * tr_s:.6f}"})  # ms, as FreeSurfer and fMRIPrep write it
    arrays = [
        gifti.GiftiDataArray(np.asarray(frame, np.float32), intent=_INTENTS["series"], meta=step)
        for frame in series.T
    ]
    _write(path, arrays, side)


def save_sidecar(path: Path, metadata: dict[str, Any]) -> None:
    """Write the JSON sidecar of a GIfTI: its name without the two endings."""
    write_json(path.with_name(f"{path.name.split('.')[0]}.json"), metadata)


def _write(path: Path, arrays: list[gifti.GiftiDataArray], side: str) -> None:
    meta = gifti.GiftiMetaData({"AnatomicalStructurePrimary": HEMISPHERES[side][1]})
    with atomic_write(path) as part:
        gifti.GiftiImage(darrays=arrays, meta=meta).to_filename(part)
