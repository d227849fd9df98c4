"""Alarms that stop a training: values that are not finite, and collapsed targets."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_model.training.distributed import Processes

logger = logging.getLogger(__name__)

#: Standard deviation of a JEPA's targets over tokens, of which 1 is the most, at which a run stops, or warns: with a
#: target that follows too fast, targets and loss shrink together and nothing is learned. A new model has 0.8, or 0.5 with
#: preset `reference`; collapsed ones hover between 0.02 and 0.07.
COLLAPSED: Final = 0.1
SHRUNK: Final = 0.25
_ADVICE: Final = "check the normaliser, raise train.ema or lower train.lr"


def not_finite_error(step: int, what: str, keys: Sequence[str], run: Path) -> DataError:
    """Say which samples made the `what` of a step, counted from 0, not finite."""
    shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
    return DataError(
        f"the {what} of step {step + 1} is not finite, samples: {shown}; the weights of the last checkpoint in {run} are "
        "intact: check these samples, lower train.lr or set train.clip"
    )


class CollapseAlarm:
    """Stops a JEPA whose targets have collapsed, and warns once when they shrink.

    Parameters
    ----------
    run : Path
        Run folder, for the message.
    processes : Processes
        All of them stop when one sees a collapse.
    """

    def __init__(self, run: Path, processes: Processes):
        self.run, self.processes = run, processes
        self.warned = False

    def check(self, step: int, stats: Mapping[str, float]) -> None:
        """Check what the model reports of a step, counted from 0.

        Raises
        ------
        DataError
            If the targets have collapsed.
        """
        if self.processes.any(collapsed(stats)):
            msg = f"the targets have collapsed at step {step + 1} ({_targets(stats)}): {_ADVICE}; {self.run}"
            raise DataError(msg)
        if self.processes.first and not self.warned and stats.get("target_std", 1.0) < SHRUNK:
            self.warned = True
            logger.warning("the targets shrink (%s), on the way to collapse: %s", _targets(stats), _ADVICE)


def collapsed(stats: Mapping[str, float]) -> bool:
    """Whether a JEPA's targets have become (nearly) the same token everywhere, which makes predicting them easy and useless.

    Targets are standardised over channels, so their standard deviation over tokens would be 1 if nothing were shared.
    """
    return stats.get("target_std", 1.0) < COLLAPSED or stats.get("target_rank", math.inf) < 1.5


def _targets(stats: Mapping[str, float]) -> str:
    return (
        f"standard deviation over tokens {stats['target_std']:.3g}, effective rank {stats['target_rank']:.3g}"
    )
