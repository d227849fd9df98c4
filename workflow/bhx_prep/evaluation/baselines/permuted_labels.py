"""Permuted labels of the training and validation subjects, as the chance baseline."""

from __future__ import annotations

import dataclasses

import numpy as np

from bhx_model.evaluation.labels import Labels


def permute(labels: Labels) -> Labels:
    """Permute the labels within the training and within the validation subjects, so that each keeps its classes.

    The permutation follows from the seed of the split. Labels of the test subjects stay as they are.
    """
    rng, target = np.random.default_rng([labels.seed, 1]), labels.target.copy()
    for split in ("train", "val"):
        there = labels.of(split)
        target[there] = rng.permutation(target[there])
    return dataclasses.replace(labels, target=target)
