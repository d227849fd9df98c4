"""Infer from an accuracy and an F1 which class the F1 refers to.

With the share TP of true positives among all subjects, F1 = 2 TP / (2 TP + errors) and errors = 1 - accuracy. So TP, and
with it everything but the sizes of the classes, follows from the two numbers. Exact for one set of subjects;
approximate for means over runs or batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PositiveClass:
    """What follows of the class whose F1 was reported. Shares of all subjects.

    Attributes
    ----------
    true_positives : float
    smallest, largest : float
        Bounds of the class's share: all errors are false positives, or all are misses.
    f1_other : float
        F1 of the other class.
    """

    true_positives: float
    smallest: float
    largest: float
    f1_other: float

    def fits(self, share: float) -> bool:
        """Whether a class of this share can be the one whose F1 was reported."""
        return self.smallest <= share <= self.largest


def invert(accuracy: float, f1: float) -> PositiveClass | None:
    """Return what follows from an accuracy and an F1 of one of two classes, both as fractions.

    Returns
    -------
    PositiveClass or None
        None where no set of subjects has both: they are rounded, or means over unlike sets.
    """
    errors = 1 - accuracy
    if not 0 <= f1 < 1 or not 0 <= accuracy < 1:
        return None
    true_positives = errors * f1 / (2 * (1 - f1))
    true_negatives = accuracy - true_positives
    if true_negatives < 0:
        return None
    return PositiveClass(
        true_positives=true_positives,
        smallest=true_positives,
        largest=true_positives + errors,
        f1_other=2 * true_negatives / (2 * true_negatives + errors),
    )


def readings(found: PositiveClass, people: Mapping[str, int]) -> str:
    """Say which of the classes can be the one whose F1 was reported.

    Parameters
    ----------
    found : PositiveClass
    people : mapping
        Class to its number of subjects.

    Returns
    -------
    str
        For every class its share, and whether it lies within the bounds.
    """
    total = sum(people.values())
    parts = []
    for name, n in people.items():
        share = n / total
        beyond = "too few" if share < found.smallest else "too many"
        verdict = "possible" if found.fits(share) else beyond
        parts.append(f"{name} ({100 * share:.1f} %): {verdict}")
    return "; ".join(parts)
