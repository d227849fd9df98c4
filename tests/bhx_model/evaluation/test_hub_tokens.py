"""Hub tokens of frozen weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from bhx_model.data import token_index
from bhx_model.evaluation.hub_tokens import mean_hub_tokens
from bhx_model.evaluation.labelled_tokens import join
from bhx_model.evaluation.labels import read_labels
from bhx_model.training.trained import load_trained


def test_runs_of_a_subject_are_averaged(trained):
    fusion = load_trained(trained["fusion"], "fusion")
    data = join(read_labels(trained["labels"]), token_index.open_tokens(trained["tokens_town"]))
    device = torch.device("cpu")
    both = mean_hub_tokens(data, fusion, device)
    subject = data.labels.subjects.index("000")
    runs = np.flatnonzero(data.subject == subject)
    assert len(runs) == 2
    singly = []
    for dropped in runs:
        kept = [i for i in range(len(data.runs)) if i != dropped]
        fewer = dataclasses.replace(data, runs=[data.runs[i] for i in kept], subject=data.subject[kept])
        singly.append(mean_hub_tokens(fewer, fusion, device)[subject])
    np.testing.assert_allclose(both[subject], np.mean(singly, axis=0), atol=1e-6)
    assert np.abs(singly[0] - singly[1]).max() > 1e-4
