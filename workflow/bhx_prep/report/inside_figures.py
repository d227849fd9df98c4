"""Figures of model inspection, in the style of `bhx_prep.report.figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bhx_prep.report.figures import (
    INK,
    MUTED,
    PIXELS,
    SERIES,
    blank,
    by_network,
    network_order,
    styled,
    thinned,
)

#: Groups that a scatter names; more are told apart by colour alone.
_NAMED = 6


@styled
def hub_attention(
    trained: np.ndarray, untrained: np.ndarray, even: float, limits: tuple[float, float]
) -> tuple[Figure, str]:
    """Share of function in the attention of every hub token, sorted, with untrained weights for comparison.

    Parameters
    ----------
    trained, untrained : ndarray of float, shape (H,)
        Of what goes to the tokens of both modalities.
    even : float
        Share with even attention.
    limits : (float, float)
        Below the first a token attends to structure, from the second on to function.
    """
    figure, axis = blank(2.3)
    place = np.arange(1, len(trained) + 1)
    axis.plot(place, np.sort(untrained), color=MUTED, linewidth=1, label="untrained weights")
    axis.plot(place, np.sort(trained), ".", color=SERIES[0], markersize=3, label="trained")
    axis.axhline(even, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
    for limit in limits:
        axis.axhline(limit, color=SERIES[1], linewidth=0.6, linestyle=(0, (1, 2)))
    axis.set_ylim(0, 1)
    axis.set_xlabel("hub token, sorted")
    axis.set_ylabel("attention to fMRI")
    axis.legend(loc="best")
    return figure, (
        f"Share of fMRI in the attention of {len(trained)} hub tokens: {trained.min():.2f} to {trained.max():.2f}, "
        f"untrained {untrained.min():.2f} to {untrained.max():.2f}, even attention {even:.2f}."
    )


@styled
def plane(points: np.ndarray, groups: Sequence[str], explained: Sequence[float]) -> tuple[Figure, str]:
    """Subjects in the plane in which they differ most, coloured by group.

    Parameters
    ----------
    points : ndarray of float, shape (n, 2)
    groups : sequence of str, length n
    explained : sequence of float
        Share of the variance of each axis.
    """
    figure, axis = blank(2.8)
    names = sorted(set(groups))
    colours = (
        SERIES if len(names) <= len(SERIES) else [mpl.colormaps["tab20"](i % 20) for i in range(len(names))]
    )
    of = np.array(groups)
    for name, colour in zip(names, colours, strict=False):
        chosen = of == name
        axis.plot(*points[chosen].T, ".", color=colour, markersize=3.5, alpha=0.8, label=name, linewidth=0)
    axis.set_xlabel(f"component 1 ({100 * explained[0]:.0f} %)")
    axis.set_ylabel(f"component 2 ({100 * explained[1]:.0f} %)")
    axis.set_xticks([])
    axis.set_yticks([])
    if len(names) <= _NAMED:
        axis.legend(loc="best", markerscale=1.5, handletextpad=0.2)
    return figure, f"{len(points)} subjects of {len(names)} groups in a plane."


@styled
def values_plane(points: np.ndarray, values: np.ndarray, explained: Sequence[float]) -> tuple[Figure, str]:
    """As `plane`, coloured by a value; `values` (n,)."""
    figure, axis = blank(2.8)
    dots = axis.scatter(*points.T, c=values, s=9, cmap="viridis", linewidths=0)
    axis.set_xlabel(f"component 1 ({100 * explained[0]:.0f} %)")
    axis.set_ylabel(f"component 2 ({100 * explained[1]:.0f} %)")
    axis.set_xticks([])
    axis.set_yticks([])
    bar = figure.colorbar(dots, ax=axis, aspect=40, pad=0.02)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure, f"{len(points)} subjects in a plane, coloured by a value."


@styled
def slices(rows: Mapping[str, Sequence[np.ndarray]]) -> tuple[Figure, str]:
    """Slices of volumes, a row each, on one grey scale; what is NaN stays empty.

    Parameters
    ----------
    rows : mapping of str to sequence of ndarray, shape (.., ..)
        Sagittal, coronal and axial slice by what they are.
    """
    figure, axes = blank(3.6, nrows=len(rows), ncols=3, squeeze=False)
    everything = np.concatenate([s.ravel().astype(float) for of in rows.values() for s in of])
    low, high = np.nanpercentile(everything, [1, 99])
    for line, (name, of) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, of, strict=True):
            shown = np.ma.masked_invalid(image.astype(float).T[::-1])
            axis.imshow(shown, cmap="gray", vmin=low, vmax=high, interpolation="none")
            axis.set_axis_off()
        line[0].set_title(name, color=INK)
    return figure, f"Mean T1 slices: {', '.join(rows)}."


@styled
def pattern(matrix: np.ndarray, names: Sequence[str]) -> tuple[Figure, str]:
    """Pattern of a linear model of connectivity: means of pairs of networks, or all pairs where none are known.

    Parameters
    ----------
    matrix : ndarray of float, shape (R, R)
        Symmetric; the diagonal is not read.
    names : sequence of str, length R
    """
    figure, axis = blank(3.4)
    if by_network(names):
        shown, families = network_means(matrix, names)
        axis.set_xticks(range(len(families)), families, rotation=90)
        axis.set_yticks(range(len(families)), families)
    else:
        shown, families = matrix, []
        axis.set_xticks([])
        axis.set_yticks([])
    limit = float(np.nanpercentile(np.abs(shown), 98)) or 1.0
    picture = axis.imshow(
        thinned(shown, PIXELS), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none",
        extent=(-0.5, len(shown) - 0.5, len(shown) - 0.5, -0.5),
    )  # fmt: skip
    for spine in axis.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(picture, ax=axis, location="bottom", aspect=40, pad=0.02)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    label = f"Correlation of connectivity with the decision, {np.nanmin(shown):.2f} to {np.nanmax(shown):.2f}"
    if families:
        row, column = np.unravel_index(np.nanargmax(np.abs(shown)), shown.shape)
        label += f"; largest for {families[row]} and {families[column]}"
    return figure, label + "."


def network_means(matrix: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Means of a symmetric matrix over pairs of network families, without its diagonal: (F, F), and their names."""
    order, blocks = network_order(names)
    inner = matrix[np.ix_(order, order)].astype(float)
    np.fill_diagonal(inner, np.nan)
    means = np.array(
        [
            [np.nanmean(inner[a:b, c:d]) if b - a > 1 or (a, b) != (c, d) else np.nan for _, c, d in blocks]
            for _, a, b in blocks
        ]
    )
    return means, [family for family, _, _ in blocks]
