"""The same numbers on a GPU as on a CPU, from the first step to an embedding; `make test-gpu`.

Without ``--device cuda`` the device is the CPU: the tests then prove nothing of GPUs, but that they can be run.
"""

from __future__ import annotations

import copy
import json
import signal
from contextlib import nullcontext

import children
import numpy as np
import pytest
import torch
from endpoint_labels import labels_of, split_of
from safetensors.torch import load_file
from tiny_shards import words
from torch.nn.attention import SDPBackend, sdpa_kernel

import bhx_model
from bhx_model.config import EvaluationConfig, FusionInputs, load_preset
from bhx_model.data import shards, token_index
from bhx_model.data.batch import intensities
from bhx_model.evaluation.attentive import attentive_probe
from bhx_model.nets import attention, vit
from bhx_model.nets.fusion import FusionModel
from bhx_model.release import export
from bhx_model.training import checkpoint, feed, loop, stages, train
from bhx_model.training.encoders import Encoders

CPU = torch.device("cpu")
STAGES = [
    ("structure", {}),
    ("function", {}),
    ("fusion", {}),
    ("fusion", {"model.inputs": "online"}),
    ("fusion", {"model.modality_attention": "tokens"}),
]


@pytest.fixture(scope="session")
def device(request) -> torch.device:
    """Where the tests compute."""
    kind = request.config.getoption("--device")
    if kind == "cuda" and not torch.cuda.is_available():
        pytest.fail("--device cuda, but PyTorch finds no GPU here")
    return torch.device(kind)


@pytest.fixture(scope="session")
def sources(trained) -> stages.Sources:
    """All that a stage may read."""
    return stages.Sources(
        shards=[trained["town"], trained["ward"]], split=trained["split"], rois=trained["rois"],
        tokens=[trained["tokens_town"], trained["tokens_ward"]], structure=trained["structure"],
        function=trained["function"],
    )  # fmt: skip


def step_on(device, sources, stage, changes):
    """Losses and gradients of a step, on the CPU."""
    processes = train.Processes(0, 1, device)
    config = load_preset(stage, "tiny").override(changes)
    opened = stages.open_stage(config, sources, 0, device)
    torch.manual_seed(0)
    model = opened.build().to(device)
    losses, _ = loop.backward(model, opened, *loop.rank_share(opened, 0, processes), processes)
    return losses.cpu(), {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}


def test_an_attentive_probe_is_that_of_a_cpu(device):
    random = np.random.default_rng(0)
    labels = labels_of(random.normal(size=40), split_of(20, 10, 10))
    tokens = random.normal(size=(40, 6, 8))
    settings = EvaluationConfig(epochs=3)
    theirs, ours = (attentive_probe(labels, tokens, 2, settings, 0, d)[0] for d in (CPU, device))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize(("stage", "changes"), STAGES)
@pytest.mark.parametrize(("amp", "near"), [("fp32", 1e-3), ("bf16", 5e-2)])
def test_a_step_is_that_of_a_cpu(device, sources, stage, changes, amp, near):
    theirs_loss, theirs = step_on(CPU, sources, stage, {**changes, "train.amp": "fp32"})
    ours_loss, ours = step_on(device, sources, stage, {**changes, "train.amp": amp})
    torch.testing.assert_close(ours_loss, theirs_loss, rtol=near / 10, atol=0)
    assert ours.keys() == theirs.keys()
    largest = max(float(g.abs().max()) for g in theirs.values())
    for name, g in theirs.items():
        assert float((ours[name] - g).abs().max()) <= near * largest, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", [None, SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION])
def test_attention_and_gradients_with_and_without_weights_are_those_of_a_cpu(device, dtype, backend):
    """By the kernel that PyTorch chooses, and by either of those that `attention.JoinedAttention` knows."""
    groups = ((20, 1.0), (90, 0.5), (40, 3.0))
    torch.manual_seed(0)
    exact, gradient = torch.randn(3, 2, 4, 150, 64), torch.randn(2, 4, 150, 64)

    def with_gradients(where, dtype, weighted):
        inputs = [t.to(where, dtype).requires_grad_() for t in exact]
        y = attention.attend(*inputs, attention.key_weights(groups, where, dtype, 64) if weighted else None)
        return [t.float().cpu() for t in (y, *torch.autograd.grad(y, inputs, gradient.to(where, dtype)))]

    for weighted in (False, True):
        wanted = with_gradients(CPU, torch.float32, weighted)
        with nullcontext() if backend is None else sdpa_kernel([backend, SDPBackend.MATH]):
            found = with_gradients(device, dtype, weighted)
        near = 1e-5 if dtype == torch.float32 else 2e-2
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=near, atol=near)


def test_a_gpu_attends_with_weights_by_a_fused_kernel(device):
    if device.type == "cpu":
        assert attention.fused_kernel(device, torch.bfloat16, 64, 9) is None
    else:
        assert attention.fused_kernel(device, torch.bfloat16, 64, 9) in ("flash", "cudnn")
        assert attention.fused_kernel(device, torch.bfloat16, 64, 1) == "flash"
        assert attention.fused_kernel(device, torch.float32, 64, 9) is None
        with attention.without_cudnn():
            assert attention.fused_kernel(device, torch.bfloat16, 64, 9) == "flash"


def test_cached_tokens_are_those_of_a_cpu(device, trained):
    """The cache was written on the device, as all that the command lines of `trained` made."""
    cache = token_index.open_tokens(trained["tokens_town"])
    encoders = Encoders.open(trained["structure"], trained["function"])
    index = shards.open_index(trained["town"])
    pairs = {
        run.key: (run, anat) for run, anat in shards.pair(index.samples["bold"], index.samples["t1w"])[0]
    }
    cached = token_index.pairs(cache)[:4]
    for function, structure in cached:
        tokens = token_index.read_pairs([(function, structure)], encoders.function.n_rois)
        s_BSD, f_BFD, _ = encoders.encode(encoders.load([pairs[function.key]]))
        for name, exact in (("structure", s_BSD), ("function", f_BFD)):
            torch.testing.assert_close(tokens[name].float(), exact.float(), rtol=0.02, atol=0.02)


def test_an_embedding_is_that_of_a_cpu(device, trained, tmp_path):
    folders = [word for s in ("structure", "function", "fusion") for word in (f"--{s}", str(trained[s]))]
    out = tmp_path / "export"
    assert export.main([*folders, "--rois", str(trained["rois"]), "--out", str(out)]) == 0
    index = shards.open_index(trained["town"])
    run, anat = shards.pair(index.samples["bold"], index.samples["t1w"])[0][0]
    series = shards.read_bold(run, 20)
    volume = intensities(torch.from_numpy(shards.read_t1w([anat], (32, 48, 32))))[0].numpy()

    def embed(where):
        model = bhx_model.from_pretrained(out).to(where)
        return torch.from_numpy(model.embed(series, run.tr_s, model.rois.names, volume))

    torch.testing.assert_close(embed(device), embed(CPU), rtol=1e-3, atol=1e-3)


def test_killed_and_started_again_ends_in_the_same_weights(device, house, tmp_path):
    changes = {"train.deterministic": True, "train.steps": 16}

    def arguments(folder):
        return words({**house, "runs": folder / "runs"}, "function", folder / "out", changes)

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    child = children.start(arguments(killed))
    children.wait_for(lambda: any(steps >= 4 for r in killed.glob("runs/*") for steps in checkpoint.steps(r)))
    children.kill(child)
    assert child.exitcode == -signal.SIGKILL
    assert not (killed / "out").exists()
    assert children.end([children.start(arguments(killed)), children.start(arguments(straight))]) == [0, 0]
    ours, theirs = (load_file(folder / "out/model.safetensors") for folder in (killed, straight))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def world(device) -> int:
    """Processes of a run: two, or as many as there are GPUs, up to eight."""
    if device.type == "cpu":
        return 2
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU: several processes need several")
    return min(torch.cuda.device_count(), 8)


@pytest.mark.parametrize(("stage", "changes"), STAGES)
def test_all_gpus_have_the_gradients_of_one(device, world, sources, tmp_path, stage, changes):
    preset = {"stage": stage, "set": {"train.batch_size": 6, **changes}}
    alone, reports_alone = children.gradients_of(1, preset, sources, 1, tmp_path / "alone")
    shared, reports = children.gradients_of(world, preset, sources, 1, tmp_path / "shared")
    assert children.keys_of(reports) == children.keys_of(reports_alone)
    assert reports[0]["loss"] == pytest.approx(reports_alone[0]["loss"], rel=1e-5)
    assert shared.keys() == alone.keys()
    for name, g in alone.items():
        assert float((shared[name] - g).abs().max()) <= 1e-5 * max(float(g.abs().max()), 1e-3), name


def test_a_training_on_all_gpus_ends(device, world, house, tmp_path):
    places = {**house, "runs": tmp_path / "runs"}
    listed = children.start_all(words(places, "structure", tmp_path / "out"), world)
    assert children.end(listed) == [0] * world
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["counts"]["samples_seen"] == 30
    assert (run["machine"]["device"], run["machine"]["processes"]) == (device.type, world)


@pytest.mark.parametrize(("stage", "changes"), STAGES[:4])
def test_what_is_read_ahead_is_what_a_cpu_reads(device, sources, stage, changes):
    """Copied beside the device's work, out of memory that is used again, while earlier batches are still in use."""
    opened = stages.open_stage(
        load_preset(stage, "tiny").override({**changes, "train.accumulate": 2}), sources, 0, device
    )
    processes, held = train.Processes(0, 1, device), []
    for step, (parts, _) in zip(range(9), feed.steps(opened, range(9), processes, 3), strict=True):
        for batch, numbers in zip(parts, feed.share(opened, step, processes).parts, strict=True):
            assert {t.device.type for t in batch.tensors.values()} == {device.type}
            # work on the device that ends long after the next batches are asked for
            sums = {name: t.double().nan_to_num().sum() for name, t in batch.tensors.items()}
            plain = opened.load(numbers, step, feed.share(opened, step, processes).epoch)
            held.append((batch, sums, plain))
    for batch, sums, plain in held:
        for name, tensor in plain.tensors.items():
            torch.testing.assert_close(batch.tensors[name].cpu(), tensor, rtol=0, atol=0, equal_nan=True)
            assert float(sums[name]) == pytest.approx(float(tensor.double().nan_to_num().sum()))


def test_compiled_blocks_compute_the_same(device):
    """A block is one graph, and PyTorch's compiler makes code of it that computes the same: C++ on a CPU."""
    blocks = vit.Blocks(16, 1, 2, 2.0).eval().requires_grad_(False).to(device)
    x = torch.randn(2, 9, 16, device=device)
    compiled = torch.compile(blocks, fullgraph=True)
    torch.testing.assert_close(compiled(x), blocks(x), rtol=1e-4, atol=1e-5)


def test_compiled_attention_with_weights_computes_the_same(device):
    """For runs of any length, in bfloat16; on a CPU its graphs are counted elsewhere, without generating code."""
    if device.type == "cpu":
        pytest.skip("a CPU attends with a mask")
    inputs = FusionInputs(
        structure_grid=(4, 3, 2), structure_width=16, rois=10, time_patches=6, function_width=16
    )
    # the last block of a stack is not compiled
    changes = {"model.drop_path": 0.0, "model.depth": 3, "model.decoder_depth": 3, "model.decoder": "joint"}
    plain = FusionModel(load_preset("fusion", "tiny").override(changes).model, inputs).to(device)
    model = copy.deepcopy(plain)
    vit.compile_blocks(model)
    for batch, n in ((2, 3), (4, 6), (3, 2)):
        tokens = [torch.randn(batch, rows, 16, device=device) for rows in (24, 10 * n)]
        for one in (model, plain):
            one.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                loss, _ = one(*tokens, n)
            loss.backward()
        largest = max(float(p.grad.abs().max()) for p in plain.parameters())
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            assert float((ours.grad - theirs.grad).abs().max()) <= 0.05 * largest
