"""Render maps of the cortex: surfaces in, pixels out.

Which vertex every pixel shows is looked up once per hemisphere and side; painting a map is then an indexing
operation. A general plotting library needs seconds for each of the dozens of maps a report shows.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.colors
import numpy as np
from PIL import Image

from bhx_model.atomic_write import read_json
from bhx_prep.brain_maps.surfaces import read_surface

#: Pixels of one view, and how many samples each has a side: their mean makes edges smooth.
HEIGHT, WIDTH, SAMPLES = 220, 300, 2

#: Colour of cortex without a value (medial wall, no coverage).
_NO_VALUE = (0.70, 0.70, 0.72)


@dataclass(frozen=True)
class View:
    """One side of one hemisphere on a grid of samples.

    Attributes
    ----------
    vertex : ndarray of int, shape (H, W)
        Vertex that is seen, -1 beside the cortex.
    light : ndarray of float, shape (H, W)
        Brightness, 0..1.
    """

    vertex: np.ndarray
    light: np.ndarray


def view(vertices: np.ndarray, faces: np.ndarray, side: int, extent: float) -> View:
    """Find which vertices are seen from the left (`side` -1) or from the right (+1).

    Parameters
    ----------
    vertices : ndarray of float, shape (V, 3)
        Coordinates (mm, RAS), centred.
    faces : ndarray of int, shape (F, 3)
    side : int
    extent : float
        Half the width of the picture (mm).
    """
    height, width = HEIGHT * SAMPLES, WIDTH * SAMPLES
    scale = width / (2 * extent)
    x = width / 2 + side * vertices[:, 1] * scale
    y = height / 2 - vertices[:, 2] * scale
    depth = side * vertices[:, 0]

    x_of, y_of = x[faces], y[faces]
    first_x, first_y = np.floor(x_of.min(1)).astype(int), np.floor(y_of.min(1)).astype(int)
    n_x = np.ceil(x_of.max(1)).astype(int) - first_x + 1
    n_y = np.ceil(y_of.max(1)).astype(int) - first_y + 1
    n = n_x * n_y
    face = np.repeat(np.arange(len(faces)), n)
    nth = np.arange(len(face)) - np.repeat(np.cumsum(n) - n, n)
    column = first_x[face] + nth % n_x[face]
    row = first_y[face] + nth // n_x[face]

    # barycentric coordinates of the sample in its triangle
    (ax, bx, cx), (ay, by, cy) = x_of[face].T, y_of[face].T
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    area[area == 0] = np.nan  # seen edge on: covers no sample
    b = ((column - ax) * (cy - ay) - (cx - ax) * (row - ay)) / area
    c = ((bx - ax) * (row - ay) - (column - ax) * (by - ay)) / area
    weight = np.stack([1 - b - c, b, c], axis=1)
    inside = (weight >= -1e-6).all(1) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    face, column, row, weight = face[inside], column[inside], row[inside], weight[inside]

    near = np.einsum("pk,pk->p", weight, depth[faces[face]])
    far_to_near = np.argsort(near, kind="stable")
    face, column, row, weight = face[far_to_near], column[far_to_near], row[far_to_near], weight[far_to_near]
    vertex = np.full((height, width), -1)
    vertex[row, column] = faces[face, weight.argmax(1)]  # the nearest is written last

    normals = _normals(vertices, faces)
    toward = normals @ np.array([side * 0.85, 0.15, 0.5])
    light = np.clip(0.45 + 0.6 * np.clip(toward, 0, None), 0, 1.0)
    return View(vertex, np.where(vertex >= 0, light[vertex], 0.0))


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3), pointing away from the middle."""
    corner = vertices[faces]
    of_face = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], of_face)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    outward = np.einsum("vk,vk->", normals, vertices - vertices.mean(0))
    return normals if outward >= 0 else -normals


def legend(colours: str, stops: int = 9) -> str:
    """Return a colour map as the stops of a CSS gradient."""
    return ", ".join(matplotlib.colors.to_hex(mpl.colormaps[colours](i / (stops - 1))) for i in range(stops))


def palette(values: np.ndarray, colours: str, low: float, high: float) -> np.ndarray:
    """Colours of parcels, after that of cortex without one: (R + 1, 3), 0..1.

    Parameters
    ----------
    values : ndarray of float, shape (R,)
        NaN is grey.
    colours : str
        Name of a colour map.
    low, high : float
        Values at its ends.
    """
    with np.errstate(invalid="ignore"):
        part = np.clip((values - low) / (high - low), 0, 1)
    paint = np.vstack([_NO_VALUE, mpl.colormaps[colours](np.nan_to_num(part))[:, :3]])
    paint[1:][~np.isfinite(values)] = _NO_VALUE
    return paint


class Cortex:
    """Both hemispheres, inflated, seen from outside and from inside.

    Parameters
    ----------
    surfaces : sequence of (vertices, faces)
        Left and right.
    labels : sequence of ndarray of int, shape (V,)
        Left and right: parcel 1..R of each vertex, 0 for none.
    n_parcels : int, optional
        R, where the last parcels have no vertex.
    """

    def __init__(
        self,
        surfaces: Sequence[tuple[np.ndarray, np.ndarray]],
        labels: Sequence[np.ndarray],
        n_parcels: int | None = None,
    ):
        #: Vertices and faces of each side, as they were given, and the parcel of each vertex.
        self.surfaces, self.labels = surfaces, labels
        #: Number of parcels, R.
        self.n_parcels = n_parcels or int(max(label.max() for label in labels))
        centred = [(v - (v.max(0) + v.min(0)) / 2, f) for v, f in surfaces]
        tallest = max(np.abs(v[:, 2]).max() * WIDTH / HEIGHT for v, _ in centred)
        extent = 1.03 * max(tallest, *(np.abs(v[:, 1]).max() for v, _ in centred))
        # rows: outside, inside; columns: left, right
        self._views = [
            [view(v, f, side * s, extent) for (v, f), s in zip(centred, (-1, 1), strict=True)]
            for side in (1, -1)
        ]

    @classmethod
    def load(cls, templates: Path) -> Cortex:
        """Read the inflated surfaces and the atlas from the templates' folder.

        Raises
        ------
        OSError
            If a file is missing.
        DataError
            If a file is no surface.
        """
        surfaces, labels = [], []
        with np.load(templates / "atlas_fsLR.npz", allow_pickle=False) as atlas:
            for side in ("left", "right"):
                surfaces.append(read_surface(templates / f"inflated_{side}.surf.gii"))
                labels.append(atlas[side].astype(int))
        atlas = read_json(templates / "atlas.json", "make the templates again")
        return cls(surfaces, labels, len(atlas["names"]))

    def paint(self, values: np.ndarray, colours: str, low: float, high: float) -> str:
        """Paint one value per parcel: a PNG with a clear background, as a ``data:`` address.

        Parameters
        ----------
        values : ndarray of float, shape (R,)
            NaN is drawn grey.
        colours : str
            Name of a colour map.
        low, high : float
            Values at its ends.
        """
        paint = palette(values, colours, low, high)
        rows = []
        for views in self._views:
            rows.append(
                np.hstack([self._pixels(v, k, paint) for v, k in zip(views, self.labels, strict=True)])
            )
        image = Image.fromarray(np.round(np.vstack(rows) * 255).astype(np.uint8))
        buffer = io.BytesIO()
        # 256 colours are plenty for one map, and a third of the bytes
        image.quantize(256, method=Image.Quantize.FASTOCTREE).save(buffer, format="png", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

    @staticmethod
    def _pixels(view: View, labels: np.ndarray, paint: np.ndarray) -> np.ndarray:
        seen = view.vertex >= 0
        colour = np.where(seen[..., None], paint[labels[view.vertex]] * view.light[..., None], 0.0)
        samples = np.concatenate([colour, seen[..., None].astype(float)], axis=2)
        mean = samples.reshape(HEIGHT, SAMPLES, WIDTH, SAMPLES, 4).mean((1, 3))
        mean[..., :3] /= np.maximum(mean[..., 3:], 1e-6)  # colour of the covered part alone
        return mean
