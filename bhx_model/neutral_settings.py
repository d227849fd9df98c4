"""Settings of a training that change no result, which no run is named by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Settings that change no weight beyond the rounding of sums: a run goes on, or is finished, whatever they are.
RESULT_NEUTRAL: Final = {
    "model": ("checkpointing",),
    "train": ("accumulate", "compile", "save_every", "keep_every", "log_every"),
}


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's configuration, as `StageConfig.to_dict` gives it, without the settings that change no result."""
    return {
        part: {k: v for k, v in values.items() if k not in RESULT_NEUTRAL.get(part, ())}
        if isinstance(values, Mapping)
        else values
        for part, values in config.items()
    }
