"""The control of a trained encoder: its own initial weights."""

from __future__ import annotations

from typing import cast

import torch

from bhx_model.config import FunctionConfig
from bhx_model.errors import DataError
from bhx_model.nets.factory import build_model
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.training.trained import Trained


def untrained_function(trained: Trained) -> FunctionJEPA:
    """The model of a trained function stage with the weights of before its first step.

    Weights are drawn again from the seed of the training, as it drew them; buffers (normaliser, gradients and harmonics,
    fitted connectivity) are those of the trained model, which no step changes. Of a converted checkpoint the seed is not
    known, nor was it initialised by this code, and an export need not state it: the control is then a random start of the
    same configuration, from seed 0.

    Parameters
    ----------
    trained : Trained
        Of the function stage.

    Raises
    ------
    DataError
        If its ``run.json`` states no seed.
    """
    seed = trained.run.get("seed", 0 if {"converted_from", "given"} & trained.run.keys() else None)
    if not isinstance(seed, int):
        msg = "run.json of the function stage states no seed, so its untrained weights are not known: train it again"
        raise DataError(msg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(cast(FunctionConfig, trained.config.model), trained.run["model_metadata"])
    buffers = dict(trained.model.named_buffers())
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return cast(FunctionJEPA, model.eval().requires_grad_(False))
