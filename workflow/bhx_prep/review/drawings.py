"""Pictures of a scan: its brain mask, its registration to the template and to the T1, and its carpet plot.

No picture shows a face: what lies further than a few mm from the brain, by the scan's own mask and by the template's, is
black. Of a subject a picture holds the sample key, and nothing else that names them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from scipy import ndimage

from bhx_prep.review import panels, svg
from bhx_prep.review.panels import Panel, Row, Volume

#: Pictures, in the order of the page.
KINDS: Final = ("mask", "normalisation", "coregistration", "carpet")
#: What is shown lies at most so far (mm) from the scan's own brain mask, and from the template's.
NEAR_MM: Final = 5.0
NEAR_TEMPLATE_MM: Final = 12.0
#: Share of the template's brain that is darker than white matter.
WHITE_PERCENTILE: Final = 62.0
#: Width of a carpet, pixels.
_WIDTH: Final = 640
_HEADER: Final = 18
_SIDE: Final = 84
#: Of the pixels of a plane a thumbnail has every so many.
_THINNED: Final = 2


@dataclass(frozen=True)
class Template:
    """Head and brain mask that everything is compared with, and the planes that they decide."""

    head: Volume
    mask: Volume

    @cached_property
    def away(self) -> Volume:
        """Distance (mm) to its brain."""
        return panels.distance(self.mask)

    @cached_property
    def white(self) -> float:
        """Intensity at which its white matter begins."""
        return _white(self.head, self.mask)

    @cached_property
    def ends(self) -> tuple[Row, ...]:
        """Planes through the ends of its brain."""
        return panels.through_landmarks(self.mask)

    @cached_property
    def middle(self) -> tuple[Row, ...]:
        """Planes through its brain."""
        return panels.through_brain(self.mask)


@dataclass(frozen=True)
class Brain:
    """An image of a scan in standard space, with its brain mask where it has one."""

    image: Volume
    mask: Volume | None

    @cached_property
    def away(self) -> Volume | None:
        """Distance (mm) to its brain."""
        return None if self.mask is None else panels.distance(self.mask)

    @cached_property
    def window(self) -> tuple[float, float]:
        """Intensities that are black and white."""
        values = np.asarray(self.image.values)
        inside = values[values > 0]
        if self.mask is not None and self.mask.values.shape == values.shape and (self.mask.values > 0).any():
            inside = values[self.mask.values > 0]
        inside = inside[np.isfinite(inside)]
        if not inside.size:
            return 0.0, 1.0
        low, high = np.percentile(inside, [0.5, 99.5])
        return float(min(low, 0.0)), float(high if high > low else low + 1.0)


def mask(brain: Brain, template: Template, title: str) -> str:
    """The brain mask of a scan on its image."""

    def lines(panel: Panel, x: float, y: float) -> str:
        return "" if brain.mask is None else _outline(brain.mask, panel, x, y, "r m")

    return _mosaic(brain, template, template.middle, f"{title}: brain mask (red)", lines)


def normalisation(brain: Brain, template: Template, title: str) -> str:
    """The template's outline and white matter on a scan's image, in planes through the brain's ends."""
    white = _white_of(template.head, template.mask, template.white)

    def lines(panel: Panel, x: float, y: float) -> str:
        return _outline(template.mask, panel, x, y, "r s") + _tissue(white, panel, x, y)

    shown = f"{title}: brain (blue) and white matter (yellow) of the template"
    return _mosaic(brain, template, template.ends, shown, lines)


def coregistration(brain: Brain, anat: Brain, white: Volume | None, template: Template, title: str) -> str:
    """Brain and white matter of a subject's T1 on their BOLD reference.

    Parameters
    ----------
    brain, anat : Brain
        BOLD reference, and T1 with its mask.
    white : Volume, optional
        Mask of the T1's white matter; by its intensities where there is none.
    template : Template
    title : str
    """
    if white is None and anat.mask is not None:
        white = _white_of(anat.image, anat.mask, _white(anat.image, anat.mask))

    def lines(panel: Panel, x: float, y: float) -> str:
        outline = "" if anat.mask is None else _outline(anat.mask, panel, x, y, "r s")
        return outline + ("" if white is None else _tissue(white, panel, x, y))

    shown = f"{title}: brain (blue) and white matter (yellow) of the T1w"
    return _mosaic(brain, template, template.middle, shown, lines)


def thumbnail(brain: Brain, template: Template, title: str) -> str:
    """A scan at a glance: its brain mask (red) and the template's brain (blue) in a sagittal and an axial plane."""
    parts, x, height = [], 0, 0
    for row in (template.middle[0], template.middle[2]):
        middle = row.panels[1]
        panel = replace(middle, world=middle.world[:, ::_THINNED, ::_THINNED])
        h, w = panel.shape
        parts.append(svg.image(_grey(brain, template, panel), x, 0, w, h))
        parts.append(_outline(template.mask, panel, x, 0, "r s"))
        if brain.mask is not None:
            parts.append(_outline(brain.mask, panel, x, 0, "r m"))
        x, height = x + w, max(height, h)
    return svg.document(x, height, f"{title}: brain mask (red), brain of the template (blue)", parts)


def _mosaic(
    brain: Brain,
    template: Template,
    rows: Sequence[Row],
    title: str,
    lines: Callable[[Panel, float, float], str],
) -> str:
    """Panels in rows, grey, with lines above."""
    width = _SIDE + max(sum(panel.shape[1] for panel in row.panels) for row in rows)
    height = _HEADER + sum(max(panel.shape[0] for panel in row.panels) for row in rows)
    canvas = np.zeros((height - _HEADER, width - _SIDE), np.uint8)
    drawn, labels, y = [], [svg.text(4, 13, title)], 0
    for row in rows:
        x = 0
        labels.append(svg.text(4, y + _HEADER + 14, row.name))
        for panel in row.panels:
            h, w = panel.shape
            canvas[y : y + h, x : x + w] = _grey(brain, template, panel)
            drawn.append(lines(panel, x + _SIDE, y + _HEADER))
            axis = {"sagittal": "x", "coronal": "y", "axial": "z"}[panel.plane]
            labels.append(svg.text(x + _SIDE + 3, y + _HEADER + h - 4, f"{axis} = {panel.at_mm:.0f} mm"))
            if panel.plane != "sagittal":
                labels.append(svg.text(x + _SIDE + 3, y + _HEADER + 12, "L"))
            x += w
        y += max(panel.shape[0] for panel in row.panels)
    picture = svg.image(canvas, _SIDE, _HEADER, canvas.shape[1], canvas.shape[0])
    return svg.document(width, height, title, [picture, *drawn, *labels])


def _grey(brain: Brain, template: Template, panel: Panel) -> np.ndarray:
    """Values of a scan in a plane, (H, W) uint8, black away from the brain."""
    low, high = brain.window
    values = np.nan_to_num(panels.sample(brain.image, panel), nan=0.0, posinf=0.0, neginf=0.0)
    grey = np.clip((values - low) / (high - low) * 255, 0, 255)
    near = panels.within(template.away, panel, NEAR_MM if brain.away is None else NEAR_TEMPLATE_MM)
    if brain.away is not None:
        near &= panels.within(brain.away, panel, NEAR_MM)
    return np.where(near, grey, 0).astype(np.uint8)


def _outline(of: Volume, panel: Panel, x: float, y: float, names: str) -> str:
    return svg.contour(panels.sample(of, panel), 0.5, x, y, names)


def _tissue(of: Volume, panel: Panel, x: float, y: float) -> str:
    """Border of a tissue without its finest folds, which would hide the image."""
    smooth = ndimage.gaussian_filter(panels.sample(of, panel), 1.0)
    return svg.contour(smooth, 0.5, x, y, "t w", 24.0)


def _white(image: Volume, brain: Volume) -> float:
    """Intensity at which white matter begins."""
    values = np.asarray(image.values)[np.asarray(brain.values) > 0]
    return float(np.percentile(values, WHITE_PERCENTILE)) if values.size else 0.0


def _white_of(image: Volume, brain: Volume, least: float) -> Volume:
    """Mask of the voxels of a brain that are as bright as white matter."""
    inside = (np.asarray(brain.values) > 0) & (np.asarray(image.values) >= least)
    return Volume(inside.astype(np.float32), image.affine)


def carpet(
    rows: np.ndarray,
    tr_s: float,
    fd_mm: np.ndarray | None,
    dvars: np.ndarray | None,
    kept: np.ndarray | None,
    title: str,
) -> str:
    """Parcel series before denoising as an image, with framewise displacement and DVARS above.

    Parameters
    ----------
    rows : (N, T) uint8
        From `bhx_prep.review.carpet`.
    tr_s : float
        Repetition time (s).
    fd_mm, dvars : (T,), optional
        NaN where they are not known.
    kept : (T,) bool, optional
        False for frames that are not used: marked below.
    title : str
    """
    n_frames = rows.shape[1]
    parts = [svg.text(4, 13, f"{title}: series before denoising, parcels by time")]
    y = float(_HEADER)
    for name, trace, colour in (("FD (mm)", fd_mm, "s"), ("DVARS", dvars, "w")):
        if trace is not None and np.isfinite(trace).any():
            parts += _trace(name, trace, y, colour)
            y += 56
    height = max(160, min(400, 2 * rows.shape[0]))
    parts.append(svg.image(rows, _SIDE, y, _WIDTH, height))
    y += height
    if kept is not None and not kept.all():
        step = _WIDTH / n_frames
        at = _SIDE + (np.flatnonzero(~kept) + 0.5) * step
        parts.append(svg.path([np.array([[x, y + 2], [x, y + 8]]) for x in at], "r m"))
        parts.append(svg.text(4, y + 10, "not used"))
    parts.append(svg.text(_SIDE, y + 22, "0 s"))
    parts.append(svg.text(_SIDE + _WIDTH, y + 22, f"{n_frames * tr_s:.0f} s", "end"))
    return svg.document(_SIDE + _WIDTH + 8, y + 28, title, parts)


def _trace(name: str, values: np.ndarray, y: float, colour: str) -> list[str]:
    """A trace over time in a strip of 50 pixels, with its largest value."""
    top = float(np.nanmax(values)) or 1.0
    x = _SIDE + (np.arange(len(values)) + 0.5) * _WIDTH / len(values)
    line = np.column_stack([x, y + 48 - 44 * np.nan_to_num(values / top)])
    base = np.array([[_SIDE, y + 48], [_SIDE + _WIDTH, y + 48]])
    return [
        svg.path([base], "t a"),
        svg.path([line], f"t {colour}"),
        svg.text(4, y + 14, name),
        svg.text(4, y + 28, f"max {top:.3g}"),
    ]
