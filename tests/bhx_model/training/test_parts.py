"""Parts of a batch that fit in the memory of a GPU, which is pretended."""

from __future__ import annotations

import logging

import pytest
import torch

from bhx_model import gpu_memory
from bhx_model.config import load_preset, stage_from_dict
from bhx_model.errors import ConfigError
from bhx_model.gpu_memory import GIB
from bhx_model.training import parts, stages, train
from bhx_model.training.distributed import ALONE, Processes

EIGHT = Processes(0, 8, torch.device("cpu"))


def opened(trained, stage, **changes):
    sources = stages.Sources(
        shards=[trained["town"], trained["ward"]], split=trained["split"], rois=trained["rois"],
        tokens=[trained["tokens_town"], trained["tokens_ward"]], structure=trained["structure"],
        function=trained["function"],
    )  # fmt: skip
    config = load_preset(stage, "tiny").override(
        {"train.accumulate": "auto", "train.batch_size": 16, **changes}
    )
    return stages.open_stage(config, sources, 0)


@pytest.mark.parametrize("stage", ["structure", "function", "fusion"])
def test_auto_becomes_as_few_parts_as_fit(trained, stage, caplog):
    about = opened(trained, stage)
    need = gpu_memory.need(about.config, parts.sizes(about))
    for samples, expected in ((16, 1), (15, 2), (4, 4), (1, 16)):
        again = opened(trained, stage)
        with caplog.at_level(logging.INFO):
            parts.settle(again, ALONE, (need.of(samples) + 1) / gpu_memory.USABLE)
        assert again.config.train.accumulate == expected
    assert f"{stage}: train.accumulate 16, 1 samples at a time" in caplog.text
    assert "may not be enough" not in caplog.text
    parts.settle(about, EIGHT, 80 * GIB)
    assert about.config.train.accumulate == 1


def test_a_number_is_kept_and_one_that_is_too_small_is_said(trained, caplog):
    about = opened(trained, "structure", **{"train.accumulate": 2})
    need = gpu_memory.need(about.config, parts.sizes(about))
    parts.settle(about, ALONE, (need.of(4) + 1) / gpu_memory.USABLE)
    assert about.config.train.accumulate == 2
    assert "then set train.accumulate to 4, and start again" in caplog.text
    hopeless = opened(trained, "structure")
    parts.settle(hopeless, ALONE, need.fixed / 2)
    assert hopeless.config.train.accumulate == 16
    assert "then set model.checkpointing to true" in caplog.text


def test_sizes_are_those_of_the_data(trained):
    of = {stage: parts.sizes(opened(trained, stage)) for stage in ("structure", "function", "fusion")}
    assert of["structure"].grid == opened(trained, "structure").grid
    function = opened(trained, "function")
    longest = max(
        function.bucket(n, epoch)[1] for n in range(function.n_train) for epoch in (None, *range(20))
    )
    assert longest <= of["function"].patches <= longest + 1
    inputs = opened(trained, "fusion").fusion_inputs
    assert (of["fusion"].rois, of["fusion"].structure_tokens) == (inputs.rois, inputs.structure_tokens)
    online = parts.sizes(opened(trained, "fusion", **{"model.inputs": "online"}))
    assert online == of["fusion"]


def test_on_a_cpu_a_batch_is_not_cut(trained):
    about = opened(trained, "structure")
    parts.settle(about, ALONE, parts.memory(ALONE))
    assert about.config.train.accumulate == 1


def test_a_gpu_that_is_full_is_a_sentence(trained, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(train, "train_loop", full)
    words = ["--stage", "structure", "--preset", "tiny", "--shards", trained["town"], "--split", trained["split"],
             "--rois", trained["rois"], "--run-root", tmp_path / "runs", "--out", tmp_path / "out"]  # fmt: skip
    assert train.main([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert "the GPU's memory is full: set train.accumulate, now 1, to 2; the training goes on" in said
    assert "Traceback" not in said


def test_a_compiler_that_fails_is_a_sentence(trained, tmp_path, monkeypatch, capsys):
    """Here there is none for what PyTorch's compiler generates; on a GPU it may fail of itself."""
    from torch import _dynamo, _inductor

    _dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    words = ["--stage", "structure", "--preset", "tiny", "--shards", trained["town"], "--split", trained["split"],
             "--rois", trained["rois"], "--run-root", tmp_path / "runs", "--out", tmp_path / "out",
             "--set", '{"train.compile": true}']  # fmt: skip
    with _inductor.config.patch({"cpp.cxx": (None, "/nonexistent/c++")}):
        assert train.main([str(word) for word in words]) == 1
    _dynamo.reset()
    said = capsys.readouterr().err
    assert "cannot compile the network here (InvalidCxxCompiler" in said
    assert "set train.compile to false; the training goes on from its last checkpoint" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("checkpointing", "remedy"),
    [(False, "set model.checkpointing to true"), (True, "use GPUs with more memory, or a smaller preset")],
)
def test_where_a_batch_cannot_be_cut_further_something_else_is_to_be_done(trained, checkpointing, remedy):
    changes = {"train.batch_size": 4, "train.accumulate": 4, "model.checkpointing": checkpointing}
    assert remedy in str(parts.out_of_memory(opened(trained, "structure", **changes)))


@pytest.mark.parametrize("value", ["many", 0, True, None, 1.5])
def test_parts_are_a_number_or_auto(value):
    raw = load_preset("structure", "tiny").to_dict()
    raw["train"]["accumulate"] = value
    with pytest.raises(ConfigError, match="accumulate"):
        stage_from_dict(raw)
