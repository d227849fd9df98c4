"""Small files of known data sets, laid out as those have them, on the small atlas."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from small_templates import N_ROIS, NAMES

from bhx_prep.io.meshes import FSLR_VERTICES

#: Frames of every series.
N_FRAMES = 40


def series(seed: int = 0, n_frames: int = N_FRAMES) -> np.ndarray:
    """Series (R, T) of the small atlas."""
    return (1000 + np.random.default_rng(seed).standard_normal((N_ROIS, n_frames))).astype(np.float32)


def published_table(values: np.ndarray, names: list[str] = NAMES) -> bytes:
    """A table as UK Biobank publishes them: names in the first column, frames counted from 0."""
    lines = [",".join(["label_name", *(f"timepoint_{t}" for t in range(values.shape[1]))])]
    lines += [",".join([name, *map(repr, map(float, row))]) for name, row in zip(names, values, strict=True)]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def nifti(data: np.ndarray, affine: np.ndarray, tr_s: float | None = None) -> bytes:
    """A gzipped NIfTI image."""
    image = nib.Nifti1Image(data, affine)
    if tr_s is not None:
        image.header.set_zooms((*nib.affines.voxel_sizes(affine), tr_s))
        image.header.set_xyzt_units("mm", "sec")
    return gzip.compress(image.to_bytes(), 1, mtime=0)


def brain(mm: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """A skull-stripped head of an ellipsoid in MNI space, and its affine."""
    n = int(220 / mm)
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:3, 3] = -110, -130, -98
    place = np.moveaxis(np.indices((n, n, n)), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    inside = (((place - (0, -20, 12)) / (66, 85, 68)) ** 2).sum(-1) <= 1
    return np.where(inside, 500 + place[..., 0], 0).astype(np.float32), affine


def t1w() -> bytes:
    """A T1 volume in MNI space."""
    return nifti(*brain())


def native_bold(n_frames: int = N_FRAMES) -> bytes:
    """Header and first voxels of a series in the space of the scan."""
    data = np.ones((16, 16, 10, n_frames), np.int16)
    return nifti(data, np.diag([14.0, 14, 14, 1]), 0.735)


def write(path: Path, content: bytes | str) -> Path:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def archive(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        for name, member in files.items():
            opened.writestr(name, member)
    return write(path, content.getvalue())


_MODEL = """<BrainModel IndexOffset="{offset}" IndexCount="{n}" ModelType="CIFTI_MODEL_TYPE_SURFACE"
 BrainStructure="CIFTI_STRUCTURE_CORTEX_{side}" SurfaceNumberOfVertices="{mesh}"><VertexIndices>{vertices}</VertexIndices>
</BrainModel>"""
_XML = """<?xml version="1.0" encoding="UTF-8"?><CIFTI Version="2"><Matrix>
<MatrixIndicesMap AppliesToMatrixDimension="0" IndicesMapToDataType="CIFTI_INDEX_TYPE_SERIES" NumberOfSeriesPoints="{frames}"
 SeriesExponent="0" SeriesStart="0" SeriesStep="{tr_s}" SeriesUnit="SECOND"/>
<MatrixIndicesMap AppliesToMatrixDimension="1" IndicesMapToDataType="CIFTI_INDEX_TYPE_BRAIN_MODELS">{models}
</MatrixIndicesMap></Matrix></CIFTI>"""


def dtseries(path: Path, values: np.ndarray, tr_s: float = 0.72) -> Path:
    """A dense series on fsLR-32k in which every vertex has the values of its parcel; nibabel takes seconds for it."""
    n = FSLR_VERTICES
    left = 1 + np.arange(n) * 4 // n
    left[n // 2 - 300 : n // 2 + 300] = 0
    cortex = np.flatnonzero(left)
    listed = {"n": cortex.size, "mesh": n, "vertices": " ".join(map(str, cortex))}
    models = [
        _MODEL.format(offset=i * cortex.size, side=side, **listed) for i, side in enumerate(("LEFT", "RIGHT"))
    ]
    xml = _XML.format(frames=values.shape[1], tr_s=tr_s, models="".join(models)).encode()
    xml += b"\0" * (-(len(xml) + 8) % 16)
    header = nib.Nifti2Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((1, 1, 1, 1, values.shape[1], 2 * cortex.size))
    header.set_intent(3002, allow_unknown=True)
    header["vox_offset"] = 544 + 8 + len(xml)
    extension = np.array([len(xml) + 8, 32], "<i4").tobytes() + xml
    labels = np.concatenate([left[cortex], left[cortex] + 4]) - 1
    data = values[labels].astype("<f4").tobytes()
    return write(path, header.binaryblock + b"\1\0\0\0" + extension + data)


def hcp_run(
    folder: Path, run: str, values: np.ndarray, *, cleaned: str = "hp2000_clean", tr_s: float = 0.72
) -> Path:
    """A run of the HCP pipelines below a subject's folder, with its motion; not cleaned if `cleaned` is empty."""
    results = folder / "MNINonLinear" / "Results" / run
    name = f"{run}_Atlas_MSMAll{f'_{cleaned}' if cleaned else ''}.dtseries.nii"
    write(
        results / "Movement_Regressors.txt",
        "\n".join(["  0.01 0.02 0.03  0.1 0.2 0.3 0 0 0 0 0 0"] * values.shape[1]),
    )
    return dtseries(results / name, values, tr_s)


def hcp_t1w(folder: Path) -> None:
    """The T1 volume of the HCP pipelines below a subject's folder."""
    write(folder / "MNINonLinear" / "T1w_restore_brain.nii.gz", t1w())
