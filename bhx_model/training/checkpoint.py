"""Checkpoints of a training run: complete, written so that a kill at any moment leaves the last good one.

A run folder holds ``step-0000100/{model.safetensors, optim.safetensors, state.json}``. A checkpoint is
written under another name and renamed, so a folder of that form is whole.
"""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from bhx_model.atomic_write import atomic_write, read_json, sync, write_json
from bhx_model.errors import DataError
from bhx_model.training import optim

logger = logging.getLogger(__name__)

_STEP = re.compile(r"step-(\d{7,})")
_UNFINISHED = ".unfinished-"


def steps(run: Path) -> list[int]:
    """List the steps of the checkpoints in a run folder, rising."""
    if not run.is_dir():
        return []
    return sorted(int(found.group(1)) for entry in run.iterdir() if (found := _STEP.fullmatch(entry.name)))


def folder(run: Path, step: int) -> Path:
    """Name the folder of the checkpoint after `step` updates."""
    return run / f"step-{step:07d}"


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
    """
    final = folder(run, step)
    unfinished = run / f"{_UNFINISHED}{final.name}"
    for killed in run.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(killed)
    unfinished.mkdir(parents=True)
    save_tensors(model.state_dict(), unfinished / "model.safetensors")
    save_tensors(optim.state_tensors(optimizer), unfinished / "optim.safetensors")
    write_json(unfinished / "state.json", {**state, "step": step})
    sync(unfinished)
    if final.exists():
        shutil.rmtree(final)
    unfinished.replace(final)
    sync(run)
    for old in steps(run)[:-2]:
        if old % keep_every:
            shutil.rmtree(folder(run, old))
    return final


def load_last(run: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
    """Load the last checkpoint that is whole, and return its step and state; 0 and nothing where there is none.

    One that is damaged is passed over for the one before, with a warning.

    Raises
    ------
    DataError
        If there are checkpoints and all are damaged. A run never starts from 0 in silence.
    """
    damaged: DataError | None = None
    for step in reversed(steps(run)):
        try:
            return step, load(run, step, model, optimizer)
        except DataError as error:
            logger.warning("%s; trying the checkpoint before", error)
            damaged = error
    if damaged is not None:
        msg = f"no checkpoint in {run} can be loaded ({damaged}): remove the folder to train from the start"
        raise DataError(msg)
    return 0, {}


def load(run: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put the checkpoint after `step` updates into `model` and `optimizer`, and return the rest of its state.

    Raises
    ------
    DataError
        If a file is broken or belongs to another model. A run never starts from 0 in silence.
    """
    place = folder(run, step)
    load_weights(model, place / "model.safetensors")
    optim.load_state_tensors(optimizer, read_tensors(place / "optim.safetensors"))
    remedy = f"the checkpoint is broken, remove {place} to resume from the one before"
    try:
        return read_json(place / "state.json", remedy)
    except OSError as error:
        msg = f"{place / 'state.json'} cannot be read ({error.strerror}): {remedy}"
        raise DataError(msg) from error


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
    """Write tensors as safetensors; they are on the disk when it returns."""
    # tensors that share memory (a target that starts as its encoder) are written out one by one
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen: dict[int, str] = {}
    for name, tensor in whole.items():
        if tensor.numel() and seen.setdefault(tensor.data_ptr(), name) != name:
            whole[name] = tensor.clone()
    with atomic_write(path, durable=True) as part:
        save_file(whole, part)
