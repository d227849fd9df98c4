"""The limits of quality measures that exclude a scan, in one table, and their origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bhx_model.errors import LimitError


@dataclass(frozen=True)
class Limit:
    """What a number may be.

    Attributes
    ----------
    modality : str
        ``t1w`` or ``bold``.
    name : str
        Of the number, as files have it.
    least, most : float or None
        Outside of these a scan is excluded.
    meaning : str
        What it measures.
    source : str
        Where the limit comes from.
    hint : str
        What a scan that fails it may be.
    """

    modality: str
    name: str
    least: float | None
    most: float | None
    meaning: str
    source: str
    hint: str

    def failure(self, value: float) -> str | None:
        """A few words if a value is outside, e.g. ``norm_dice 0.61 (limit 0.8)``; not a number fails, too."""
        for limit, is_inside in (
            (self.least, lambda least: value >= least),
            (self.most, lambda most: value <= most),
        ):
            if limit is not None and not is_inside(limit):
                return f"{self.name} {short(value)} (limit {short(limit)})"
        return None


LIMITS: Final = (
    Limit(
        "t1w",
        "brain_volume_ml",
        750.0,
        2400.0,
        "volume of the brain mask (ml)",
        "brains from 5 years of age have 900 to 2,000 ml with their fluid, Colin27 (as large as MNI space) 1,950",
        "is it the whole head of a person?",
    ),
    Limit(
        "t1w",
        "norm_dice",
        0.85,
        None,
        "overlap of the brain mask, in standard space, with the template's",
        "real heads .96 to .99",
        "the registration to the template went wrong",
    ),
    Limit(
        "t1w",
        "template_correlation",
        0.6,
        None,
        "correlation with the template, of structure of 4 to 12 mm, inside both brains",
        "real heads .92 to .98, ROBEX's .76, made old .73; with the face at the back .42 to .53, upside down .36; water .21",
        "is it a T1w image of a head?",
    ),
    Limit(
        "t1w",
        "tissue_contrast",
        0.3,
        None,
        "by how much the template's white matter is brighter than its grey matter in the image, in standard deviations",
        "real heads .66 to 1.17, water .05, a FLAIR -.33",
        "is it T1-weighted?",
    ),
    Limit(
        "t1w",
        "cut_cm2",
        None,
        20.0,
        "area of the brain that ends where nothing was measured, on the side where it is largest (cm2)",
        "real heads 0 to 3, tilted by 45 degrees 16, without their upper 25 and 35 mm 29 and 67, with 16 mm of missing"
        " slices 101; 20 is what 5 mm take off the vertex",
        "does the image show the whole brain?",
    ),
    Limit(
        "t1w",
        "missing_share",
        None,
        0.02,
        "share of the brain without values: zero or NaN",
        "real heads below .001",
        "are there gaps in the image?",
    ),
    Limit(
        "bold",
        "coreg_dice",
        0.7,
        None,
        "overlap of the run's brain with the T1w image's, inside the run's field of view",
        "real runs .85 to .93, also of other subjects",
        "the registration to the T1w image went wrong",
    ),
    Limit(
        "bold",
        "coreg_overlap",
        0.75,
        None,
        "share of the smaller of the two brains that lies in the other one",
        "real runs .92 to 1",
        "the registration to the T1w image went wrong",
    ),
    Limit(
        "bold",
        "coreg_likeness",
        0.003,
        None,
        "share of the run's structure (3 to 8 mm) that is explained with its T1w image, less that with the mirrored T1w",
        "a real run on its own T1w .030 to .034, with voxels of 5 mm .010, 6 mm beside it .003 to .008; on another person's"
        " -.001 to .002; mirrored -.006 to -.019",
        "is it this person's, and left not right?",
    ),
)


def of(modality: str) -> tuple[Limit, ...]:
    """The limits of a modality, in the order of the table."""
    return tuple(limit for limit in LIMITS if limit.modality == modality)


def limit(modality: str, name: str) -> Limit:
    """The limit of a number."""
    return next(limit for limit in of(modality) if limit.name == name)


def failures(numbers: Mapping[str, float | None], modality: str) -> list[Limit]:
    """The limits that a scan fails; a number that is None, or not there, fails none."""
    return [
        limit
        for limit in of(modality)
        if (value := numbers.get(limit.name)) is not None and limit.failure(value) is not None
    ]


def check(numbers: Mapping[str, float | None], modality: str) -> None:
    """Compare a scan's numbers with all their limits.

    Parameters
    ----------
    numbers : mapping
        Name to value; None where it could not be measured.
    modality : str

    Raises
    ------
    LimitError
        With the numbers and limits that it fails, as many as fit into a sentence.
    """
    failed = failures(numbers, modality)
    if not failed:
        return
    parts = [text for limit in failed if (text := limit.failure(numbers[limit.name] or 0.0)) is not None]
    while len(sentence := f"{', '.join(parts)}: {failed[0].hint}") > 200:
        parts.pop()
    raise LimitError(sentence)


def short(value: float) -> str:
    """A number as messages have it: 1948, 0.83, 0.003."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table() -> str:
    """The limits as the documentation shows them."""
    rows = [
        "| scan | number | limit | what it is | where the limit comes from |",
        "| --- | --- | --- | --- | --- |",
    ]
    for limit in LIMITS:
        ends = [
            f"{word} {short(end)}"
            for word, end in (("at least", limit.least), ("at most", limit.most))
            if end is not None
        ]
        scan = {"t1w": "T1w", "bold": "run"}[limit.modality]
        rows.append(f"| {scan} | `{limit.name}` | {', '.join(ends)} | {limit.meaning} | {limit.source} |")
    return "\n".join(rows)
