"""Write SVG: grey images as embedded JPEG, contours and traces as paths, text escaped. Deterministic."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Final

import contourpy
import numpy as np
from PIL import Image

#: Quality of JPEG images.
_QUALITY: Final = 72


def document(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """A drawing of some parts on black, which programs for the blind read by its title."""
    shown = escape(title)
    style = (
        "text{font:11px sans-serif;fill:#ddd}.r{fill:none;stroke-width:1.1}.t{fill:none;stroke-width:.7;stroke-opacity:.8}"
        ".m{stroke:#ff5a36}.w{stroke:#ffd23f}.s{stroke:#35c2ff}.a{stroke:#555}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' height="{height:g}" role="img" aria-label="{shown}"><title>{shown}</title><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#000"/>{"".join(parts)}</svg>'
    )


def escape(text: object) -> str:
    """Text that cannot end an element or an attribute; control characters, which XML refuses, are dropped."""
    return html.escape("".join(c for c in str(text) if c.isprintable()), quote=True)


def text(x: float, y: float, content: object, anchor: str = "start") -> str:
    """A line of text whose baseline begins at (x, y)."""
    place = f'x="{x:g}" y="{y:g}"' + (f' text-anchor="{anchor}"' if anchor != "start" else "")
    return f"<text {place}>{escape(content)}</text>"


def image(values: np.ndarray, x: float, y: float, width: float, height: float) -> str:
    """A grey image; nothing where it has no pixels.

    Parameters
    ----------
    values : (H, W) uint8
    x, y, width, height : float
        Its place in the drawing.
    """
    if not values.size:
        return ""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values, np.uint8)).save(out, "JPEG", quality=_QUALITY, optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    return (
        f'<image x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" preserveAspectRatio="none"'
        f' href="data:image/jpeg;base64,{data}"/>'
    )


def contour(values: np.ndarray, level: float, x: float, y: float, names: str, shortest: float = 8.0) -> str:
    """Where values (H, W) cross a level, one unit a pixel, as a path with the classes `names`.

    Contours that are shorter than `shortest` (pixels) are left out: single voxels.
    """
    lines = contourpy.contour_generator(z=values, line_type=contourpy.LineType.Separate).lines(level)
    long = [line for line in lines if np.abs(np.diff(line, axis=0)).sum() >= shortest]  # pyright: ignore
    place = np.array([x + 0.5, y + 0.5])
    return path([np.asarray(line) + place for line in long], names)


def path(lines: Sequence[np.ndarray], names: str) -> str:
    """Lines, each (N, 2), as one path; none where there are no lines."""
    if not lines:
        return ""
    return f'<path class="{names}" d="{"".join(_steps(line) for line in lines)}"/>'


def _steps(line: np.ndarray) -> str:
    """Relative steps in tenths: half as long as absolute places."""
    tenths = np.round(line * 10).astype(int)
    steps = np.diff(tenths, axis=0)
    steps = steps[np.any(steps != 0, axis=1)]
    start = f"M{tenths[0, 0] / 10:g} {tenths[0, 1] / 10:g}"
    return start + "l" + " ".join(f"{dx / 10:g} {dy / 10:g}" for dx, dy in steps) if len(steps) else ""
