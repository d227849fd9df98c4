"""Synthetic subjects like the demo's, without its data packages. Imports no torch: many processes draw."""

# Shapes: R ROIs, T frames

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import os
from unittest import mock

import numpy as np

from bhx_prep.demo import series

NETWORKS, SCANNERS = 17, ((0.735, 490), (2.0, 180))
#: Pairs of networks, and how much a patient's or a standard deviation of the score changes their correlation.
OF_GROUP = ((0, 1, -0.22), (2, 2, 0.18))
OF_SCORE = ((3, 4, 0.14),)


@dataclasses.dataclass(frozen=True)
class People:
    """People: their series, and what is planted in them."""

    runs: list[tuple[float, np.ndarray]]
    """Repetition time (s) and series (R, T) of each."""
    patient: np.ndarray
    score: np.ndarray


@functools.cache
def networks(n_rois: int) -> np.ndarray:
    """Network of every ROI, (R,): as many neighbours as there are ROIs of a network in each hemisphere."""
    return np.arange(n_rois) * 2 * NETWORKS // n_rois % NETWORKS


@functools.cache
def mean_connectivity(n_rois: int) -> np.ndarray:
    """Correlations (R, R) that all people share: networks that go together more or less, alike in both hemispheres."""
    random, of = np.random.default_rng(0), networks(n_rois)
    loadings = random.standard_normal((NETWORKS, 6))
    between = 0.25 * np.tanh(loadings @ loadings.T / 3)
    np.fill_diagonal(between, 0.45)
    parcels = 0.15 * random.standard_normal((n_rois, 8))
    return series.as_correlation(between[np.ix_(of, of)] + parcels @ parcels.T)


def _draw(n_rois: int, seed: int, person: tuple[int, float, float]) -> tuple[float, np.ndarray]:
    """Repetition time (s) and series (R, T) of a person: number, patient or not, score."""
    number, patient, score = person
    own, of = np.random.default_rng([seed, number]), networks(n_rois)
    matrix = mean_connectivity(n_rois)
    for planted, dose in ((OF_GROUP, patient), (OF_SCORE, score)):
        for a, b, by in planted if dose else ():
            matrix = series.shift_coupling(matrix, of == a, of == b, by * dose)
    matrix = series.individual(own, series.as_correlation(matrix))
    tr_s, frames = SCANNERS[number % 2]
    hertz = np.linspace(0, 0.7, 200)
    spectrum = (hertz, np.where(hertz < 0.1, 1 / (1 + (hertz / 0.02) ** 2), 0.0))
    return tr_s, (9000 * (1 + 0.006 * series.draw(own, matrix, frames, tr_s, spectrum))).astype(np.float32)


def draw(n: int, seed: int, n_rois: int, planted: bool) -> People:
    """Draw `n` people of both scanners; without anything planted they are patients no more than others.

    Every process has one thread, and there are as many as cores.
    """
    random = np.random.default_rng([seed, n])
    patient = (np.arange(n) // 2 % 2) * planted
    score = random.standard_normal(n) * planted
    people = [(number, float(patient[number]), float(score[number])) for number in range(n)]
    one = functools.partial(_draw, n_rois, seed)
    if n_rois * n < 10_000:  # other processes would take longer to start
        return People([one(person) for person in people], patient, score)
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with mock.patch.dict(os.environ, single):
        pool = multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0)))
    with pool:
        return People(pool.map(one, people, chunksize=4), patient, score)
