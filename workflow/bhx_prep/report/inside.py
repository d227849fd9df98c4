"""Results of model inspection for the report: attention, saliency, feature space, reconstructions, patterns.

No subject is named: numbers and maps are of many, and in a plane each is a point without a label. T1 pictures are means
over subjects: volumes are skull-stripped, but a person can be recognised by the shape of a brain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bhx_model.data import npz
from bhx_model.errors import BhxError
from bhx_prep.config.config import Config
from bhx_prep.ingest import participants
from bhx_prep.report import inside_figures
from bhx_prep.report.cortex import Cortex
from bhx_prep.report.pictures import Picture, map_of, signed_map

#: A hub token attends to a modality if at least this share of what it gives to both goes there.
MOST: Final = 2 / 3
#: Subjects of a scatter: a page holds a hundred bytes of each.
MOST_POINTS: Final = 500
#: How many of its 128 hub tokens the paper says attend to fMRI, to T1 and to both (a published reading note; its rule was
#: not recovered).
PAPER: Final = (93, 30, 5)

_REMEDY: Final = "run Snakemake again"


@dataclass(frozen=True)
class Inside:
    """One part of the section: sentences and pictures of an experiment, or of an endpoint."""

    title: str
    sentences: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def find(config: Config, results: Path, cortex: Cortex | None) -> list[Inside]:
    """All existing results, experiments first.

    Raises
    ------
    DataError
        If a file is there and cannot be read.
    """
    found, seen = [], set()
    for name in config.experiments:
        folder = results / "experiments" / name
        read = _read(folder / "reconstructions.npz")
        if read is not None:
            found.append(_reconstructions(f"{name}: T1 volumes", *read))
        for endpoint in config.endpoints:
            read = _read(folder / "inspection" / f"{endpoint}.npz")
            if read is not None:
                # the hub tokens of a model attend alike whatever is predicted of a cohort
                first = (name, read[0]["cohort"]) not in seen
                seen.add((name, read[0]["cohort"]))
                found.append(_endpoint(config, name, endpoint, *read, cortex, with_attention=first))
    for endpoint in config.endpoints:
        read = _read(results / "endpoints" / endpoint / "connectivity_pattern.npz")
        if read is not None:
            found.append(_pattern(config, endpoint, *read, cortex))
    return found


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    if not path.exists():
        return None
    arrays = npz.read(path, _REMEDY)
    return json.loads(str(arrays.pop("about"))), arrays


# ------------------------------------------------------------------------------- models


def counts(share: np.ndarray) -> tuple[int, int, int]:
    """How many hub tokens attend to function, to structure and to both, by their share of function: (H,)."""
    function, structure = int((share >= MOST).sum()), int((share <= 1 - MOST).sum())
    return function, structure, len(share) - function - structure


def function_share(attention: np.ndarray) -> np.ndarray:
    """Share of function in the attention to both modalities: (layers, H) of (layers, H, 3)."""
    both = attention[..., 1] + attention[..., 2]
    return attention[..., 1] / np.maximum(both, 1e-12)


def _endpoint(
    config: Config,
    experiment: str,
    endpoint: str,
    about: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    cortex: Cortex | None,
    *,
    with_attention: bool,
) -> Inside:
    part = Inside(f"{experiment}, {endpoint}: {about['readout']}")
    if with_attention and "attention" in arrays:
        _add_attention(part, about, arrays)
    saliency = arrays["saliency"]
    many = f"mean over {about['n']} test subjects, one run each"
    part.sentences.append(
        f"Saliency of an ROI: gradient times input of the readout along the direction in which the labels of training "
        f"subjects differ, its share of all ROIs; {many}. {_largest(saliency, arrays['roi_names'])} "
        f"Even saliency would give each {100 / len(saliency):.2g} %."
    )
    if cortex is not None and cortex.n_parcels == len(saliency):
        high = float(np.nanpercentile(saliency, 98))
        ends = ("0", f"{100 * high:.2g} %")
        part.pictures.append(
            map_of(cortex, f"Saliency by parcel; {many}.", saliency, "viridis", 0.0, high, *ends)
        )
    _add_planes(part, config, endpoint, about, arrays)
    return part


def _add_attention(part: Inside, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    trained, untrained = function_share(arrays["attention"]), function_share(arrays["untrained"])
    even = float(arrays["even"])
    part.sentences.append(
        f"In the last layer {_in_words(counts(trained[-1]))}; over all layers {_in_words(counts(trained.mean(axis=0)))}. "
        f"Untrained weights of the same seed: {_in_words(counts(untrained[-1]))}. A hub token counts for a modality from "
        f"{100 * MOST:.0f} % of the attention that it gives to the tokens of both, a mean over heads and {about['n']} test "
        f"subjects; even attention would give fMRI {100 * even:.0f} %."
    )
    part.sentences.append(
        "The paper reports {} hub tokens for fMRI, {} for T1 and {} for both of 128; its rule was not recovered, so the "
        "counts cannot be compared one to one.".format(*PAPER)
    )
    if about.get("hub_start"):
        part.sentences.append(
            "Half of the hub tokens start from means of function tokens and half from means of structure tokens: what they "
            "hold is not what they attend to alone."
        )
    svg = inside_figures.hub_attention(trained[-1], untrained[-1], even, (1 - MOST, MOST))
    text = "Attention of the last layer: share of fMRI by hub token. Dashed: even attention; dotted: limits of the count."
    part.pictures.append(Picture(text, svg=svg))


def _in_words(found: tuple[int, int, int]) -> str:
    function, structure, both = found
    return f"{function} of {sum(found)} hub tokens attend to fMRI, {structure} to T1, {both} to both"


def _largest(saliency: np.ndarray, names: np.ndarray) -> str:
    first = np.argsort(saliency)[::-1][:3]
    said = ", ".join(f"{names[i]} ({100 * saliency[i]:.2g} %)" for i in first)
    return f"Largest: {said}."


def _add_planes(
    part: Inside, config: Config, endpoint: str, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    points, explained = arrays["plane"], arrays["explained"].tolist()
    target = arrays["target"]
    drawn = np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).astype(int)
    said = f"Subjects by {endpoint}: first two principal components of what is read."
    if len(drawn) < len(points):
        said += f" {len(drawn):,} of {len(points):,} subjects are drawn."
    if about["classes"]:
        groups = [about["classes"][int(t)] for t in target]
        svg = inside_figures.plane(points[drawn], [groups[i] for i in drawn], explained)
        part.sentences.append(_apart(points, groups, endpoint))
    else:
        svg = inside_figures.values_plane(points[drawn], target[drawn], explained)
    part.pictures.append(Picture(said, svg=svg))
    sites = _sites(config, endpoint, arrays["subjects"].tolist())
    if sites is not None:
        svg = inside_figures.plane(points[drawn], [sites[i] for i in drawn], explained)
        part.pictures.append(Picture(f"The same subjects by site ({len(set(sites))} sites).", svg=svg))
        part.sentences.append(_apart(points, sites, "site"))


def explained_by(points: np.ndarray, groups: Sequence[str]) -> float:
    """Share of the variance of points (N, 2) that is between groups, one a point."""
    of = np.array(groups)
    centred = points - points.mean(axis=0)
    within = sum(
        float(((centred[of == g] - centred[of == g].mean(axis=0)) ** 2).sum()) for g in dict.fromkeys(groups)
    )
    total = float((centred**2).sum())
    return 1 - within / total if total > 0 else 0.0


def _apart(points: np.ndarray, groups: Sequence[str], what: str) -> str:
    n, k = len(groups), len(set(groups))
    return (
        f"In this plane {what} explains {100 * explained_by(points, groups):.1f} % of the variance; "
        f"{k} groups drawn at random explain {100 * (k - 1) / max(n - 1, 1):.1f} % on average."
    )


def _sites(config: Config, endpoint: str, subjects: Sequence[str]) -> list[str] | None:
    """Site of each subject, by the column that splits are balanced over; None where it is not known."""
    section = config.endpoints[endpoint]
    column = section.splits.site or next(iter(section.stratify), None)
    if column is None:
        return None
    cohort = config.cohorts[section.cohort]
    try:
        known = (
            participants.read(cohort.phenotypes, cohort.table, [column]).match(subjects).column(column).known
        )
    except (BhxError, OSError):  # the table was moved since the splits were made: the page goes without
        return None
    return [known.get(subject, "unknown") for subject in subjects]


def _reconstructions(title: str, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Inside:
    n = about["n"]
    if "original_0" not in arrays:
        why = f"No pictures: {n} held-out subjects have a T1 volume, and a mean that is nobody's takes {about['fewest']}."
        return Inside(title, [why])
    rows = {
        text: [arrays[f"{name}_{axis}"] for axis in range(3)]
        for name, text in (
            ("original", "given"),
            ("masked", "seen by the encoder"),
            ("filled", "hidden patches filled in"),
        )
    }
    own = (
        " Mean and spread of a filled-in patch are those of the hidden one, as the loss leaves them open."
        if about["own_scale"]
        else ""
    )
    sentence = (
        f"Means over {n} held-out subjects, all with the same patches hidden; nobody's own volume is shown, since a "
        f"person can be recognised by the shape of a brain.{own} What is filled in correlates with what is a subject's "
        f"own (hidden voxels without the mean over subjects) by {about['correlation']:.2f}, the median over "
        "subjects (0: the mean brain)."
    )
    return Inside(
        title,
        [sentence],
        [Picture("T1 volumes: sagittal, coronal and axial slices.", svg=inside_figures.slices(rows))],
    )


# ------------------------------------------------------------------------------ linear rows


def square(pairs: np.ndarray, n: int) -> np.ndarray:
    """Symmetric matrix of its upper triangle, the diagonal 0: (n, n)."""
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n, k=1)] = pairs
    return matrix + matrix.T


def _pattern(
    config: Config,
    endpoint: str,
    about: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    cortex: Cortex | None,
) -> Inside:
    names = [str(name) for name in arrays["roi_names"]]
    matrix = square(arrays["pattern"].astype(float), len(names))
    section = config.endpoints[endpoint]
    classes = [c.name for c in section.classes]
    toward = f"towards {classes[-1]}, away from {classes[0]}" if classes else "towards higher values"
    splits = "one split" if about["splits"] == 1 else f"{about['splits']} splits"
    alike = (
        f"; the patterns of two splits correlate by {about['agreement']:.2f}"
        if about["agreement"] is not None
        else ""
    )
    sentence = (
        f"Which connectivity goes with the decision of the linear model of functional connectivity (row fc), {toward}: the "
        f"correlation of each pair's connectivity with the decision over training subjects, mean of {splits}{alike}. It is "
        "the pattern that belongs to the weights (Haufe et al. 2014), not the weights themselves."
    )
    part = Inside(f"{endpoint}: what the linear row reads", [sentence])
    caption = "Correlation of connectivity with the decision" + (
        ", means over pairs of networks." if inside_figures.by_network(names) else ", all pairs of ROIs."
    )
    part.pictures.append(Picture(caption, svg=inside_figures.pattern(matrix, names)))
    if cortex is not None and cortex.n_parcels == len(names):
        mean = matrix.sum(axis=1) / max(len(names) - 1, 1)
        part.pictures.append(signed_map(cortex, "Mean over the pairs of each parcel.", mean))
    return part
