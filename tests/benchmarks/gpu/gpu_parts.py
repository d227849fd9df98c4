"""The parts of the measurement by priority, and their time limits. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gpu_supervise import Part

#: Names of parts that measure a step or count its operations.
STEP = re.compile(r"(?:step|count) of (?P<stage>[a-z-]+), (?P<patches>\d+) patches, (?P<way>.+)")

#: Stages, and the time patches of their runs: UK Biobank's, and as many as the model takes.
SERIES_STAGES = ("function", "fusion", "fine-tuning")
USUAL, MOST = 11, 18


def parts(device: str, learning_s: float) -> list[Part]:
    """All parts, the most important first, since time may run out."""
    gpu = device == "cuda"
    # a CPU may be busy with other work
    found = [Part("machine", 20 if gpu else 120), Part("test-gpu", 110 if gpu else 150)]
    found += [_step("structure", "now", USUAL), *(_step(s, "now", USUAL) for s in ("function", "fusion"))]
    if gpu:  # PyTorch's compiler of CPUs takes minutes and says nothing of GPUs
        found += [_step(s, "now, compiled", USUAL, 60) for s in ("structure", "function", "fusion")]
    found += [_step("fusion", "before", USUAL), _step("function", "before", USUAL)]
    found += [_step(s, "published", USUAL) for s in ("structure", "function", "fusion")]
    found += [_step("fine-tuning", way, USUAL) for way in ("now", "published")]
    found += [Part("embedding", 30), Part("draw", 40), Part("reading", 60)]
    found += [Part(f"training of {s}", 40) for s in ("structure", "function")]
    found += [Part("tokens", 40), Part("training of fusion", 40)]
    found += [_step(s, "now", MOST) for s in SERIES_STAGES]
    found += [_step("fusion", "before", MOST)]
    if gpu:
        found += [_step(s, "now, compiled", MOST, 45) for s in ("function", "fusion")]
        found += [Part("training of function, mixed repetition times, compiled", 60)]
    found += [_step(s, "published", MOST) for s in SERIES_STAGES]
    found += [Part(f"operations of {s}", 25 if gpu else 120) for s in ("structure", "function", "fusion")]
    found += [_step("fusion", "modality_attention: tokens", n) for n in (USUAL, MOST)]
    return [*found, Part("learning", learning_s)] if learning_s else found


def _step(stage: str, way: str, patches: int, limit_s: float = 30) -> Part:
    return Part(f"step of {stage}, {patches} patches, {way}", limit_s)


def counts(chosen: Iterable[Part]) -> list[Part]:
    """Counts of the operations of these steps; all of this code's ways need the same."""
    steps = [found for part in chosen if (found := STEP.fullmatch(part.name))]
    ways = [(s["stage"], s["patches"], "published" if s["way"] == "published" else "now") for s in steps]
    return [
        Part(f"count of {stage}, {patches} patches, {way}", 60) for stage, patches, way in dict.fromkeys(ways)
    ]
