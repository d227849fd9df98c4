"""Slices for pictures: the same planes of standard space for every scan, and an image's values in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.floating]

#: Size of a pixel, mm.
PIXEL_MM: Final = 1.25
#: Planes lie this deep (mm) below the brain's surface where they pass through one of its ends.
DEPTH_MM: Final = 8.0
#: Room around the template's brain, mm.
ROOM_MM: Final = 8.0
#: Grids are thinned to about this spacing (mm) where distances are measured.
COARSE_MM: Final = 2.0

#: Axes of a picture's plane: across and up, in RAS, and which one it cuts.
_AXES: Final = {"sagittal": (1, 2, 0), "coronal": (0, 2, 1), "axial": (0, 1, 2)}


@dataclass(frozen=True)
class Volume:
    """An image with its place.

    Attributes
    ----------
    values : (X, Y, Z)
    affine : (4, 4)
        Voxel to mm, RAS+.
    """

    values: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Panel:
    """A plane of standard space as a grid of pixels.

    Attributes
    ----------
    plane : str
        ``sagittal``, ``coronal`` or ``axial``.
    at_mm : float
        Where it cuts its axis.
    world : (3, H, W)
        Place (mm) of every pixel; the first row is the topmost, left of the picture is the subject's left.
    """

    plane: str
    at_mm: float
    world: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width (pixels)."""
        return self.world.shape[1], self.world.shape[2]


@dataclass(frozen=True)
class Row:
    """Panels side by side, with a name."""

    name: str
    panels: tuple[Panel, ...]


def landmarks(mask: Volume) -> dict[str, Floats]:
    """Points (3,) just inside of the ends of a brain, mm: its top, its hindmost part, and the tip of the left temporal lobe.

    Parameters
    ----------
    mask : Volume
        Of the template's brain.
    """
    places = _inside(mask)
    top = places[places[:, 2] >= places[:, 2].max() - 3].mean(axis=0)
    back = places[places[:, 1] <= places[:, 1].min() + 3].mean(axis=0)
    # the temporal lobes reach forward below the frontal ones, far from the midline
    centre = (places.max(axis=0) + places.min(axis=0)) / 2
    low = places[(places[:, 2] < centre[2] - 35) & (places[:, 0] < centre[0] - 22)]
    low = low if low.size else places
    tip = low[low[:, 1] >= low[:, 1].max() - 3].mean(axis=0)
    return {
        "vertex": top - np.array([0, 0, DEPTH_MM]),
        "temporal pole": tip - np.array([0, DEPTH_MM, 0]),
        "occiput": back - np.array([0, -DEPTH_MM, 0]),
    }


def through_landmarks(mask: Volume) -> tuple[Row, ...]:
    """Three planes through each of the `landmarks` of the template's brain."""
    low, high = _box(mask)
    rows = []
    for name, point in landmarks(mask).items():
        panels = [_panel(plane, float(point[_AXES[plane][2]]), low, high) for plane in _AXES]
        rows.append(Row(name, tuple(panels)))
    return tuple(rows)


def through_brain(mask: Volume) -> tuple[Row, ...]:
    """Three planes of each orientation, at a quarter, half and three quarters of the template's brain."""
    low, high = _box(mask)
    rows = []
    for plane, (_, _, cut) in _AXES.items():
        at = [low[cut] + share * (high[cut] - low[cut]) for share in (0.28, 0.5, 0.72)]
        rows.append(Row(plane, tuple(_panel(plane, float(mm), low, high) for mm in at)))
    return tuple(rows)


def sample(volume: Volume, panel: Panel, order: int = 1) -> Floats:
    """Values of an image in a plane, (H, W); 0 outside of the image."""
    inverse = np.linalg.inv(volume.affine)
    where = np.tensordot(inverse[:3, :3], panel.world, axes=1) + inverse[:3, 3, None, None]
    return ndimage.map_coordinates(
        np.asarray(volume.values, np.float32), where, order=order, mode="constant", cval=0.0, prefilter=False
    )


def distance(mask: Volume) -> Volume:
    """Distance (mm) to a mask, on a grid that is thinned to about `COARSE_MM`; far from everything where it is empty."""
    spacing = np.linalg.norm(mask.affine[:3, :3], axis=0)
    step = np.maximum(1, np.round(COARSE_MM / spacing)).astype(int)
    values = mask.values[tuple(slice(None, None, s) for s in step)] > 0
    affine = mask.affine @ np.diag([*step, 1])
    if not values.any():
        return Volume(np.full(values.shape, 1e3, np.float32), affine)
    away = ndimage.distance_transform_edt(~values, sampling=spacing * step)
    return Volume(np.asarray(away, np.float32), affine)


def within(away: Volume, panel: Panel, limit_mm: float) -> NDArray[np.bool_]:
    """Pixels (H, W) of a plane within a given distance of a mask, by its `distance`."""
    # outside of the grid nothing is known: far away
    shifted = Volume(away.values - 1e3, away.affine)
    return sample(shifted, panel) + 1e3 <= limit_mm


def _panel(plane: str, at_mm: float, low: Floats, high: Floats) -> Panel:
    across, up, cut = _AXES[plane]
    columns = np.arange(low[across], high[across], PIXEL_MM)
    rows = np.arange(high[up], low[up], -PIXEL_MM)
    world = np.empty((3, len(rows), len(columns)))
    world[across] = columns[None, :]
    world[up] = rows[:, None]
    world[cut] = at_mm
    return Panel(plane, at_mm, world)


def _inside(mask: Volume) -> Floats:
    """Places (N, 3; mm) of a mask's voxels."""
    voxels = np.argwhere(mask.values > 0)
    return np.asarray(voxels @ mask.affine[:3, :3].T + mask.affine[:3, 3], np.float64)


def _box(mask: Volume) -> tuple[Floats, Floats]:
    places = _inside(mask)
    return places.min(axis=0) - ROOM_MM, places.max(axis=0) + ROOM_MM
