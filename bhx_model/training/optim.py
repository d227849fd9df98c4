"""AdamW and its parameter groups."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import nn

from bhx_model.errors import DataError

_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


def depth_of(name: str, n_blocks: int) -> int:
    """Depth of an encoder's parameter: 0 before the blocks, 1.. in them, ``n_blocks + 1`` after them.

    What stands before the blocks is known by having no ``blocks.<i>.`` in its name and being neither a
    closing norm nor a head.
    """
    found = _BLOCK.search(name)
    if found:
        return int(found.group(1)) + 1
    return n_blocks + 1 if {"norm", "head"} & set(name.split(".")) else 0


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], *, layer_decay: float = 1.0, n_blocks: int = 0
) -> list[dict]:
    """Group parameters: matrices decay; vectors (biases, norms), learned tokens and positions do not.

    Parameters
    ----------
    named : Iterable[tuple[str, Parameter]]
        Frozen parameters are excluded.
    layer_decay : float
        Factor of the learning rate per layer below the head.
    n_blocks : int
        Blocks of the encoder, if `layer_decay` is not 1.

    Returns
    -------
    list of dict
        With ``params``, ``names``, ``decays`` (bool) and ``lr_scale``.
    """
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        # learned tokens and positions are no matrices that multiply: nothing says they should be small
        decays = parameter.ndim > 1 and name.endswith(".weight")
        depth = depth_of(name, n_blocks) if layer_decay != 1.0 else n_blocks + 1
        group = groups.setdefault(
            (depth, decays),
            {"params": [], "names": [], "decays": decays, "lr_scale": layer_decay ** (n_blocks + 1 - depth)},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def adamw(groups: list[dict], *, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW over `groups`; learning rate and weight decay are set before every step by `set_schedule`."""
    fused = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, weight_decay=0.0, fused=fused)


def set_schedule(optimizer: torch.optim.Optimizer, *, lr: float, weight_decay: float) -> None:
    """Set this step's learning rate and weight decay in all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Collect the optimizer's memory as tensors named ``<parameter>/<what>``."""
    return {
        f"{name}/{what}": value
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for what, value in optimizer.state[parameter].items()
    }


def load_state_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `state_tensors` gave.

    Raises
    ------
    DataError
        If it is the memory of an optimizer over other parameters.
    """
    fields = {name.rsplit("/", 1)[1] for name in tensors}
    wanted = {
        f"{name}/{field}" for group in optimizer.param_groups for name in group["names"] for field in fields
    }
    if wanted != set(tensors):
        odd = sorted(wanted ^ set(tensors))
        msg = f"optimizer state of another model ({len(odd)} entries, e.g. {odd[0]}): remove the run folder"
        raise DataError(msg)
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            memory = {field: tensors[f"{name}/{field}"] for field in fields}
            if any(value.ndim and value.shape != parameter.shape for value in memory.values()):
                msg = f"optimizer state of another model: {name} has another shape: remove the run folder"
                raise DataError(msg)
            # torch keeps the step count on the CPU unless the optimizer is fused
            optimizer.state[parameter] = {
                what: value.to(parameter.device) if value.ndim or group["fused"] else value
                for what, value in memory.items()
            }
