"""BrainHarmonix-S: a masked autoencoder of T1 volumes (He et al. 2022, in 3D)."""

# Shapes: B batch, X Y Z voxels, N patches, V visible, U hidden (unseen) patches, P^3 voxels of a patch, D width,
# C decoder width

from __future__ import annotations

import torch
from torch import Tensor, nn

from bhx_model.config import StructureConfig
from bhx_model.nets.patch_embed import VolumePatchEmbed
from bhx_model.nets.pos_embed import sincos_grid
from bhx_model.nets.vit import NORM_EPS, Blocks, gather_tokens, init_weights, standardise


class StructureEncoder(nn.Module):
    """Vision transformer over cubic patches, with a CLS token that is dropped at the output."""

    position_ND: Tensor

    def __init__(self, config: StructureConfig, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch_embed = VolumePatchEmbed(grid, config.patch, config.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        position = sincos_grid(self.patch_embed.patches, config.width)
        self.register_buffer("position_ND", position, persistent=False)
        self.blocks = Blocks(
            config.width, config.depth, config.heads, config.mlp_ratio, checkpointing=config.checkpointing
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)

    def embed(self, patches_BNV: Tensor, visible_BV: Tensor | None = None) -> Tensor:
        """Embed patches, all or the visible ones, with their positions: (B, N or V, D)."""
        if visible_BV is None:
            return self.patch_embed(patches_BNV) + self.position_ND
        return self.patch_embed(gather_tokens(patches_BNV, visible_BV)) + self.position_ND[visible_BV]

    def forward(self, x_BVD: Tensor) -> Tensor:
        """Encode what `embed` returns: (B, 1 + N or V, D), CLS first."""
        cls_B1D = self.cls_token.expand(len(x_BVD), -1, -1)
        return self.norm(self.blocks(torch.cat([cls_B1D, x_BVD], dim=1)))


class StructureMAE(nn.Module):
    """Encoder, and a decoder that fills in the patches which the encoder did not see.

    Parameters
    ----------
    config
        Sizes.
    grid
        Voxels of the T1 volumes along X, Y, Z; multiples of ``config.patch``.
    """

    decoder_position_NC: Tensor

    def __init__(self, config: StructureConfig, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.config = config
        self.grid = grid
        self.encoder = StructureEncoder(config, grid)
        width = config.decoder_width
        self.decoder_embed = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        position = sincos_grid(self.patches, width)
        self.register_buffer("decoder_position_NC", position, persistent=False)
        self.decoder_blocks = Blocks(
            width,
            config.decoder_depth,
            config.decoder_heads,
            config.mlp_ratio,
            checkpointing=config.checkpointing,
        )
        self.decoder_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(width, config.patch**3)
        init_weights(self)
        nn.init.normal_(self.encoder.cls_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)

    @property
    def patches(self) -> tuple[int, int, int]:
        """Patches along X, Y, Z."""
        return self.encoder.patch_embed.patches

    @property
    def n_tokens(self) -> int:
        """Tokens of a volume."""
        return self.patches[0] * self.patches[1] * self.patches[2]

    def encode(self, volume_BXYZ: Tensor) -> Tensor:
        """Return the tokens of all patches: (B, N, D), Z fastest, without CLS.

        Parameters
        ----------
        volume_BXYZ
            (B, X, Y, Z) intensity-normalised volumes on the grid.

        Raises
        ------
        ValueError
            If they are on another grid.
        """
        dtype = self.decoder_pred.weight.dtype
        # the patches, as large as the volume, are gone when the blocks begin
        x_BND = self.encoder.embed(self.encoder.patch_embed.cut(volume_BXYZ).to(dtype))
        return self.encoder(x_BND)[:, 1:]

    def forward(self, volume_BXYZ: Tensor, visible_BV: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss over hidden patches, and what to log.

        Parameters
        ----------
        volume_BXYZ
            (B, X, Y, Z) volumes.
        visible_BV
            (B, V) int64 indices of the patches that the encoder sees; see ``masking.mae_visible``.

        Returns
        -------
        loss
            Mean squared error of the hidden patches' (standardised) voxels.
        stats
            ``mean_predictor_loss``: the loss of predicting the batch's mean patch everywhere.
        """
        patches_BNV = self.encoder.patch_embed.cut(volume_BXYZ).to(self.decoder_pred.weight.dtype)
        seen_BVC = self.decoder_embed(self.encoder(self.encoder.embed(patches_BNV, visible_BV)))
        hidden_BU = complement(visible_BV, self.n_tokens)
        mask_BUC = self.mask_token + self.decoder_position_NC[hidden_BU]
        n_hidden = hidden_BU.shape[1]
        x_BNC = torch.cat(
            [
                mask_BUC.to(seen_BVC.dtype),
                seen_BVC[:, :1],
                seen_BVC[:, 1:] + self.decoder_position_NC[visible_BV].to(seen_BVC.dtype),
            ],
            dim=1,
        )
        y_BUC = self.decoder_norm(self.decoder_blocks(x_BNC, queries=slice(0, n_hidden)))
        target_BUV = gather_tokens(patches_BNV, hidden_BU).float()
        if self.config.norm_pix_loss:
            target_BUV = standardise(target_BUV)
        loss = (self.decoder_pred(y_BUC).float() - target_BUV).square().mean()
        spread = (target_BUV - target_BUV.mean(dim=(0, 1))).square().mean()
        return loss, {"mean_predictor_loss": spread.detach()}


def complement(index_BK: Tensor, n: int) -> Tensor:
    """Return the numbers below `n` that a row of `index_BK` leaves out, sorted: (B, n - K)."""
    hidden = torch.ones(len(index_BK), n, dtype=torch.int8, device=index_BK.device).scatter(1, index_BK, 0)
    return hidden.argsort(dim=1, descending=True, stable=True)[:, : n - index_BK.shape[1]]
