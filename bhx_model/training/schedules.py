"""Schedules as pure functions of the step, so that a resumed run needs only its number. Needs no torch."""

from __future__ import annotations

import math
from typing import Final

#: Share of its random start above which a target encoder has hardly moved: that is most of what is read downstream.
MOST_OF_START: Final = 0.5


def cosine(step: int, *, steps: int, start: float, end: float) -> float:
    """Half a cosine from `start` at step 0 to `end` at step `steps`, and `end` after that."""
    done = min(step / steps, 1.0) if steps > 0 else 1.0
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * done))


def warmup_cosine(step: int, *, steps: int, warmup: int, peak: float, end: float) -> float:
    """Learning rate: linear up to `peak` over the first `warmup` steps, then half a cosine down to `end`.

    The last of `steps` updates, number ``steps - 1``, is one step short of `end`.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return cosine(step - warmup, steps=steps - warmup, start=peak, end=end)


def linear(step: int, *, steps: int, start: float, end: float) -> float:
    """Straight line from `start` at step 0 to `end` at step `steps`, and `end` after that."""
    done = min(step / steps, 1.0) if steps > 0 else 1.0
    return start + (end - start) * done


def share_of_start(steps: int, momenta: tuple[float, float]) -> float:
    """Share of its first weights that a moving average of weights still holds after `steps` updates.

    The product of all momenta, which run along `linear`: weights that are averaged with momentum m keep m of what they
    were.

    Parameters
    ----------
    steps
        Updates.
    momenta
        At the first step and, one step after the last, at the end: `train.ema`.
    """
    start, end = momenta
    return math.prod(linear(step, steps=steps, start=start, end=end) for step in range(steps))
