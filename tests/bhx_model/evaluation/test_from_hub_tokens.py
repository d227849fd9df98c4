"""Fine-tuning that a GPU has no memory for, which is pretended."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bhx_model.config import EvaluationConfig
from bhx_model.errors import SiteError
from bhx_model.evaluation import from_hub_tokens
from bhx_model.evaluation.methods import METHODS


@pytest.mark.parametrize(
    ("accumulate", "remedy"),
    [(2, "set the endpoint's finetune.accumulate, now 2, to 4"), (12, "now 12, to 16"), (16, "use a GPU with more memory")],
)  # fmt: skip
def test_a_gpu_that_is_full_is_a_sentence(accumulate: int, remedy: str, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    for name in ("load_trained", "join"):
        monkeypatch.setattr(from_hub_tokens, name, lambda *_: None)
    monkeypatch.setattr(from_hub_tokens, "finetune", full)
    settings = EvaluationConfig(accumulate=accumulate, batch_size=16)
    with pytest.raises(SiteError, match=remedy):
        from_hub_tokens.predict(METHODS["finetune"], Path("fusion"), [], None, settings, 0)  # pyright: ignore[reportArgumentType]
