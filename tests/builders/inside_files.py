"""Files of what is inside a model, as `bhx_model.inspection` and `bhx_prep.evaluation.connectivity_pattern` write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def _write(path: Path, about: dict, arrays: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, about=np.array(json.dumps(about)), **arrays)
    return path


def attention(shares: Sequence[float], hub: float = 0.2) -> np.ndarray:
    """Two equal layers whose hub tokens give these shares of the rest to function: (2, H, 3)."""
    function = (1 - hub) * np.array(shares)
    layer = np.stack([np.full(len(function), hub), function, 1 - hub - function], axis=1)
    return np.stack([layer, layer])


def write_endpoint(
    path: Path,
    names: Sequence[str],
    shares: Sequence[float] | None,
    *,
    classes=("control", "patient"),
    n: int = 20,
    cohort: str = "patients",
    first: str = "secret0",
) -> Path:
    """A model whose hub tokens have these shares, or which has none; saliency grows with the ROI."""
    random = np.random.default_rng(0)
    target = np.arange(n) % 2 if classes else random.normal(size=n)
    points = random.normal(size=(n, 2)).astype(np.float32)
    points[:, 0] += 4 * target
    saliency = np.arange(1, len(names) + 1, dtype=np.float32)
    arrays = {
        "subjects": np.array([first, *(f"secret{i}" for i in range(1, n))]), "target": target, "plane": points,
        "explained": np.array([0.5, 0.25]), "saliency": saliency / saliency.sum(), "signed": saliency,
        "roi_names": np.array(names),
    }  # fmt: skip
    if shares is not None:
        arrays |= {
            "attention": attention(shares),
            "untrained": attention([0.5] * len(shares)),
            "even": np.array(0.5),
        }
    about = {
        "endpoint": "diagnosis", "cohort": cohort, "classes": list(classes), "n": 8, "synthetic": True,
        "readout": "mean hub token" if shares is not None else "regions of function tokens", "hub_start": True,
    }  # fmt: skip
    return _write(path, about, arrays)


def write_reconstructions(path: Path, n: int = 12, fewest: int = 10) -> Path:
    """Slices of noise; none where there are too few subjects."""
    random = np.random.default_rng(1)
    arrays = {}
    if n >= fewest:
        for name in ("original", "masked", "filled"):
            for axis, shape in enumerate(((12, 10), (8, 10), (8, 12))):
                arrays[f"{name}_{axis}"] = random.normal(size=shape).astype(np.float16)
        arrays["masked_0"][:4] = np.nan
    about = {
        "n": n,
        "synthetic": False,
        "fewest": fewest,
        "correlation": 0.25 if arrays else None,
        "own_scale": True,
    }
    return _write(path, about, arrays)


def write_pattern(path: Path, matrix: np.ndarray, names: Sequence[str], splits: int = 3) -> Path:
    """Upper triangle of a symmetric matrix."""
    about = {
        "cohort": "patients",
        "splits": splits,
        "synthetic": True,
        "agreement": 0.75 if splits > 1 else None,
    }
    pairs = matrix[np.triu_indices(len(names), k=1)].astype(np.float16)
    return _write(path, about, {"pattern": pairs, "roi_names": np.array(names)})
