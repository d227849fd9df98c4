"""Transformer blocks: pre-norm attention and MLP, as in ViT."""

# Shapes: B batch, N tokens, Q query tokens, K key tokens, D width, H heads, E = D / H

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bhx_model.nets.attention import KeyWeights, attend

NORM_EPS: Final = 1e-6
ALL: Final = slice(None)


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
        self, x_BND: Tensor, queries: slice = ALL, keys: slice = ALL, weights: KeyWeights | None = None
    ) -> Tensor:
        """Return (B, Q, D); `weights` say how much the tokens of range `keys` count."""
        width = x_BND.shape[-1]
        if queries == keys == ALL:
            q_BQD, k_BKD, v_BKD = self.qkv(x_BND).chunk(3, dim=-1)
        else:
            matrix, bias = self.qkv.weight, self.qkv.bias
            q_BQD = F.linear(x_BND[:, queries], matrix[:width], bias[:width])
            k_BKD, v_BKD = F.linear(x_BND[:, keys], matrix[width:], bias[width:]).chunk(2, dim=-1)
        q_BHQE, k_BHKE, v_BHKE = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q_BQD, k_BKD, v_BKD)
        )
        y_BHQE = attend(q_BHQE, k_BHKE, v_BHKE, weights)
        return self.proj(y_BHQE.transpose(1, 2).flatten(2))


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
        self.run = run_block

    def forward(
        self,
        x_BND: Tensor,
        queries: slice = ALL,
        keys: slice = ALL,
        weights: KeyWeights | None = None,
        kept_B2: Tensor | None = None,
    ) -> Tensor:
        """Return the tokens of range `queries` after they attended to those of range `keys`.

        `kept_B2` is from `draw`, which is asked for it if None.
        """
        # what is random, and differs from block to block, stays out of what may be compiled
        kept_B2 = self.draw(len(x_BND), x_BND.device) if kept_B2 is None else kept_B2
        # copies: two views of one tensor would be compiled anew for other numbers of samples
        kept = (None, None) if kept_B2 is None else [of[:, None, None].clone() for of in kept_B2.unbind(1)]
        run = self.run if queries == ALL else run_block  # see `compile_blocks`
        return run(self, x_BND, queries, keys, weights, *kept)

    def draw(self, n: int, device: torch.device) -> Tensor | None:
        """Draw factors of both branches of `n` samples, 0 for those that skip one: (n, 2); None if none can."""
        if not self.training or self.drop_path == 0.0:
            return None
        keep = 1 - self.drop_path
        drawn = [torch.rand(n, device=device) for _ in ("attention", "mlp")]
        return (torch.stack(drawn, dim=1) < keep).float() / keep


def run_block(
    block: Block, x_BND: Tensor, queries: slice, keys: slice, weights: KeyWeights | None,
    kept_attention_B11: Tensor | None, kept_mlp_B11: Tensor | None,
) -> Tensor:  # fmt: skip
    """Compute a block, see `Block.forward`; branches are multiplied by what is kept of them."""
    branch_BQD = block.attn(block.norm1(x_BND), queries, keys, weights)
    y_BQD = x_BND[:, queries] + _times(branch_BQD, kept_attention_B11)
    return y_BQD + _times(block.mlp(block.norm2(y_BQD)), kept_mlp_B11)


def _times(branch_BQD: Tensor, kept_B11: Tensor | None) -> Tensor:
    return branch_BQD if kept_B11 is None else branch_BQD * kept_B11.to(branch_BQD.dtype)


#: Graphs that the compiler may make of `run_block`; when it has made as many, it compiles no more, in silence. There is
#: one for every form of a block: its sizes, with and without gradients, which tokens are wanted, a batch of 1.
GRAPHS: Final = 64


def compile_blocks(model: nn.Module) -> None:
    """Let PyTorch's compiler make code of all blocks of a model, for any number of samples and tokens.

    The numbers are symbols to it: masks of random sizes and runs of any length make no new graph. What is around the
    blocks is left as it is, and so are blocks of which only some tokens are wanted, the last of a stack: their number is
    a difference of symbols, for which PyTorch 2.11 fails to make code for GPUs. Results are equal but for rounding.
    """
    import torch._dynamo  # imported here, since it takes as long to import as all of torch

    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    setattr(torch._dynamo.config, limit, max(GRAPHS, getattr(torch._dynamo.config, limit)))
    run = torch.compile(run_block, dynamic=True)
    for block in model.modules():
        if isinstance(block, Block):
            block.run = run


#: For each block the factors of `Block.draw`, or None.
Kept = Sequence[Tensor | None]


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
        self,
        x_BND: Tensor,
        queries: slice = ALL,
        keys: slice = ALL,
        weights: KeyWeights | None = None,
        kept: Kept | None = None,
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
        weights
            How much the tokens of range `keys` count, in every block.
        kept
            From `draw`; drawn here if None.
        """
        for i, block in enumerate(self):
            wanted = queries if i == len(self) - 1 else ALL
            of_block = None if kept is None else kept[i]
            if self.checkpointing and torch.is_grad_enabled():
                x_BND = checkpoint(block, x_BND, wanted, keys, weights, of_block, use_reentrant=False)
            else:
                x_BND = block(x_BND, wanted, keys, weights, of_block)
        return x_BND

    def draw(self, n: int, device: torch.device) -> Kept:
        """Draw which branches `n` samples skip, for each block."""
        return [cast(Block, block).draw(n, device) for block in self]


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
