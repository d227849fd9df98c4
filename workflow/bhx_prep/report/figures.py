"""Figures of the report: arrays in, SVG out.

Text stays text and colours are CSS variables, so that plots follow the page from light to dark. Each is drawn for the
width of a phone and scales with its column. The cortex is drawn in `bhx_prep.report.cortex`.
"""

from __future__ import annotations

import functools
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

#: Colours in the plots that stand for those of the page, which differ in light and dark.
_THEME = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--rule)",
    "#040404": "var(--page)",
    "#050501": "var(--c1)",
    "#050502": "var(--c2)",
    "#050503": "var(--c3)",
    "#050504": "var(--c4)",
}
INK, MUTED, RULE, PAGE, *SERIES = _THEME

#: Of a picture that a plot holds, at most; a pixel takes some five bytes.
PIXELS = 200_000

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of classes and sites may hold a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

#: Width (inch) of every plot: at 96 pixels an inch it fits a phone.
WIDTH = 3.7

#: Families of Schaefer's networks as their parcels' names begin, in the order they are shown.
FAMILIES = {
    "Vis": "Visual",
    "SomMot": "Somatomotor",
    "DorsAttn": "Dorsal attention",
    "SalVentAttn": "Salience / ventral attention",
    "Limbic": "Limbic",
    "Cont": "Control",
    "Default": "Default",
    "TempPar": "Temporoparietal",
}


def families(names: Sequence[str]) -> list[str]:
    """Network family of each parcel, e.g. ``Vis`` of ``17Networks_LH_VisCent_ExStr_1``; ``other`` if none fits."""
    found = []
    for name in names:
        parts = re.split(r"[LR]H_", name, maxsplit=1)
        found.append(next((f for f in FAMILIES if parts[-1].startswith(f)), "other"))
    return found


def by_network(names: Sequence[str]) -> bool:
    """Whether the names state Schaefer's networks, by which figures then order their parcels."""
    return set(families(names)) != {"other"}


def network_order(names: Sequence[str]) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
    """Order of the parcels by network family, left before right, and the position of each family.

    Returns
    -------
    order : ndarray of int, shape (R,)
    blocks : list of (str, int, int)
        Family, first row, one past its last row.
    """
    of = families(names)
    rank = {family: i for i, family in enumerate([*FAMILIES, "other"])}
    order = np.array(sorted(range(len(names)), key=lambda i: (rank[of[i]], i)), dtype=int)
    blocks, start = [], 0
    for family in rank:
        size = of.count(family)
        if size:
            blocks.append((family, start, start + size))
            start += size
    return order, blocks


def thinned(values: np.ndarray, pixels: int) -> np.ndarray:
    """Every n-th row and column of a picture, so that it has no more than so many pixels: a page holds it as it is.

    Parameters
    ----------
    values : ndarray, shape (R, C)
    pixels : int

    Returns
    -------
    ndarray, shape (r, c)
        `values` itself where it is small enough; else r / R and c / C are about equal.
    """
    share = min(1.0, float(np.sqrt(pixels / values.size)))
    rows, columns = (np.linspace(0, n - 1, max(1, int(n * share))).astype(int) for n in values.shape)
    return values if share == 1.0 else values[np.ix_(rows, columns)]


P = ParamSpec("P")


def styled(draw: Callable[P, tuple[Figure, str]]) -> Callable[P, str]:
    """Run `draw` in the style above and turn the figure and its description into SVG."""

    @functools.wraps(draw)
    def render(*args: P.args, **kwargs: P.kwargs) -> str:
        with mpl.rc_context(rc=_STYLE):
            figure, label = draw(*args, **kwargs)
            return _svg(figure, label)

    return render


def blank(height: float, **grid: Any) -> tuple[Figure, Any]:
    """Figure of the page's width and of a height (inch), and its axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(**grid)


def _svg(figure: Figure, label: str) -> str:
    """SVG of a figure for a page: the page's font and colours, and `label` as its description for screen readers."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": label}):
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for stand_in, variable in _THEME.items():
        text = text.replace(stand_in, variable)
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)  # the page's
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    opening = f'<svg {box[0]} role="img" aria-label="{html.escape(label, quote=True)}"'
    opening += ' xmlns:xlink="http://www.w3.org/1999/xlink">'
    text = re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)
    return re.sub(r"\n\s*", "\n", text)


@styled
def motion(mean_fd: Mapping[str, np.ndarray], limit: float) -> tuple[Figure, str]:
    """Histograms of the runs' mean framewise displacement, one row per cohort, and the limit.

    Parameters
    ----------
    mean_fd : mapping of str to ndarray of float, shape (n,)
        Cohort to the mean displacement (mm) of its runs.
    limit : float
        Above it (mm) a run is excluded.
    """
    end = max(1.4 * limit, *(float(np.max(v)) * 1.05 for v in mean_fd.values()))
    edges = np.linspace(0, end, 41)
    figure, axes = blank(0.75 + 0.62 * len(mean_fd), nrows=len(mean_fd), sharex=True, squeeze=False)
    for axis, (cohort, values) in zip(axes[:, 0], mean_fd.items(), strict=True):
        counts, _ = np.histogram(values, edges)
        middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
        for chosen, colour in ((middle <= limit, SERIES[0]), (middle > limit, SERIES[1])):
            axis.bar(middle[chosen], counts[chosen], width=0.9 * width, color=colour, linewidth=0)
        axis.axvline(limit, color=SERIES[1], linewidth=1, linestyle=(0, (3, 2)))
        axis.set_title(f"{cohort} ({len(values)} run{'s' if len(values) > 1 else ''})", color=INK)
        axis.set_yticks([0, int(counts.max())])
        axis.set_xlim(0, end)
    axes[-1, 0].set_xlabel("mean framewise displacement (mm)")
    axes[-1, 0].set_ylabel("runs")
    medians = ", ".join(f"{cohort} {np.median(v):.2f}" for cohort, v in mean_fd.items())
    return (
        figure,
        f"Mean framewise displacement of the runs; median per cohort in mm: {medians}; limit {limit}.",
    )


@styled
def trace(fd_mm: np.ndarray, tr_s: float, limit: float) -> tuple[Figure, str]:
    """Framewise displacement of one run over time; dashed, the limit of the mean.

    Parameters
    ----------
    fd_mm : ndarray of float, shape (T,)
    tr_s : float
        Repetition time (s).
    limit : float
        mm.
    """
    figure, axis = blank(1.7)
    time = tr_s * np.arange(len(fd_mm))
    axis.plot(time, fd_mm, color=SERIES[0], linewidth=0.8)
    axis.axhline(limit, color=SERIES[1], linewidth=1, linestyle=(0, (3, 2)))
    axis.set_ylim(0, max(1.3 * limit, float(np.nanmax(fd_mm)) * 1.05))
    axis.set_xlim(0, time[-1])
    axis.set_xlabel("time (s)")
    axis.set_ylabel("FD (mm)")
    return (
        figure,
        f"Framewise displacement over {time[-1]:.0f} s: mean {np.nanmean(fd_mm):.2f}, largest {np.nanmax(fd_mm):.2f} mm.",
    )


@styled
def carpet(
    series: np.ndarray, names: Sequence[str], tr_s: float, fd_mm: np.ndarray | None, pixels: int = PIXELS
) -> tuple[Figure, str]:
    """Carpet of one run: every parcel a line, ordered by network; framewise displacement above it where known.

    Parameters
    ----------
    series : ndarray of float, shape (R, T)
        Any unit; each parcel is shown in its own standard deviations. Rows of NaN stay empty.
    names : sequence of str, length R
    tr_s : float
        Repetition time (s).
    fd_mm : ndarray of float, shape (T0,) or None
        Before frames were dropped, hence on a time axis of its own length.
    pixels : int
        That it has at most.
    """
    order, blocks = network_order(names)
    rows = series[order].astype(float)
    centre = rows - rows.mean(axis=1, keepdims=True)
    scale = rows.std(axis=1, keepdims=True)
    shown = np.divide(centre, scale, out=np.full_like(centre, np.nan), where=scale > 0)
    figure, axes = blank(
        3.1 if fd_mm is not None else 2.5, nrows=2 if fd_mm is not None else 1, squeeze=False, sharex=True,
        gridspec_kw={"height_ratios": [1, 3.6]} if fd_mm is not None else None,
    )  # fmt: skip
    end = tr_s * series.shape[1]
    if fd_mm is not None:
        axis = axes[0, 0]
        axis.fill_between(tr_s * np.arange(len(fd_mm)), np.nan_to_num(fd_mm), color=SERIES[0], linewidth=0)
        axis.set_ylim(0, max(0.5, float(np.nanmax(fd_mm)) * 1.05))
        axis.set_ylabel("FD (mm)")
        end = max(end, tr_s * len(fd_mm))
    axis = axes[-1, 0]
    axis.imshow(
        np.ma.masked_invalid(thinned(shown, pixels)), aspect="auto", cmap=_colours("gray"), vmin=-2, vmax=2,
        interpolation="none", extent=(0, tr_s * series.shape[1], len(order), 0),
    )  # fmt: skip
    network_axis(axis.yaxis, blocks, len(order))
    axis.set_xlim(0, end)
    axis.set_xlabel("time (s)")
    label = f"Carpet of {series.shape[0]} parcels over {tr_s * series.shape[1]:.0f} s"
    if fd_mm is not None:
        label += f"; framewise displacement up to {np.nanmax(fd_mm):.2f} mm"
    return figure, label + "."


def _colours(name: str) -> Any:
    """Return a colour map whose missing values are a grey that neither of its ends has."""
    return mpl.colormaps[name].with_extremes(bad="#8a8f98")


def network_axis(axis: Any, blocks: Sequence[tuple[str, int, int]], n: int) -> None:
    """Name the families along an axis of parcels; bounds as ticks, names at the middle of the larger blocks."""
    middle = [(a + b) / 2 for _, a, b in blocks]
    shown = {family for family, a, b in blocks if b - a > 0.02 * n} if len(blocks) > 1 else set()
    axis.set_ticks(middle, [family if family in shown else "" for family, _, _ in blocks])
    axis.set_ticks([a for _, a, _ in blocks] + [n], minor=True)
    axis.set_tick_params(which="major", length=0)
    axis.set_tick_params(which="minor", length=4, width=0.6, color=MUTED)


@styled
def connectivity(matrix: np.ndarray, names: Sequence[str], pixels: int = PIXELS) -> tuple[Figure, str]:
    """Correlation matrix, parcels ordered by network.

    Parameters
    ----------
    matrix : ndarray of float, shape (R, R)
        Correlations; NaN where a parcel has no series.
    names : sequence of str, length R
    pixels : int
        That it has at most.
    """
    order, blocks = network_order(names)
    shown = matrix[np.ix_(order, order)]
    limit = min(1.0, max(0.1, float(np.nanpercentile(np.abs(shown), 98))))
    figure, axis = blank(3.55)
    picture = axis.imshow(
        np.ma.masked_invalid(thinned(shown, pixels)), cmap=_colours("RdBu_r"), vmin=-limit, vmax=limit, interpolation="none",
        extent=(0, len(order), len(order), 0),
    )  # fmt: skip
    network_axis(axis.yaxis, blocks, len(order))
    axis.set_xticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    for _, _, end in blocks[:-1]:
        axis.axhline(end, color="#808080", linewidth=0.4)
        axis.axvline(end, color="#808080", linewidth=0.4)
    bar = figure.colorbar(picture, ax=axis, location="bottom", aspect=40, pad=0.02)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    inside = [shown[a:b, a:b][~np.eye(b - a, dtype=bool)] for _, a, b in blocks]
    within = float(np.nanmean(np.concatenate(inside)))
    overall = float(np.nanmean(shown[~np.eye(len(order), dtype=bool)]))
    if not by_network(names):
        return figure, f"Correlation matrix of {len(order)} parcels; mean {overall:.2f}."
    return figure, (
        f"Correlation matrix of {len(order)} parcels by network; mean {within:.2f} within families, {overall:.2f} overall."
    )


@styled
def spectrum(eigenvalues: np.ndarray) -> tuple[Figure, str]:
    """Wavelength of the harmonics by their number, left and right.

    Parameters
    ----------
    eigenvalues : ndarray of float, shape (2, M)
        mm^-2; the first of each row is zero and not drawn.
    """
    figure, axis = blank(1.9)
    number = np.arange(2, eigenvalues.shape[1] + 1)
    length = 2 * np.pi / np.sqrt(eigenvalues[:, 1:])
    for row, colour, side in zip(length, SERIES, ("left", "right"), strict=False):
        axis.plot(number, row, color=colour, label=side, linestyle="-" if side == "left" else (0, (4, 2)))
    axis.set_yscale("log")
    ticks = [t for t in (20, 50, 100, 200, 400) if length.min() * 0.7 < t < length.max() * 1.4]
    axis.set_yticks(ticks, [str(t) for t in ticks])
    axis.minorticks_off()
    axis.set_xlabel("harmonic")
    axis.set_ylabel("wavelength (mm)")
    axis.legend(handlelength=2.4)
    return (
        figure,
        f"Wavelength of the harmonics: {length[0, 0]:.0f} mm at number 2, {length[0, -1]:.0f} mm at the last.",
    )


@styled
def normaliser(median: np.ndarray, iqr: np.ndarray, names: Sequence[str]) -> tuple[Figure, str]:
    """Centre and scale of every parcel, ordered by network.

    Parameters
    ----------
    median, iqr : ndarray of float, shape (R,)
        In the unit of the series.
    names : sequence of str, length R
    """
    order, blocks = network_order(names)
    figure, axes = blank(2.5, nrows=2, sharex=True)
    where = np.arange(len(order)) + 0.5
    for axis, values, what, colour in zip(axes, (median, iqr), ("median", "IQR"), SERIES, strict=False):
        axis.plot(where, values[order], ".", color=colour, markersize=2.5)
        axis.set_ylabel(what)
        for _, _, end in blocks[:-1]:
            axis.axvline(end, color=RULE, linewidth=0.6)
    network_axis(axes[1].xaxis, blocks, len(order))
    axes[1].tick_params(axis="x", labelrotation=90)
    axes[1].set_xlim(0, len(order))
    return figure, (
        f"Normaliser by parcel: medians {median.min():.3g} to {median.max():.3g}, IQR {iqr.min():.3g} to {iqr.max():.3g}."
    )


@styled
def curves(
    title: str, lines: Mapping[str, tuple[np.ndarray, np.ndarray]], baseline: float | None
) -> tuple[Figure, str]:
    """Losses of one training stage by step, and the loss of predicting the mean.

    Parameters
    ----------
    title : str
    lines : mapping of str to (steps, values)
        Name of a loss to its values by step.
    baseline : float or None
        Loss of predicting the mean, drawn as a dashed line.
    """
    figure, axis = blank(2.3)
    for (name, (steps, values)), colour in zip(lines.items(), SERIES, strict=False):
        axis.plot(
            steps,
            values,
            color=colour,
            label=name,
            marker="o" if len(steps) < 30 else None,
            markersize=2.5,
        )
    if baseline is not None:
        axis.axhline(baseline, color=MUTED, linewidth=1, linestyle=(0, (3, 2)), label="mean predictor")
    axis.set_title(title, color=INK)
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    axis.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none")
    ends = "; ".join(f"{n} from {v[0]:.3g} to {v[-1]:.3g}" for n, (_, v) in lines.items())
    return figure, f"{title}: {ends}" + (f"; mean predictor {baseline:.3g}." if baseline is not None else ".")


Row = tuple[str, float, float | None, float | None]


@styled
def estimates(heading: str, rows: Sequence[Row], floors: Sequence[Row]) -> tuple[Figure, str]:
    """Dots with intervals, one row per method; floors as bands over all of them.

    Parameters
    ----------
    heading : str
        Metric and unit.
    rows, floors : sequence of (method, mean, low, high)
        `low` and `high` None where there is no interval.
    """
    figure, axis = blank(0.65 + 0.3 * len(rows) + 0.17 * len(floors))
    colours = [*SERIES[1:], MUTED]
    for i, (floor, mean, low, high) in enumerate(floors):
        colour = colours[i % len(colours)]
        if low is not None and high is not None:
            axis.axvspan(low, high, color=colour, alpha=0.13, linewidth=0)
        axis.axvline(mean, color=colour, linewidth=1, linestyle=(0, (3, 1 + i)), label=floor)
    for i, (_, mean, low, high) in enumerate(rows):
        if low is not None and high is not None:
            axis.plot([low, high], [i, i], color=SERIES[0], linewidth=1.6, solid_capstyle="butt")
        axis.plot(mean, i, "o", color=SERIES[0], markersize=5)
    axis.set_yticks(range(len(rows)), [method for method, *_ in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x", color=RULE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_xlabel(heading)
    if floors:
        figure.legend(loc="outside lower center", ncols=1, handlelength=2.4)
    return figure, f"{heading}: {_spoken(rows)}" + (f"; bands: {_spoken(floors)}." if floors else ".")


def _spoken(rows: Sequence[Row]) -> str:
    """Values of rows for screen readers."""
    return "; ".join(
        f"{method} {mean:.3g}" + (f" ({low:.3g} to {high:.3g})" if low is not None else "")
        for method, mean, low, high in rows
    )
