"""Pictures of the report: drawings, and maps of the cortex with their scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bhx_prep.report.cortex import Cortex, legend, palette


@dataclass(frozen=True)
class Picture:
    """A figure of the page: `svg`, or an image as a ``data:`` address with its description, and a map's scale.

    `palette` is the colour of cortex without a value and of each parcel, three bytes each: what makes it a map that turns.
    """

    caption: str
    svg: str = ""
    address: str = ""
    alt: str = ""
    low: str = ""
    high: str = ""
    gradient: str = ""
    palette: bytes = b""


def map_of(
    cortex: Cortex,
    caption: str,
    values: np.ndarray,
    colours: str,
    low: float,
    high: float,
    first: str,
    last: str,
) -> Picture:
    """A value for each parcel, (R,), painted between `low` and `high`, which are written as `first` and `last`."""
    return Picture(
        caption,
        address=cortex.paint(values, colours, low, high),
        alt=f"Inflated cortex from outside and inside, both hemispheres. {caption}",
        low=first,
        high=last,
        gradient=legend(colours),
        palette=np.round(palette(values, colours, low, high) * 255).astype(np.uint8).tobytes(),
    )


def signed_map(cortex: Cortex, caption: str, values: np.ndarray) -> Picture:
    """Values of both signs, (R,), about 0."""
    limit = float(np.nanpercentile(np.abs(values), 98)) or 1.0
    return map_of(cortex, caption, values, "RdBu_r", -limit, limit, f"\u2212{limit:.2g}", f"+{limit:.2g}")
