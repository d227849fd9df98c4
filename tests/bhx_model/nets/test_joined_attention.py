"""Weights of groups of keys: as a mask, and by one call of a fused kernel for each group."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from bhx_model.config import FusionInputs, load_preset
from bhx_model.nets import attention
from bhx_model.nets.attention import JoinedAttention, attend, key_weights
from bhx_model.nets.fusion import FusionModel

CPU = torch.device("cpu")


def masked(q, k, v, weights):
    """Attention as it is defined: the logarithm of a key's weight is added to its logits."""
    logits = q.double() @ k.double().transpose(2, 3) / math.sqrt(q.shape[-1]) + weights.log_K.double()
    return logits.softmax(dim=-1) @ v.double()


def joined(q, k, v, weights):
    return JoinedAttention.apply(q, k, v, weights.log_G, weights.sizes, "cpu")


def with_gradients(attention_, inputs, weights, gradient):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    y = attention_(*inputs, weights)
    return [y, *torch.autograd.grad(y, inputs, gradient.to(y.dtype))]


groups = st.lists(st.tuples(st.integers(1, 60), st.floats(0.01, 100)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=25)
@given(
    groups, st.integers(1, 70), st.sampled_from([8, 16, 64]), st.integers(0, 99), st.sampled_from([0.1, 1, 2])
)
def test_attention_and_gradients_are_those_of_a_mask_for_any_groups(groups, queries, width, seed, size):
    torch.manual_seed(seed)
    weights = key_weights(groups, CPU, torch.float32, 8)
    n = sum(weights.sizes)
    # strided, as the projections leave them
    inputs = [size * torch.randn(2, m, 2, width).transpose(1, 2) for m in (queries, n, n)]
    gradient = torch.randn(2, 2, queries, width)
    wanted = with_gradients(masked, inputs, weights, gradient)
    for attention_ in (joined, attend):
        for ours, exact in zip(with_gradients(attention_, inputs, weights, gradient), wanted, strict=True):
            scale = max(float(exact.detach().abs().max()), 1.0)
            assert float((ours - exact).detach().abs().max()) <= 1e-5 * scale


def test_bfloat16_keeps_the_weights_in_single_precision():
    """A mask would be rounded to the digits of the logits: here by 0.0016, more than a result of many keys differs."""
    weights = key_weights(((200, 1.0), (300, 2.719)), CPU, torch.bfloat16, 16)
    assert float((weights.log_K.bfloat16().float() - weights.log_K).abs().max()) > 2e-4
    torch.manual_seed(0)
    q, k, v = (torch.zeros(1, 1, n, 16).bfloat16() for n in (4, 500, 500))
    v[:, :, 200:] = 1
    exact = 300 * 2.719 / (200 + 300 * 2.719)
    torch.testing.assert_close(
        joined(q, k, v, weights).float(), torch.full((1, 1, 4, 16), exact), rtol=2**-8, atol=0
    )


@pytest.mark.parametrize("n_patches", [1, 3, 5])
def test_a_fusion_is_the_same_by_groups(fusion_config, fusion_inputs, monkeypatch, n_patches):
    """Batches hold samples of one number of patches: there is no other mask, and a group is never padded."""
    torch.manual_seed(0)
    model = FusionModel(
        dataclasses.replace(fusion_config, modality_attention="equal", cls_bypass=True), fusion_inputs
    )
    structure = torch.randn(2, fusion_inputs.structure_tokens, fusion_inputs.structure_width)
    function = torch.randn(2, fusion_inputs.rois * n_patches, fusion_inputs.function_width)

    def step():
        model.zero_grad()
        loss, _ = model(structure, function, n_patches)
        loss.backward()
        return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}

    wanted, gradients = step()
    monkeypatch.setattr(attention, "fused_kernel", lambda *_: "cpu")
    calls = []
    apply = JoinedAttention.apply
    monkeypatch.setattr(JoinedAttention, "apply", lambda *a: calls.append(a[4]) or apply(*a))
    ours, found = step()
    assert set(calls) == {
        (fusion_config.hub_tokens + 1, fusion_inputs.rois * n_patches, fusion_inputs.structure_tokens)
    }
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5)


class Noted(TorchDispatchMode):
    """Attention operators that are called, and with which tensors."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "attention" in func.__name__:
            self.calls.append((func.__name__.removesuffix(".default"), args))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kernel", ["flash", "cudnn"])
@pytest.mark.parametrize("preset", ["base", "small", "tiny"])
def test_on_gpus_nothing_is_asked_of_a_fused_kernel_that_it_refuses(monkeypatch, kernel, preset):
    """No mask, bfloat16, equal widths of heads that are multiples of 8 up to 256, last axes that are contiguous.

    On tensors that are nowhere PyTorch checks arguments and shapes of the operators, as they are.
    """
    monkeypatch.setattr(attention, "fused_kernel", lambda *_: kernel)
    config = load_preset("fusion", preset).override({"model.depth": 2, "model.decoder_depth": 1}).model
    assert config.modality_attention == "equal"
    inputs = FusionInputs(
        structure_grid=(4, 3, 2), structure_width=16, rois=10, time_patches=6, function_width=16
    )
    model = FusionModel(config, inputs).to("meta", torch.bfloat16)
    monkeypatch.setattr(F, "scaled_dot_product_attention", plain_attention)
    with Noted() as noted:
        y = model.encode(*(torch.empty(2, n, 16, device="meta", dtype=torch.bfloat16) for n in (24, 50)), 5)
        y.sum().backward()
    forward, backward = (
        f"_scaled_dot_product_{kernel}_attention",
        f"_scaled_dot_product_{kernel}_attention_backward",
    )
    names = [name for name, _ in noted.calls]
    assert names.count(forward) == names.count(backward) == 3 * config.depth
    assert len(names) == 6 * config.depth
    for name, arguments in noted.calls:
        q, k, v = arguments[1:4] if name.endswith("backward") else arguments[:3]
        assert {t.dtype for t in (q, k, v)} == {torch.bfloat16}
        assert {t.shape[-1] for t in (q, k, v)} == {config.width // config.heads}
        assert q.shape[-1] % 8 == 0
        assert q.shape[-1] <= 256
        assert all(t.stride(-1) == 1 for t in (q, k, v))


def plain_attention(*_, **__):
    pytest.fail("attention with weights went to PyTorch's, which takes them as a mask")


@pytest.mark.parametrize(
    ("choice", "width", "kernel"),
    [(0, 64, None), (1, 64, "flash"), (1, 12, None), (2, 64, None), (3, 64, "cudnn")],
)
def test_the_kernel_is_the_one_that_pytorch_takes_without_a_mask(monkeypatch, choice, width, kernel):
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *_: choice)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, device, **more: empty(*size, device="meta", **more))
    assert attention.fused_kernel(torch.device("cuda"), torch.bfloat16, width, 9) == kernel
    assert attention.fused_kernel(CPU, torch.bfloat16, width, 9) is None
    assert attention.fused_kernel(torch.device("mps"), torch.float32, width, 9) is None


def test_the_kernel_is_one_for_the_smallest_group(monkeypatch):
    """cuDNN refuses a single key."""
    monkeypatch.setattr(
        attention, "fused_kernel", lambda device, dtype, width, keys: ("flash", keys)[keys > 1]
    )
    assert [key_weights(((4, 1.0), (n, 2.0)), CPU, torch.bfloat16, 64).kernel for n in (1, 3, 5)] == [
        "flash",
        3,
        4,
    ]
    asked = []
    monkeypatch.undo()
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *tensors: asked.extend(tensors) or 1)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, device, **more: empty(*size, device="meta", **more))
    attention.fused_kernel(torch.device("cuda"), torch.bfloat16, 64, 1)
    assert [t.shape[2] for t in asked] == [128, 1, 1]


def test_kernels_are_forbidden_inside_and_allowed_again_where_lengths_are_few():
    allowed = torch.backends.cuda.cudnn_sdp_enabled
    before = allowed()
    with attention.with_few_lengths():
        assert allowed() == before
    with attention.without_cudnn():
        assert not allowed()
        with attention.with_few_lengths():
            assert allowed() == before
        assert not allowed()
    with attention.without_cudnn(False):
        assert allowed() == before
    assert allowed() == before


def test_what_was_forbidden_before_stays_so():
    with attention.without_cudnn(), attention.without_cudnn(False), attention.with_few_lengths():
        assert torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        with attention.without_cudnn(), attention.with_few_lengths():
            assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)
