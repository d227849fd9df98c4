"""Checkpoints of a training run: complete, and written so that a kill at any moment keeps the last good one.

A run folder holds ``step-0000100/{model.safetensors, optim.safetensors, state.json, sha256.json}``. A checkpoint is
written under another name and renamed, so a folder of that form is whole; what happens to it later, the hashes show.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from bhx_model.atomic_write import atomic_write, read_json, write_json
from bhx_model.errors import DataError
from bhx_model.training import checkpoint_folder, optim
from bhx_model.training.checkpoint_folder import folder, steps
from bhx_model.training.checkpoint_writer import Writing
from bhx_model.training.distributed import ALONE, Processes

logger = logging.getLogger(__name__)


def save(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    keep_every: int,
) -> Path:
    """Write a checkpoint and remove old ones: the last two and every `keep_every`-th step stay.

    Parameters
    ----------
    run : Path
        Run folder.
    step : int
        Updates done.
    model, optimizer
        Their tensors are saved whole, the target encoder's too.
    state : dict
        What else it takes to resume, as JSON.
    keep_every : int
        Keep checkpoints at multiples of it for ever.

    Raises
    ------
    SiteError
        If the disk is full, or fails; the checkpoints before are intact.
    """
    final = folder(run, step)
    try:
        with checkpoint_folder.write_folder(final) as place:
            save_tensors(model.state_dict(), place / "model.safetensors")
            save_tensors(optim.state_tensors(optimizer), place / "optim.safetensors")
            write_json(place / "state.json", {**state, "step": step})
    except OSError as error:
        raise checkpoint_folder.not_saved(run, step, error) from error
    checkpoint_folder.remove_old(run, keep_every)
    return final


def save_by_another(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    keep_every: int,
) -> Writing:
    """Have another process write a checkpoint while this one continues or ends; parameters as of `save`."""
    files = {
        "model.safetensors": safetensors.torch.save(_whole(model.state_dict())),
        "optim.safetensors": safetensors.torch.save(_whole(optim.state_tensors(optimizer))),
        "state.json": json.dumps({**state, "step": step}, allow_nan=False).encode(),
    }
    return Writing(run, step, files, keep_every)


def load_last(
    run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, processes: Processes = ALONE
) -> tuple[int, dict[str, Any]]:
    """Load the last checkpoint that is whole, and return its step and state; 0 and nothing where there is none.

    One that is damaged, for any of the processes, is passed over by all for the one before, with a warning, and renamed.

    Raises
    ------
    DataError
        If there are checkpoints and all are damaged. A run never starts from 0 in silence.
    """
    damaged: list[int] = []
    why = "another process cannot read them"
    for step in reversed(steps(run)):
        state: dict[str, Any] | None = None
        try:
            state = load(run, step, model, optimizer)
        except DataError as error:
            logger.warning("%s; trying the checkpoint before", error)
            why = str(error)
        if not processes.any(state is None) and state is not None:
            for other in damaged if processes.first else []:
                logger.warning("the damaged checkpoint is now %s", checkpoint_folder.set_aside(run, other))
            return step, state
        damaged.append(step)
    if damaged:
        msg = f"no checkpoint in {run} can be loaded ({why}): remove the folder to train from the start"
        raise DataError(msg)
    return 0, {}


def load(run: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put the checkpoint after `step` updates into `model` and `optimizer`, and return the rest of its state.

    Raises
    ------
    DataError
        If a file is broken or belongs to another model or step. A run never starts from 0 in silence.
    """
    place = folder(run, step)
    checkpoint_folder.check(place)
    load_weights(model, place / "model.safetensors")
    optim.load_state_tensors(optimizer, read_tensors(place / "optim.safetensors"))
    remedy = f"the checkpoint is broken, remove {place} to resume from the one before"
    try:
        state = read_json(place / "state.json", remedy)
    except OSError as error:
        msg = f"{place / 'state.json'} cannot be read ({error.strerror}): {remedy}"
        raise DataError(msg) from error
    if state.get("step") != step:
        msg = f"{place / 'state.json'} is of step {state.get('step')}: {remedy}"
        raise DataError(msg)
    return state


def load_weights(model: nn.Module, path: Path) -> None:
    """Load all of a model's tensors from a file, which must hold these and no others.

    Raises
    ------
    DataError
        Naming what does not fit.
    """
    tensors = read_tensors(path)
    own = model.state_dict()
    missing, foreign = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    other = sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape)
    if missing or foreign or other:
        counts = f"{len(missing)} missing, {len(foreign)} unknown, {len(other)} of another shape"
        example = (missing + foreign + other)[0]
        msg = f"{path} holds weights of another configuration ({counts}, e.g. {example}): use that one"
        raise DataError(msg)
    model.load_state_dict(tensors, strict=True)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of tensors.

    Raises
    ------
    DataError
        If there is none, or it is broken.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        msg = f"there are no weights at {path}: train the stage first"
        raise DataError(msg) from error
    except (OSError, SafetensorError) as error:
        msg = f"{path} is broken ({error}): remove it and make it again"
        raise DataError(msg) from error


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors as safetensors; they are on the disk when it returns.

    Raises
    ------
    OSError
        If the disk is full, or fails.
    """
    with atomic_write(path, durable=True) as part:
        try:
            save_file(_whole(tensors), part)
        except SafetensorError as error:
            found = re.search(r"os error (\d+)", str(error))
            if found is None:
                raise
            number = int(found.group(1))
            raise OSError(number, os.strerror(number), str(path)) from error


def _whole(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors on the CPU, one by one: those that share memory (a target that starts as its encoder) are copied."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen: dict[int, str] = {}
    for name, tensor in whole.items():
        if tensor.numel() and seen.setdefault(tensor.data_ptr(), name) != name:
            whole[name] = tensor.clone()
    return whole
