"""Small closed surfaces, and GIfTI files of them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np


def icosphere(levels: int, radius: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Sphere of 10 * 4^levels + 2 vertices."""
    t = (1 + 5**0.5) / 2
    v = [(-1, t, 0), (1, t, 0), (-1, -t, 0), (1, -t, 0), (0, -1, t), (0, 1, t), (0, -1, -t), (0, 1, -t)]
    v += [(t, 0, -1), (t, 0, 1), (-t, 0, -1), (-t, 0, 1)]
    f = [
        (0, 11, 5),
        (0, 5, 1),
        (0, 1, 7),
        (0, 7, 10),
        (0, 10, 11),
        (1, 5, 9),
        (5, 11, 4),
        (11, 10, 2),
        (10, 7, 6),
    ]
    f += [(7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10)]
    f += [(8, 6, 7), (9, 8, 1)]
    vertices, faces = np.array(v, float), np.array(f)
    for _ in range(levels):
        edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        unique, number = np.unique(edges, axis=0, return_inverse=True)
        middle = len(vertices) + number.reshape(-1, 3)
        vertices = np.concatenate([vertices, vertices[unique].mean(axis=1)])
        a, b, c = faces.T
        ab, bc, ca = middle.T
        faces = np.concatenate(
            [np.stack(x, 1) for x in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        )
        vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    return radius * vertices / np.linalg.norm(vertices, axis=1, keepdims=True), faces


def ellipsoid(levels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A closed surface without symmetry, some 40 mm across, with simple eigenvalues."""
    v, f = icosphere(levels, 20.0)
    v = v * [0.8, 1.4, 1.0]
    return v + np.stack(
        [0.02 * v[:, 1] ** 2, 0.01 * v[:, 0] * v[:, 2], 0.004 * v[:, 1] ** 2 + 0.1 * v[:, 0]], 1
    ), f


def sphere(radius: float = 50.0) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and faces (F, 3) of a sphere by latitude and longitude, V = 482."""
    theta = np.linspace(0, np.pi, 18)[1:-1]
    phi = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    ring = [(np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)) for t in theta for p in phi]
    vertices = radius * np.array([*ring, (0, 0, 1), (0, 0, -1)])
    faces = []
    for i in range(15):
        for j in range(30):
            a, b, c, d = i * 30 + j, i * 30 + (j + 1) % 30, (i + 1) * 30 + j, (i + 1) * 30 + (j + 1) % 30
            faces += [(a, c, b), (b, c, d)]
    faces += [(480, j, (j + 1) % 30) for j in range(30)]
    faces += [(481, 450 + (j + 1) % 30, 450 + j) for j in range(30)]
    return vertices, np.array(faces)


def write_surface(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write a GIfTI surface."""
    image = nib.gifti.GiftiImage(
        darrays=[
            nib.gifti.GiftiDataArray(vertices.astype("f4"), intent="NIFTI_INTENT_POINTSET"),
            nib.gifti.GiftiDataArray(faces.astype("i4"), intent="NIFTI_INTENT_TRIANGLE"),
        ]
    )
    nib.save(image, path)
