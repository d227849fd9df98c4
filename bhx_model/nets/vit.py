"""Transformer blocks: pre-norm attention and MLP, as in ViT, through scaled_dot_product_attention on every device."""

# Shapes: B batch, N tokens, Q query tokens, K key tokens, D width, H heads, E = D / H

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NORM_EPS: Final = 1e-6
ALL: Final = slice(None)
#: Queries of a block of attention on a CPU: its logits stay in the cache.
CPU_QUERIES: Final = 192


class Attention(nn.Module):
    """Multi-head attention of a range of tokens to a range of tokens of one sequence.

    Ranges instead of masks: batches hold samples of one shape, so nothing that is masked need be computed.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x_BND: Tensor, queries: slice = ALL, keys: slice = ALL, bias_N: Tensor | None = None
    ) -> Tensor:
        """Return (B, Q, D); `bias_N` is added to the logits of the tokens that are attended to."""
        width = x_BND.shape[-1]
        if queries == keys == ALL:
            q_BQD, k_BKD, v_BKD = self.qkv(x_BND).chunk(3, dim=-1)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            q_BQD = F.linear(x_BND[:, queries], weight[:width], bias[:width])
            k_BKD, v_BKD = F.linear(x_BND[:, keys], weight[width:], bias[width:]).chunk(2, dim=-1)
        q_BHQE, k_BHKE, v_BHKE = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q_BQD, k_BKD, v_BKD)
        )
        y_BHQE = attend(q_BHQE, k_BHKE, v_BHKE, None if bias_N is None else bias_N[keys])
        return self.proj(y_BHQE.transpose(1, 2).flatten(2))


def attend(q_BHQE: Tensor, k_BHKE: Tensor, v_BHKE: Tensor, bias_K: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, (B, H, Q, E): PyTorch's own, but for bfloat16 on a CPU.

    `bias_K`, a constant, is added to the logits of the keys.
    """
    if bias_K is not None:
        bias_K = bias_K.to(q_BHQE.dtype)
    if q_BHQE.device.type == "cpu" and q_BHQE.dtype == torch.bfloat16 and not torch.compiler.is_compiling():
        return cast(Tensor, BlockAttention.apply(q_BHQE, k_BHKE, v_BHKE, bias_K))
    mask_111K = None if bias_K is None else bias_K[None, None, None]
    return F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE, attn_mask=mask_111K)


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


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, int(width * ratio))
        self.fc2 = nn.Linear(int(width * ratio), width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Return (B, N, D)."""
        return self.fc2(F.gelu(self.fc1(x_BND)))


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and around a residual branch."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(
        self, x_BND: Tensor, queries: slice = ALL, keys: slice = ALL, bias_N: Tensor | None = None
    ) -> Tensor:
        """Return the tokens of range `queries` after they attended to those of range `keys`."""
        y_BQD = x_BND[:, queries] + self._drop(self.attn(self.norm1(x_BND), queries, keys, bias_N))
        return y_BQD + self._drop(self.mlp(self.norm2(y_BQD)))

    def _drop(self, branch_BND: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch_BND
        keep = 1 - self.drop_path
        kept_B11 = torch.rand(len(branch_BND), 1, 1, device=branch_BND.device) < keep
        return branch_BND * kept_B11.to(branch_BND.dtype) / keep


class Blocks(nn.ModuleList):
    """A stack of blocks."""

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        *,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        super().__init__(Block(width, heads, mlp_ratio, rate) for rate in rates)
        self.checkpointing = checkpointing

    def forward(
        self, x_BND: Tensor, queries: slice = ALL, keys: slice = ALL, bias_N: Tensor | None = None
    ) -> Tensor:
        """Run all blocks; the last one computes only the tokens of range `queries`, as the others would not be read.

        Parameters
        ----------
        x_BND
            (B, N, D) tokens.
        queries
            Tokens that are wanted.
        keys
            Tokens that are attended to, in every block.
        bias_N
            (N,) what is added to the logits of a token that is attended to, in every block.
        """
        for i, block in enumerate(self):
            wanted = queries if i == len(self) - 1 else ALL
            if self.checkpointing and torch.is_grad_enabled():
                x_BND = checkpoint(block, x_BND, wanted, keys, bias_N, use_reentrant=False)
            else:
                x_BND = block(x_BND, wanted, keys, bias_N)
        return x_BND


def hold_in_bfloat16(model: nn.Module) -> None:
    """Keep the matrices of all blocks of a frozen model in bfloat16, for use under autocast.

    Autocast would make the same numbers of them in every pass.
    """
    for stack in model.modules():
        if isinstance(stack, Blocks):
            for m in stack.modules():
                if isinstance(m, nn.Linear):
                    m.bfloat16()


def init_weights(module: nn.Module) -> None:
    """Initialise all linear and norm layers under `module`; in stacks, by width and depth.

    Truncated normal of standard deviation 0.02 (BEiT, I-JEPA). In a stack, as much more as a layer reads fewer numbers
    than the 768 for which that was chosen: else attention is even and branches are next to nothing in narrow models.
    What enters the residual stream at layer l is divided by sqrt(2 l), so that the stream keeps its scale.
    """
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.LayerNorm) and m.elementwise_affine:
            nn.init.ones_(m.weight)
            nn.init.zeros_(m.bias)
    for stack in module.modules():
        if isinstance(stack, Blocks):
            for layer, block in enumerate(stack, start=1):
                assert isinstance(block, Block)
                damped = (block.attn.proj, block.mlp.fc2)
                for linear in (block.attn.qkv, block.mlp.fc1, *damped):
                    std = 0.02 * max(1.0, 768 / linear.in_features) ** 0.5
                    nn.init.trunc_normal_(
                        linear.weight, std=std / ((2 * layer) ** 0.5 if linear in damped else 1)
                    )


def gather_tokens(x_BND: Tensor, index_BK: Tensor) -> Tensor:
    """Return the tokens of each sample at `index_BK`: (B, K, D)."""
    return x_BND.gather(1, index_BK[:, :, None].expand(-1, -1, x_BND.shape[-1]))


def standardise(x_BND: Tensor, eps: float = 1e-6) -> Tensor:
    """Return tokens of mean 0 and (unbiased) variance 1 over their last axis."""
    mean = x_BND.mean(dim=-1, keepdim=True)
    return (x_BND - mean) / (x_BND.var(dim=-1, keepdim=True) + eps).sqrt()
