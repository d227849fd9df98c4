"""Scaled dot-product attention with weights for groups of keys, by the fastest kernel available."""

# Shapes: B batch, H heads, Q query tokens, K key tokens, G groups of keys, E width of a head

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend

#: Queries of a block of attention on a CPU: its logits stay in the cache.
CPU_QUERIES: Final = 192

Kernel = Literal["flash", "cudnn", "cpu"]
_KERNELS: Final[dict[int, Kernel]] = {
    SDPBackend.FLASH_ATTENTION.value: "flash",
    SDPBackend.CUDNN_ATTENTION.value: "cudnn",
}


class KeyWeights(NamedTuple):
    """Weights of keys in attention: a key of weight w counts as w equal keys."""

    sizes: tuple[int, ...]
    """Keys of each group, which stand one group after the other."""
    log_G: Tensor
    """(G,) float32 logarithm of the weight of a group's keys."""
    log_K: Tensor
    """(K,) the same for every key."""
    kernel: Kernel | None
    """By which each group is attended to by itself; None to take the weights as a mask."""


def key_weights(
    groups: Sequence[tuple[int, float]], device: torch.device, dtype: torch.dtype, width: int
) -> KeyWeights:
    """Weights of groups of keys, and the kernel for them.

    Parameters
    ----------
    groups
        Size and (positive) weight of each, in their order.
    device, dtype, width
        Of queries and keys, and of a head; under autocast the precision is that of autocast.
    """
    logs = [(n, math.log(weight)) for n, weight in groups]
    each = [torch.full((n,), log, device=device) for n, log in logs]
    # cut out of what is there: a list of numbers would have to be copied to the device
    log_G = torch.cat([one[:1] for one in each])
    kernel = fused_kernel(device, dtype, width, min(n for n, _ in groups))
    return KeyWeights(tuple(n for n, _ in logs), log_G, torch.cat(each), kernel)


def fused_kernel(device: torch.device, dtype: torch.dtype, width: int, keys: int) -> Kernel | None:
    """Kernel with which PyTorch itself attends on a GPU without a mask: flash attention, or cuDNN's; else None.

    It is asked, so that what is said of kernels by ``torch.nn.attention.sdpa_kernel`` holds here too. Both need
    bfloat16 or float16, and a width of a head, up to 256, that is a multiple of 8; flash attention a GPU from
    Ampere on (compute capability 8.0), cuDNN at least two keys.

    Parameters
    ----------
    device, dtype, width
        As for `key_weights`.
    keys
        Keys of the smallest group.
    """
    if device.type != "cuda" or width % 8:
        return None
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    q_11QE, k_11KE = (
        torch.empty(1, 1, n, width, device=device, dtype=dtype, requires_grad=True) for n in (128, keys)
    )
    return _KERNELS.get(torch._fused_sdp_choice(q_11QE, k_11KE, k_11KE))


#: Whether cuDNN's kernels were allowed where each `without_cudnn` began that has not ended.
_allowed: Final[list[bool]] = []


@contextmanager
def without_cudnn(wanted: bool = True) -> Iterator[None]:
    """Attend by other kernels than cuDNN's, if `wanted`: where the number of tokens changes from step to step.

    PyTorch 2.11 prefers cuDNN's on Hopper. It makes a plan for every new number of queries or keys, which takes longer
    than a layer (0.13 s on an H200), and keeps all plans. Flash attention takes any number.
    """
    with _cudnn(torch.backends.cuda.cudnn_sdp_enabled() and not wanted):
        yield


@contextmanager
def with_few_lengths() -> Iterator[None]:
    """Attend by any kernel inside `without_cudnn`: where the number of tokens is one of a few. For no backward pass."""
    with _cudnn(_allowed[0] if _allowed else torch.backends.cuda.cudnn_sdp_enabled()):
        yield


@contextmanager
def _cudnn(allowed: bool) -> Iterator[None]:
    _allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
    torch.backends.cuda.enable_cudnn_sdp(allowed)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(_allowed.pop())


def attend(q_BHQE: Tensor, k_BHKE: Tensor, v_BHKE: Tensor, weights: KeyWeights | None = None) -> Tensor:
    """Scaled dot-product attention, (B, H, Q, E): PyTorch's own, but for weights and for bfloat16 on a CPU.

    The logarithm of a weight is what is added to a key's logits. PyTorch takes it as a mask, with which it has no flash
    kernel on GPUs; there the groups are attended to one by one, and joined, see `JoinedAttention`. On a CPU its kernel
    takes a mask, and no other way was reliably faster.
    """
    if weights is not None and weights.kernel is not None:
        more = (weights.log_G, weights.sizes, weights.kernel)
        return cast(Tensor, JoinedAttention.apply(q_BHQE, k_BHKE, v_BHKE, *more))
    bias_K = None if weights is None else weights.log_K.to(q_BHQE.dtype)
    if q_BHQE.device.type == "cpu" and q_BHQE.dtype == torch.bfloat16 and not torch.compiler.is_compiling():
        return cast(Tensor, BlockAttention.apply(q_BHQE, k_BHKE, v_BHKE, bias_K))
    mask_111K = None if bias_K is None else bias_K[None, None, None]
    return F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE, attn_mask=mask_111K)


class JoinedAttention(torch.autograd.Function):
    """Attention to groups of keys that weigh differently, by one call of a fused kernel for each group.

    A softmax over all keys is the mean of those over the groups, each weighted by the exponential of its logits'
    log-sum-exp and of the logarithm of its weight; so the weights never reach the kernel, and are kept in float32.
    Backwards, a group's gradients are those of the kernel that is given the log-sum-exp over all keys, less the
    logarithm of the group's weight, in the place of its own. Ring attention (arXiv 2310.01889) joins devices so.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q_BHQE: Tensor,
        k_BHKE: Tensor,
        v_BHKE: Tensor,
        log_G: Tensor,
        sizes: tuple[int, ...],
        kernel: Kernel,
    ) -> Tensor:
        """Return (B, H, Q, E)."""
        groups = zip(k_BHKE.split(sizes, dim=2), v_BHKE.split(sizes, dim=2), strict=True)
        found = [_attend_with(kernel, q_BHQE, k_BHNE, v_BHNE) for k_BHNE, v_BHNE in groups]
        lse_GBHQ = torch.stack([lse_BHQ for _, lse_BHQ, _ in found]) + log_G[:, None, None, None]
        lse_BHQ = lse_GBHQ.logsumexp(dim=0)
        share_GBHQ1 = (lse_GBHQ - lse_BHQ).exp()[..., None]
        y_BHQE = found[0][0] * share_GBHQ1[0]
        for share_BHQ1, (part_BHQE, _, _) in zip(share_GBHQ1[1:], found[1:], strict=True):
            y_BHQE = torch.addcmul(y_BHQE, part_BHQE, share_BHQ1)
        y_BHQE = y_BHQE.to(q_BHQE.dtype)
        random = [t for _, _, kept in found for t in kept]
        ctx.save_for_backward(q_BHQE, k_BHKE, v_BHKE, log_G, y_BHQE, lse_BHQ, *random)
        ctx.sizes, ctx.kernel = sizes, kernel
        return y_BHQE

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients of queries, keys and values."""
        q_BHQE, k_BHKE, v_BHKE, log_G, y_BHQE, lse_BHQ, *random = ctx.saved_tensors
        split = zip(k_BHKE.split(ctx.sizes, dim=2), v_BHKE.split(ctx.sizes, dim=2), strict=True)
        dq_BHQE, dk, dv = None, [], []
        for g, (k_BHNE, v_BHNE) in enumerate(split):
            # what is subtracted from logits before the exponential, so that it gives shares of all keys
            less_BHQ = lse_BHQ - log_G[g]
            kept = tuple(random[2 * g : 2 * g + 2])
            part = _backward_with(ctx.kernel, grads[0], q_BHQE, k_BHNE, v_BHNE, y_BHQE, less_BHQ, kept)
            dq_BHQE = part[0] if dq_BHQE is None else dq_BHQE + part[0]
            dk.append(part[1])
            dv.append(part[2])
        return dq_BHQE, torch.cat(dk, dim=2), torch.cat(dv, dim=2), None, None, None


def _attend_with(
    kernel: Kernel, q_BHQE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Attention, the log-sum-exp (B, H, Q) of its logits, and the random state that the kernel's backward pass needs."""
    aten = torch.ops.aten
    if kernel == "cpu":
        y_BHQE, lse_BHQ = aten._scaled_dot_product_flash_attention_for_cpu(q_BHQE, k_BHNE, v_BHNE)
        return y_BHQE, lse_BHQ, ()
    if kernel == "flash":
        y_BHQE, lse_BHQ, _, _, _, _, seed, offset, _ = aten._scaled_dot_product_flash_attention(
            q_BHQE, k_BHNE, v_BHNE
        )
        return y_BHQE, lse_BHQ, (seed, offset)
    y_BHQE, lse_BHQ1, _, _, _, _, seed, offset, _ = aten._scaled_dot_product_cudnn_attention(
        q_BHQE, k_BHNE, v_BHNE, None, True
    )
    return y_BHQE, lse_BHQ1.squeeze(-1), (seed, offset)


def _backward_with(
    kernel: Kernel, dy_BHQE: Tensor, q_BHQE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor, y_BHQE: Tensor, lse_BHQ: Tensor,
    random: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of queries, keys and values."""
    aten, sizes = torch.ops.aten, (q_BHQE.shape[2], k_BHNE.shape[2])
    at = (dy_BHQE, q_BHQE, k_BHNE, v_BHNE, y_BHQE)
    if kernel == "cpu":
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(*at, lse_BHQ, 0.0, False)
    if kernel == "flash":
        return aten._scaled_dot_product_flash_attention_backward(
            *at, lse_BHQ, None, None, *sizes, 0.0, False, *random
        )
    return aten._scaled_dot_product_cudnn_attention_backward(
        *at, lse_BHQ[..., None], *random, None, None, None, *sizes, 0.0, False
    )


class BlockAttention(torch.autograd.Function):
    """Attention in bfloat16 on a CPU, by blocks of queries of one head.

    PyTorch's own multiplies in float32 there; these products are up to half as fast again, at an error of the same
    size. The backward pass makes the shares of attention anew, so nothing as large as queries x keys is ever kept.
    """

    @staticmethod
    def forward(
        ctx: Any, q_BHQE: Tensor, k_BHKE: Tensor, v_BHKE: Tensor, bias_K: Tensor | None = None
    ) -> Tensor:
        """Return (B, H, Q, E)."""
        y_BHQE = torch.empty_like(q_BHQE)
        # one piece of memory for all blocks: to ask for it each time takes as long as to fill it
        block = q_BHQE.new_empty(CPU_QUERIES, k_BHKE.shape[2])
        with torch.autocast("cpu", enabled=False):
            for at in itertools.product(*map(range, q_BHQE.shape[:2])):
                k_EK, v_KE = (k_BHKE[at] * q_BHQE.shape[-1] ** -0.5).T, v_BHKE[at].contiguous()
                for q_QE, y_QE in _blocks(q_BHQE[at], y_BHQE[at]):
                    share_QK = torch.mm(q_QE, k_EK, out=block[: len(q_QE)])
                    if bias_K is not None:
                        share_QK += bias_K
                    torch.softmax(share_QK, dim=-1, out=share_QK)
                    torch.mm(share_QK, v_KE, out=y_QE)
        ctx.save_for_backward(q_BHQE, k_BHKE, v_BHKE, y_BHQE, bias_K)
        return y_BHQE

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        """Return the gradients of queries, keys and values."""
        q_BHQE, k_BHKE, v_BHKE, y_BHQE, bias_K = ctx.saved_tensors
        dq_BHQE, dk_BHKE, dv_BHKE = map(torch.empty_like, (q_BHQE, k_BHKE, v_BHKE))
        logit, share = q_BHQE.new_empty(2, CPU_QUERIES, k_BHKE.shape[2])
        scale = q_BHQE.shape[-1] ** -0.5
        for at in itertools.product(*map(range, q_BHQE.shape[:2])):
            k_KE, v_EK = k_BHKE[at] * scale, v_BHKE[at].contiguous().T
            k_EK = k_KE.T
            # sums over blocks of queries: in bfloat16 they would lose what the last blocks add
            dk_KE, dv_KE = (torch.zeros(k_KE.shape, dtype=torch.float32) for _ in range(2))
            blocks = _blocks(q_BHQE[at].contiguous(), grads[0][at].contiguous(), y_BHQE[at], dq_BHQE[at])
            for q_QE, dy_QE, y_QE, dq_QE in blocks:
                logit_QK, share_QK = logit[: len(q_QE)], share[: len(q_QE)]
                torch.mm(q_QE, k_EK, out=logit_QK)
                if bias_K is not None:
                    logit_QK += bias_K
                torch.softmax(logit_QK, dim=-1, out=share_QK)
                dv_KE += share_QK.T @ dy_QE
                mean_Q1 = (dy_QE.float() * y_QE.float()).sum(dim=-1, keepdim=True).bfloat16()
                torch.mm(dy_QE, v_EK, out=logit_QK).sub_(mean_Q1).mul_(share_QK)  # now their gradient
                dq_QE.copy_(logit_QK @ k_KE)
                dk_KE += logit_QK.T @ q_QE
            dk_BHKE[at], dv_BHKE[at] = dk_KE * scale, dv_KE
        return dq_BHQE, dk_BHKE, dv_BHKE, None


def _blocks(*arrays_QE: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of up to `CPU_QUERIES` rows of all arrays."""
    return zip(*(array.split(CPU_QUERIES) for array in arrays_QE), strict=True)
