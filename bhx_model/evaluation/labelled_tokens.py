"""The cached tokens of subjects with labels, and reading them in batches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from bhx_model.data import loader, token_index
from bhx_model.data.batch import Batch
from bhx_model.data.shards import Index, Sample
from bhx_model.errors import DataError
from bhx_model.evaluation.labels import Labels
from bhx_model.training.trained import Trained


@dataclasses.dataclass(frozen=True)
class LabelledTokens:
    """Subjects with tokens and labels."""

    labels: Labels
    runs: list[tuple[Sample, Sample]]
    """Tokens of function and structure."""
    subject: np.ndarray
    """(runs,) number of the subject of each run."""
    n_rois: int
    excluded: list[dict[str, str]]
    """Subjects with a label but without tokens, and why."""

    def patches(self, run: int) -> int:
        """Time patches of a run."""
        return self.runs[run][0].n_tokens // self.n_rois

    def equal_batches(self, subjects: np.ndarray, size: int = 16) -> list[list[list[int]]]:
        """Cut the runs of `subjects`, (n,) bool, into batches of equally many patches, each of a single group."""
        by_patches: dict[int, list[int]] = {}
        for run in map(int, np.flatnonzero(subjects[self.subject])):
            by_patches.setdefault(self.patches(run), []).append(run)
        return [[runs[i : i + size]] for runs in by_patches.values() for i in range(0, len(runs), size)]

    def read(self, batches: Sequence[Sequence[Sequence[int]]]) -> Iterator[list[tuple[list[int], Batch]]]:
        """Read batches ahead of their use.

        Parameters
        ----------
        batches : sequence
            Of batches; each is a sequence of groups of runs, which have equally many patches within a group.

        Yields
        ------
        list
            For each group of a batch, its runs and their tokens.
        """

        def load(batch: Sequence[Sequence[int]]) -> list[tuple[list[int], Batch]]:
            return [(list(runs), self._load(runs)) for runs in batch]

        return loader.in_order((functools.partial(load, batch) for batch in batches), workers=1, ahead=2)

    def _load(self, runs: Sequence[int]) -> Batch:
        chosen = [self.runs[run] for run in runs]
        tensors = token_index.read_pairs(chosen, self.n_rois)
        keys = [function.key for function, _ in chosen]
        return Batch(keys, tensors, n_patches=self.patches(runs[0])).pin()


def join(labels: Labels, *tokens: Index) -> LabelledTokens:
    """Bring labels and tokens together; subjects without tokens are excluded.

    Parameters
    ----------
    labels : Labels
    *tokens : Index
        Of every cohort of the labels.

    Raises
    ------
    DataError
        If they are of different cohorts or encoders, or no subject of a split has tokens.
    """
    there = [cache.cohort for cache in tokens]
    if absent := [cohort for cohort in labels.all_cohorts if cohort not in there]:
        msg = f"labels of cohort {absent[0]}, tokens of {', '.join(there)}: name the tokens of the former"
        raise DataError(msg)
    by_person: dict[str, list[tuple[Sample, Sample]]] = {}
    for cache in tokens:
        for pair in token_index.pairs(cache):
            by_person.setdefault(pair[0].subject, []).append(pair)
    kept = labels.keep(by_person.keys())
    kept.check_splits(f"tokens: see what {', '.join(str(cache.path) for cache in tokens)} excludes")
    runs = [(pair, number) for number, person in enumerate(kept.people) for pair in by_person[person]]
    return LabelledTokens(
        labels=kept,
        runs=[pair for pair, _ in runs],
        subject=np.array([number for _, number in runs]),
        n_rois=token_index.fusion_inputs(tokens).rois,
        excluded=[
            {"subject": subject, "reason": "no tokens: a modality is missing"}
            for subject, person in zip(labels.subjects, labels.people, strict=True)
            if person not in by_person
        ],
    )


def fusion_arguments(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Structure and function tokens and the number of time patches: what the fusion's encoder takes."""
    tensors = batch.to(device).tensors
    return tensors["structure"].float(), tensors["function"].float(), batch.n_patches


def autocast(trained: Trained, device: torch.device) -> torch.autocast:
    """Compute in the precision in which the stage was trained."""
    return torch.autocast(device.type, torch.bfloat16, enabled=trained.config.train.amp == "bf16")
