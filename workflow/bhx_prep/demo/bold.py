"""Synthetic 4D BOLD: T2*-weighted contrast made from a T1, parcel series, motion, drift and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bhx_prep.demo import head
from bhx_prep.demo.series import coloured
from bhx_prep.io.motion import framewise_displacement

#: Mean intensity of white matter in the synthetic EPI, arbitrary units.
WHITE_MATTER_LEVEL = 8000.0
#: T1 intensity of the template (0-100): below is CSF, above is white matter.
CSF_BELOW, WHITE_ABOVE = 45.0, 77.0


@dataclass(frozen=True)
class Anatomy:
    """EPI intensities and signal sources of one head, on one grid.

    Attributes
    ----------
    epi : numpy.ndarray of shape (X, Y, Z)
        float32 mean intensity.
    sources : numpy.ndarray of shape (X, Y, Z)
        int16: 0 air and skull, 1 CSF, 2 white matter, 3 grey matter outside the atlas, 4.. parcels 1..R.
    grid : Grid
        Grid of both.
    """

    epi: np.ndarray
    sources: np.ndarray
    grid: head.Grid


def from_t1(t1: np.ndarray, brain: np.ndarray, labels: np.ndarray, grid: head.Grid) -> Anatomy:
    """Turn a noise-free T1 (white matter near 87), brain mask and parcel labels, all (X, Y, Z), into EPI contrast.

    CSF is brightest, grey matter brighter than white, the scalp dim. Parcels have signal in grey matter only.
    """
    inside = brain.astype(bool)
    contrast = np.where(inside, 1.75 - 0.75 * t1 / 87, 0.12 * t1 / 87)
    blurred = ndimage.gaussian_filter(contrast.astype(np.float32), 1.2 / grid.step_mm)
    kind = np.full(t1.shape, 3, np.int16)
    kind[t1 > WHITE_ABOVE] = 2
    kind[t1 < CSF_BELOW] = 1
    in_parcel = (labels > 0) & (kind == 3)
    kind[in_parcel] = labels[in_parcel] + 3
    kind[~inside] = 0
    return Anatomy(np.float32(WHITE_MATTER_LEVEL) * blurred, kind, grid)


@dataclass(frozen=True)
class Physiology:
    """Sizes of what varies, in per cent of the mean intensity (standard deviations)."""

    parcels: float = 1.2
    whole_brain: float = 0.4
    csf: float = 1.5
    white_matter: float = 0.4
    drift: float = 1.0
    noise: float = 0.8


def percent_changes(
    rng: np.random.Generator,
    parcels: np.ndarray,
    tr_s: float,
    spectrum: tuple[np.ndarray, np.ndarray],
    sizes: Physiology,
) -> np.ndarray:
    """Relative change of every source in every frame, (R + 4, T) float32, in the numbering of `Anatomy.sources`.

    Parameters
    ----------
    rng : numpy.random.Generator
    parcels : numpy.ndarray of shape (R, T)
        Unit-variance parcel series.
    tr_s : float
        Repetition time, s.
    spectrum : tuple of two numpy.ndarray
        Of the series of the tissues, see `coloured`.
    sizes : Physiology
        Of the changes, percent.
    """
    n_frames = parcels.shape[1]
    whole, csf, white = coloured(rng, 3, n_frames, tr_s, spectrum)
    changes = np.zeros((len(parcels) + 4, n_frames))
    changes[1] = sizes.csf * csf
    changes[2] = sizes.white_matter * white
    changes[4:] = sizes.parcels * parcels
    changes[1:] += sizes.whole_brain * whole
    return (changes / 100).astype(np.float32)


def scan(
    rng: np.random.Generator,
    anatomy: Anatomy,
    changes: np.ndarray,
    grid: head.Grid,
    position: np.ndarray,
    sizes: Physiology,
    motion: np.ndarray | None = None,
) -> np.ndarray:
    """Simulate the frames of a scan.

    Parameters
    ----------
    rng : numpy.random.Generator
        Of drift and noise.
    anatomy : Anatomy
        The head, in its own coordinates.
    changes : numpy.ndarray of shape (R + 4, T)
        From `percent_changes`.
    grid : Grid
        Voxels of the scan, in the scanner's coordinates.
    position : numpy.ndarray of shape (4, 4)
        Position of the head in the first frame: head to scanner, mm.
    sizes : Physiology
        Drift and noise.
    motion : numpy.ndarray of shape (T, 6), optional
        Position of the head against the first frame: translations (mm) and rotations (rad) about the middle of
        the grid, in scanner coordinates. None: no motion.

    Returns
    -------
    numpy.ndarray of shape (X, Y, Z, T)
        int16.
    """
    n_frames = changes.shape[1]
    middle = (grid.affine @ [*(np.array(grid.shape) - 1) / 2, 1])[:3]
    to_voxel = np.linalg.inv(anatomy.grid.affine) @ np.linalg.inv(position)
    line = np.linspace(-1, 1, n_frames)
    slow = np.stack([line, 1.5 * line**2 - 0.5]) * rng.normal(0, sizes.drift / 100, (2, 1))
    patches = [1 + head.smooth_field(rng, grid.shape, (5, 5, 5), 0.5) for _ in slow]
    noise = WHITE_MATTER_LEVEL * sizes.noise / 100
    frames = np.empty((*grid.shape, n_frames), np.int16)
    mean = kind = None
    for t in range(n_frames):
        if mean is None or motion is not None:
            moved = np.eye(4) if motion is None else np.linalg.inv(head.rigid(motion[t], middle))
            matrix = to_voxel @ moved @ grid.affine
            mean = _resample(anatomy.epi, matrix, grid.shape, 1)
            kind = _resample(anatomy.sources, matrix, grid.shape, 0)
        assert kind is not None
        change = ndimage.gaussian_filter(changes[kind, t], 0.5)
        drift = np.float32(slow[0, t]) * patches[0] + np.float32(slow[1, t]) * patches[1]
        frames[..., t] = np.rint(head.rician(rng, mean * (1 + change + drift), noise))
    return frames


def on_grid(anatomy: Anatomy, grid: head.Grid) -> np.ndarray:
    """The sources of a head without motion, on another grid in the same coordinates."""
    return _resample(anatomy.sources, np.linalg.inv(anatomy.grid.affine) @ grid.affine, grid.shape, 0)


def _resample(volume: np.ndarray, matrix: np.ndarray, shape: tuple[int, int, int], order: int) -> np.ndarray:
    # a homogeneous matrix includes the offset
    return ndimage.affine_transform(volume, matrix, output_shape=shape, order=order, prefilter=False)


def take_motion(parameters: np.ndarray, start: int, n_frames: int, mean_fd_mm: float) -> np.ndarray:
    """A stretch of real motion (n_frames, 6), from zero, scaled to a mean framewise displacement (mm).

    Raises
    ------
    ValueError
        If the real motion ends before it.
    """
    part = parameters[start : start + n_frames]
    if len(part) < n_frames:
        raise ValueError(f"the real motion has {len(parameters)} frames: no {n_frames} from frame {start}")
    part = part - part[0]
    return part * (mean_fd_mm / np.nanmean(framewise_displacement(part)))
