"""How far a JEPA's target encoder, which is used downstream, has moved from its initial weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.training import schedules
from bhx_model.training.stages import Stage

logger = logging.getLogger(__name__)


def share_of_start(stage: Stage) -> float | None:
    """Share of its random start that the target holds at the end, by the schedule; None of a stage without a target."""
    t = stage.config.train
    return None if t.ema is None else schedules.share_of_start(t.steps, t.ema)


def warn_of_still_target(stage: Stage) -> None:
    """Log one warning if the schedule lets the target move less than half the way."""
    t, share = stage.config.train, share_of_start(stage)
    if t.ema is not None and share is not None and share > schedules.MOST_OF_START:
        logger.warning(
            "the target encoder, which is what is used downstream, keeps %.0f %% of its random start over %d steps: lower"
            " train.ema, now %g to %g, or raise train.steps",
            100 * share,
            t.steps,
            *t.ema,
        )


def describe_target(stage: Stage, model: nn.Module) -> dict[str, float] | None:
    """Measure how far target and encoder have moved; None of a stage without a target.

    The start is built again from the seed, so that a resumed run knows it, too.

    Returns
    -------
    dict
        ``share_of_start`` by the schedule, see `share_of_start`; ``moved`` and ``encoder_moved``: the distance of the
        weights of target and encoder from the start, over the length of the start.
    """
    share = share_of_start(stage)
    if share is None:
        return None
    model = cast(FunctionJEPA, model)
    torch.manual_seed(stage.seed)
    start = cast(FunctionJEPA, stage.build()).target
    return {
        "share_of_start": share,
        "moved": distance(model.target, start),
        "encoder_moved": distance(model.encoder, start),
    }


@torch.no_grad()
def distance(model: nn.Module, start: nn.Module) -> float:
    """Length of the difference between two models' weights, over that of the second's."""
    pairs = list(zip(model.parameters(), start.parameters(), strict=True))
    moved = sum(float((one.cpu().double() - other.cpu().double()).square().sum()) for one, other in pairs)
    length = sum(float(other.double().square().sum()) for _, other in pairs)
    return (moved / length) ** 0.5


def keeps_most_of_start(run: Mapping[str, Any]) -> bool:
    """Whether ``run.json`` says that the target kept more than half of its random start."""
    target = run.get("target")
    return bool(target) and target["share_of_start"] > schedules.MOST_OF_START
