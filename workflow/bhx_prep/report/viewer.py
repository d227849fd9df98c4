"""Data of the report's viewer, embedded in the page: NiiVue, surfaces with their maps, volumes of example scans.

NiiVue is a file of this package, packed; the page unpacks and runs it when a viewer comes into sight, and needs no network.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

import numpy as np

from bhx_prep.report.cortex import Cortex
from bhx_prep.report.pictures import Picture

#: Places of vertices are whole numbers of this length (mm).
STEP_MM: Final = 0.01


@dataclass(frozen=True)
class NiiVue:
    """The library that is shipped.

    Attributes
    ----------
    version, sha256 : str
        Of the release, and of its file.
    licence : str
        Its text, with those of what is inside.
    packed : bytes
        The file, packed with gzip.
    """

    version: str
    sha256: str
    licence: str
    packed: bytes

    @classmethod
    def load(cls) -> NiiVue:
        """Read it from this package."""
        folder = files("bhx_prep.report") / "niivue"
        about = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        return cls(
            about["version"],
            about["sha256"],
            (folder / "LICENSE").read_text(encoding="utf-8"),
            (folder / "niivue.umd.js.gz").read_bytes(),
        )

    @property
    def text(self) -> str:
        """The packed file as base64."""
        return base64.b64encode(self.packed).decode()


@dataclass
class Maps:
    """Maps of the cortex of a page, numbered on first use."""

    cortex: Cortex | None
    shown: list[Picture] = field(default_factory=list)

    def number(self, picture: Picture) -> int | None:
        """Number of a picture among the maps; None where it is none."""
        if not picture.palette or self.cortex is None:
            return None
        self.shown.append(picture)
        return len(self.shown) - 1

    def data(self) -> dict[str, Any]:
        """Surfaces and maps for the viewer."""
        if self.cortex is None or not self.shown:
            return {"surfaces": [], "maps": []}
        maps = [
            {
                "name": picture.caption,
                "palette": base64.b64encode(picture.palette).decode(),
                "low": picture.low,
                "high": picture.high,
                "gradient": picture.gradient,
            }
            for picture in self.shown
        ]
        return {"surfaces": _surfaces(self.cortex), "stepMm": STEP_MM, "maps": maps}


def _surfaces(cortex: Cortex) -> list[dict[str, str]]:
    """Both hemispheres side by side."""
    found = []
    for side, ((vertices, triangles), labels) in enumerate(zip(cortex.surfaces, cortex.labels, strict=True)):
        inner = vertices[:, 0].max() + 5 if side == 0 else vertices[:, 0].min() - 5
        place = vertices - np.array([inner, *(vertices[:, 1:].max(0) + vertices[:, 1:].min(0)) / 2])
        found.append(
            {
                "points": packed(np.round(place / STEP_MM).astype("<i4")),
                "triangles": packed(triangles.astype("<u4")),
                "labels": packed(labels.astype("<u2")),
            }
        )
    return found


def packed(values: np.ndarray | bytes) -> str:
    """Bytes, packed with gzip, as base64; equal bytes give equal text."""
    content = values if isinstance(values, bytes) else np.ascontiguousarray(values).tobytes()
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
