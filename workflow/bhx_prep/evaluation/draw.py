"""Random divisions of subjects, balanced over classes and strata; families stay together."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.config.endpoints import EndpointSection

PARTS: Final = ("train", "val", "test")
#: Shares of train, val and test.
Shares = tuple[float, float, float]
#: Bins of a regression's label within which subjects are drawn.
BINS: Final = 5
_LONGEST: Final = 100


class PartWithoutClass(DataError):
    """Families that stay together leave a part without anybody of a class; other subjects or seeds may not."""


def unit(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone, on every machine and version."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@cache
def blocks(shares: Shares) -> tuple[tuple[str, ...], ...]:
    """Parts of so many subjects in a row as have the shares exactly, in blocks with one of the smallest part each.

    .6, .2 and .2 are blocks of three, one and one; .7, .15 and .15 three blocks of 20 in all.
    """
    length = next(n for n in range(1, _LONGEST) if all(math.isclose(s * n, round(s * n)) for s in shares))
    n_blocks = round(min(share for share in shares if share) * length)
    ends = [round(length * i / n_blocks) for i in range(n_blocks + 1)]
    found = []
    for start, end in pairwise(ends):
        val, test = (round(share * end + 1e-9) - round(share * start + 1e-9) for share in shares[1:])
        found.append(("train",) * (end - start - val - test) + ("val",) * val + ("test",) * test)
    return tuple(found)


def fewest(shares: Shares) -> int:
    """Fewer subjects than this leave a part empty."""
    return max(len(block) for block in blocks(shares))


def divide(
    name: str,
    spec: EndpointSection,
    seed: int,
    labels: Mapping[str, int | float],
    strata: Mapping[str, tuple],
    related: Mapping[str, str],
    shares: Shares,
) -> dict[str, str]:
    """Divide subjects within each class, or each quantile bin of a regression, and within its strata.

    Parameters
    ----------
    name : str
        Of the endpoint.
    spec : EndpointSection
    seed : int
    labels : mapping
        Subject to class number or value.
    strata : mapping
        Subject to what is balanced besides.
    related : mapping
        Subject to family, for those who have one.
    shares : tuple of float
        Of train, val and test; 0 for a part that is not drawn.

    Returns
    -------
    dict
        Subject to part.

    Raises
    ------
    DataError
        If there are too few subjects, or families leave nobody of a class in a part.
    """
    units = families_together(labels, related)
    split = {}
    for group, members in _groups(name, spec, labels, units, shares).items():
        drawn = _draw(members, units, labels, strata, f"{seed}/{name}/{group}", shares)
        split |= {subject: part for first, part in drawn.items() for subject in units[first]}
    _check_classes(name, spec, labels, split, [p for p, share in zip(PARTS, shares, strict=True) if share])
    return split


def families_together(labels: Mapping[str, int | float], related: Mapping[str, str]) -> dict[str, list[str]]:
    """Subjects that stay together, by the first of them: families, and everybody else alone."""
    by_family: dict[str, list[str]] = {}
    for subject in sorted(labels):
        # a space: no label holds one
        unit_name = f"family {related[subject]}" if subject in related else subject
        by_family.setdefault(unit_name, []).append(subject)
    return {members[0]: members for members in by_family.values()}


def _groups(
    name: str,
    spec: EndpointSection,
    labels: Mapping[str, int | float],
    units: Mapping[str, list[str]],
    shares: Shares,
) -> dict[str, list[str]]:
    """Groups of units that are split one by one: those of a class, or of a quantile bin.

    A family of several classes is in the group of the rarest of them.
    """
    apart = " of different families" if len(units) < len(labels) else ""
    least = fewest(shares)
    if spec.kind == "regression":
        needed = 2 * least if shares[2] else least  # nothing is said of one test subject
        if len(units) < needed:
            raise DataError(_too_few(name, f"with a label and the scans{apart}", len(units), needed, shares))
        if len(values := set(labels.values())) == 1:
            raise DataError(
                f"endpoint {name}: its label is {min(values):g} for all {len(labels)} subjects: nothing can be predicted"
            )
        mean = {first: sum(labels[s] for s in members) / len(members) for first, members in units.items()}
        ranked = sorted(units, key=lambda first: (mean[first], first))
        n = min(BINS, len(ranked) // least)
        edges = [len(ranked) * i // n for i in range(n + 1)]
        return {f"bin{i}": ranked[edges[i] : edges[i + 1]] for i in range(n)}
    count = Counter(labels.values())
    groups: dict[str, list[str]] = {c.name: [] for c in spec.classes}
    holding = Counter[str]()
    for first, members in units.items():
        found = {labels[s] for s in members}
        rarest = min(found, key=lambda label: (count[label], label))
        groups[spec.classes[int(rarest)].name].append(first)
        holding.update(spec.classes[int(label)].name for label in found)
    for value in groups:
        if holding[value] < least:
            raise DataError(
                _too_few(name, f"of class {value!r} with the scans{apart}", holding[value], least, shares)
            )
    return groups


def _too_few(name: str, what: str, n: int, needed: int, shares: Shares) -> str:
    said = "/".join(f"{share:g}" for share in shares if share)
    return (
        f"endpoint {name}: {n} subject{'' if n == 1 else 's'} {what}, {needed} are needed for a split of {said}: "
        f"look at its column and classes in the config, and at `bhx status`"
    )


def _draw(
    firsts: Sequence[str],
    units: Mapping[str, list[str]],
    labels: Mapping[str, int | float],
    strata: Mapping[str, tuple],
    salt: str,
    shares: Shares,
) -> dict[str, str]:
    """Split units so that every block in the order of their sizes, classes and strata has the parts it should have."""

    def order(first: str) -> tuple:
        members = units[first]
        mixed = sorted({labels[s] for s in members}) if len(members) > 1 else []
        return len(members), len(mixed), mixed, strata[first], unit(salt, first)

    ordered, pattern = sorted(firsts, key=order), blocks(shares)
    split: dict[str, str] = {}
    start, number = 0, 0
    while start < len(ordered):
        block = pattern[number % len(pattern)]
        # a fresh order for each block: else a stratum of one subject would be in the same part for every seed
        slots = sorted(range(len(block)), key=lambda slot: unit(salt, start, slot))
        members = ordered[start : start + len(block)]
        split |= {subject: block[slot] for subject, slot in zip(members, slots, strict=False)}
        start, number = start + len(block), number + 1
    return split


def _check_classes(
    name: str,
    spec: EndpointSection,
    labels: Mapping[str, int | float],
    split: Mapping[str, str],
    parts: Sequence[str],
) -> None:
    """Refuse splits without anybody of a class, which families that stay together can leave."""
    there = {(labels[subject], part) for subject, part in split.items()}
    for number, one in enumerate(spec.classes):
        for part in parts:
            if (number, part) not in there:
                msg = (
                    f"endpoint {name}: families that stay together leave nobody of class {one.name!r} in {part}: "
                    "more families are needed, or another seed"
                )
                raise PartWithoutClass(msg)
