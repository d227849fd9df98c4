"""Transformer blocks: pre-norm attention and MLP, as in ViT, through scaled_dot_product_attention on every device."""

# Shapes: B batch, N tokens, Q query tokens, K key tokens, D width, H heads, E = D / H

from __future__ import annotations

import itertools
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NORM_EPS: Final = 1e-6
ALL: Final = slice(None)
#: Queries of a block of attention on a CPU: its logits stay in the cache.
CPU_QUERIES: Final = 512


class Attention(nn.Module):
    """Multi-head attention of a range of tokens to a range of tokens of one sequence.

    Ranges instead of masks: batches hold samples of one shape, so nothing that is masked need be computed.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, queries: slice = ALL, keys: slice = ALL) -> Tensor:
        """Return (B, Q, D)."""
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
        y_BHQE = attend(q_BHQE, k_BHKE, v_BHKE)
        return self.proj(y_BHQE.transpose(1, 2).flatten(2))


def attend(q_BHQE: Tensor, k_BHKE: Tensor, v_BHKE: Tensor) -> Tensor:
    """Scaled dot-product attention, (B, H, Q, E).

    PyTorch's own, but for bfloat16 on a CPU without gradients: there it computes in float32, and products of blocks
    of queries of one head are half as fast again, at an error of the same size.
    """
    if q_BHQE.device.type != "cpu" or q_BHQE.dtype != torch.bfloat16 or torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE)
    q_BHQE = q_BHQE * q_BHQE.shape[-1] ** -0.5
    out_BHQE = torch.empty_like(q_BHQE)
    for sample, head in itertools.product(*map(range, q_BHQE.shape[:2])):
        k_EK, v_KE = k_BHKE[sample, head].T, v_BHKE[sample, head].contiguous()
        for start in range(0, q_BHQE.shape[2], CPU_QUERIES):
            rows = slice(start, start + CPU_QUERIES)
            share_QK = torch.softmax(q_BHQE[sample, head, rows] @ k_EK, dim=-1)
            out_BHQE[sample, head, rows] = share_QK @ v_KE
    return out_BHQE


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

    def forward(self, x_BND: Tensor, queries: slice = ALL, keys: slice = ALL) -> Tensor:
        """Return the tokens of range `queries` after they attended to those of range `keys`."""
        y_BQD = x_BND[:, queries] + self._drop(self.attn(self.norm1(x_BND), queries, keys))
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
        rates = torch.linspace(0, drop_path, depth).tolist()
        super().__init__(Block(width, heads, mlp_ratio, rate) for rate in rates)
        self.checkpointing = checkpointing

    def forward(self, x_BND: Tensor, queries: slice = ALL, keys: slice = ALL) -> Tensor:
        """Run all blocks; the last one computes only the tokens of range `queries`, as nobody would read the others.

        Parameters
        ----------
        x_BND
            (B, N, D) tokens.
        queries
            Tokens that are wanted.
        keys
            Tokens that are attended to, in every block.
        """
        for i, block in enumerate(self):
            wanted = queries if i == len(self) - 1 else ALL
            if self.checkpointing and torch.is_grad_enabled():
                x_BND = checkpoint(block, x_BND, wanted, keys, use_reentrant=False)
            else:
                x_BND = block(x_BND, wanted, keys)
        return x_BND


def init_weights(module: nn.Module) -> None:
    """Initialise all linear and norm layers under `module`; in stacks, damp the branches by depth.

    Truncated normal of standard deviation 0.02; what enters the residual stream at layer l is divided by
    sqrt(2 l), so that the stream keeps its scale (BEiT, I-JEPA).
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
                with torch.no_grad():
                    block.attn.proj.weight.div_((2 * layer) ** 0.5)
                    block.mlp.fc2.weight.div_((2 * layer) ** 0.5)


def gather_tokens(x_BND: Tensor, index_BK: Tensor) -> Tensor:
    """Return the tokens of each sample at `index_BK`: (B, K, D)."""
    return x_BND.gather(1, index_BK[:, :, None].expand(-1, -1, x_BND.shape[-1]))


def standardise(x_BND: Tensor, eps: float = 1e-6) -> Tensor:
    """Return tokens of mean 0 and (unbiased) variance 1 over their last axis."""
    mean = x_BND.mean(dim=-1, keepdim=True)
    return (x_BND - mean) / (x_BND.var(dim=-1, keepdim=True) + eps).sqrt()
