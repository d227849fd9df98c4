"""Synthetic subjects with T1 and series like the demo's, whose planted effects are known per modality.

Four labels, drawn independently of each other at both sites: `function` is planted in the series alone and `structure` in
the T1 alone, with the demo's differences between patients and controls; `both` says whether the sum of two independent
scores is above 0, of which one is planted in the series and the other in the T1, with the demo's effects of its score, in
the T1 enlarged; `none` is planted nowhere. `permuted` is `both` after a permutation of the people. These two are taken as
they are drawn: a label that was chosen to go together with nothing in the sample is found below chance, since what goes
together by chance in the people trained on is then the reverse in the others.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bhx_prep.demo import folder, head, timeseries
from bhx_prep.demo.chance import generator
from bhx_prep.demo.standard import draw_t1, write_t1
from bhx_prep.demo.timeseries import Scanner, SeriesSubject

#: Cohorts: people with labels, and people without any, for the pretraining.
PEOPLE, UNLABELLED = "people", "unlabelled"
ENDPOINTS = ("function", "structure", "both", "none", "permuted")
#: So many times the demo's effect of its score is planted in the T1 for `both`: the demo's is read far less well than that
#: in the series (AUC .60 against .81), and a fusion can add little from a half that hardly shows.
T1_SCORE = 3.0
#: Classes of every endpoint.
CLASSES = ("no", "yes")


@dataclass(frozen=True)
class Person:
    """A person and what is planted in each modality."""

    label: str
    scanner: Scanner
    series: tuple[int, float] = (0, 0.0)
    """Patient or not, and the score, as the series have them."""
    t1: tuple[int, float] = (0, 0.0)
    """The same, as the T1 has them."""

    def seen_by(self, planted: tuple[int, float]) -> SeriesSubject:
        """The demo's subject in whom this is planted."""
        return SeriesSubject(self.label, self.scanner, *planted)


def draw_labels(seed: int, n: int) -> tuple[list[Person], dict[str, np.ndarray]]:
    """People and their labels, 0 or 1, by the name of the endpoint.

    `function`, `structure` and `none` have as many 0 as 1 at each site, up to one; `permuted` has as many 1 as `both`.
    """
    random = generator(seed, PEOPLE, "labels")
    site = np.arange(n) % 2
    # the third is not used: without it the scores, hence all images, would be others
    function, structure, _ = (balanced(random, site) for _ in range(3))
    scores = random.standard_normal((2, n))
    both = (scores.sum(axis=0) > 0).astype(int)
    none = balanced(generator(seed, PEOPLE, "none"), site)
    permuted = generator(seed, PEOPLE, "permuted").permutation(both)
    people = [
        Person(
            f"p{i + 1:03d}",
            timeseries.PATIENTS_SCANNERS[site[i]],
            (int(function[i]), float(scores[0, i])),
            (int(structure[i]), T1_SCORE * float(scores[1, i])),
        )
        for i in range(n)
    ]
    labels = {"function": function, "structure": structure, "both": both, "none": none, "permuted": permuted}
    return people, labels


def balanced(random: np.random.Generator, site: np.ndarray) -> np.ndarray:
    """A label, (n,) 0 or 1, that has as many of both at each site."""
    label = np.empty(len(site), int)
    for one in np.unique(site):
        members = np.flatnonzero(site == one)
        label[random.permutation(members)] = np.arange(len(members)) % 2
    return label


def draw_person(root: Path, stream: str, seed: int, person: Person) -> None:
    """Write a person's series and T1."""
    series = timeseries.draw_series(stream, seed, person.seen_by(person.series))
    timeseries.write_series(root, person.seen_by(person.series), "rest", series)
    grid = head.standard_grid(2.0)
    planted = timeseries.subject_structure(person.seen_by(person.t1))
    write_t1(root, person.label, grid, *draw_t1(generator(seed, stream, person.label, "t1w"), grid, planted))


def draw_cohort(
    root: Path, seed: int, people: Sequence[Person], labels: dict[str, np.ndarray], jobs: int
) -> None:
    """Write a cohort with a table of its labels, several people at a time."""
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        pool.map(functools.partial(draw_person, root, root.name, seed), people, chunksize=4)
    columns = {name: [CLASSES[value] for value in values] for name, values in labels.items()}
    folder.write_participants(
        root,
        generator(seed, root.name, "participants"),
        [person.label for person in people],
        {"site": [person.scanner.site for person in people], **columns},
    )
    folder.describe(root, root.name, "Drawn as the demo's.", derivative=True, version="0")


def draw(place: Path, seed: int, n: int, n_unlabelled: int, jobs: int) -> None:
    """Write both cohorts into `place`; a cohort that is complete there stays."""
    people, labels = draw_labels(seed, n)
    without = [Person(s.label, s.scanner) for s in timeseries.pretraining_subjects(n_unlabelled)]
    for name, cohort, columns in ((PEOPLE, people, labels), (UNLABELLED, without, {})):
        if not (place / name / "dataset_description.json").exists():
            draw_cohort(place / name, seed, cohort, columns, jobs)
