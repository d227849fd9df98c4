"""What the exchange of gradients relies on: parameters that all take part, and one exchange a step."""

from __future__ import annotations

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from bhx_model.training import distributed, loop, stages, train

CPU = torch.device("cpu")


@pytest.fixture
def opened(trained):
    """A stage and its model."""

    def open_one(stage, changes):
        sources = stages.Sources(
            shards=[trained["town"], trained["ward"]], split=trained["split"], rois=trained["rois"],
            tokens=[trained["tokens_town"], trained["tokens_ward"]], structure=trained["structure"],
            function=trained["function"],
        )  # fmt: skip
        one = stages.open_stage(train.load_preset(stage, "tiny").override(changes), sources, 0)
        return one, one.build()

    return open_one


REFERENCE_FUSION = {
    "model.inputs": "online", "model.loss_tokens": "all", "model.cls_bypass": True, "model.modality_embedding": False,
    "model.hub_start": "learned", "model.decoder": "joint",
}  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("structure", {}),
        ("function", {}),
        ("function", {"model.connectivity_weight": 0.0, "model.whitening_weight": 0.0}),
        (
            "function",
            {"model.connectivity_code": 0, "model.connectivity_weight": 0.0, "model.gradients": False},
        ),
        ("function", {"model.harmonics": "none"}),
        ("fusion", {}),
        ("fusion", {"model.modality_attention": "tokens", "model.hub_start": "learned"}),
        ("fusion", REFERENCE_FUSION),
    ],
)
def test_every_parameter_takes_part_in_every_step(opened, stage, changes):
    """Else processes would have to search for those that do not, in every step."""
    one, model = opened(stage, changes)
    parts, weights = loop.rank_share(one, 0, distributed.ALONE)
    loop.backward(model, one, parts, weights, distributed.ALONE)
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("accumulate", [1, 4])
def test_gradients_are_exchanged_once_a_step(opened, accumulate):
    one, model = opened("structure", {"train.accumulate": accumulate})
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        exchanged = []

        def exchange(state, bucket):
            exchanged.append(bucket.is_last())
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        objective = DistributedDataParallel(model)
        objective.register_comm_hook(None, exchange)
        parts, weights = loop.rank_share(one, 0, distributed.ALONE)
        assert len(parts) == accumulate
        loop.backward(objective, one, parts, weights, distributed.ALONE)
        assert exchanged.count(True) == 1
    finally:
        torch.distributed.destroy_process_group()
