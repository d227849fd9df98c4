"""The training step as the published code computes it, reimplemented on this code's modules and weights.

Every linear layer sees all 18 patches of 400 ROIs whatever the length of the run, and attention alone leaves out what is
padding; the last block computes tokens that nothing reads; T1 patches come from a strided Conv3d over the whole volume, and
the autoencoder's decoder predicts every patch; the fusion reconstructs tokens of padding. What the published code lacks
(masking and decoder of the structure stage, masks of the function stage) is done as its sources, MAE and Brain-JEPA, do.
"""

from __future__ import annotations

import torch
from model import Conv3dStem, as_published  # tests/benchmarks/model.py
from torch import Tensor

from bhx_model.config import StageConfig, load_preset
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE, complement
from bhx_model.nets.vit import gather_tokens, standardise

#: Switches of preset `reference` that say what is computed, for presets of other sizes.
SWITCHES = {
    "structure": (),
    "function": ("connectivity_code", "connectivity_weight", "whitening_weight", "scaling", "harmonics"),
    "fusion": ("loss_tokens", "balance", "cls_bypass", "modality_embedding", "modality_attention", "hub_start", "decoder"),
}  # fmt: skip


def config(ours: StageConfig) -> StageConfig:
    """Return `ours` with what the published code computes."""
    theirs = load_preset(ours.stage, "reference").to_dict()["model"]
    return ours.override({f"model.{name}": theirs[name] for name in SWITCHES[ours.stage]})


def change_structure(model: StructureMAE) -> None:
    """Make a model compute its loss as MAE does in 3D."""
    stem = Conv3dStem(model.encoder.patch_embed)
    model.encoder.add_module("published_stem", stem)
    as_published(model.encoder.blocks)
    as_published(model.decoder_blocks)
    patches = model.encoder.patch_embed.cut

    def forward(volume_BXYZ: Tensor, visible_BV: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x_BND = stem(volume_BXYZ) + model.encoder.position_ND
        seen_BVC = model.decoder_embed(model.encoder(gather_tokens(x_BND, visible_BV)))
        hidden_BU = complement(visible_BV, model.n_tokens)
        mask_BUC = model.mask_token.to(seen_BVC.dtype).expand(len(hidden_BU), hidden_BU.shape[1], -1)
        places_BN = torch.cat([visible_BV, hidden_BU], dim=1).argsort(dim=1)
        all_BNC = gather_tokens(torch.cat([seen_BVC[:, 1:], mask_BUC], dim=1), places_BN)
        all_BNC = all_BNC + model.decoder_position_NC
        y_BNC = model.decoder_norm(model.decoder_blocks(torch.cat([seen_BVC[:, :1], all_BNC], dim=1)))
        predicted_BNV = model.decoder_pred(y_BNC)[:, 1:].float()
        error_BN = (predicted_BNV - standardise(patches(volume_BXYZ).float())).square().mean(dim=-1)
        return error_BN.gather(1, hidden_BU).mean(), {}

    model.forward = forward  # type: ignore[method-assign]


def change_function(model: FunctionJEPA, patches: int) -> None:
    """Make all patches, of which `patches` hold data, pass both encoders."""
    as_published(model.target.blocks, model.n_rois * patches)
    as_published(model.encoder.blocks)
    as_published(model.predictor.blocks)


def change_fusion(model: FusionModel, patches: int) -> None:
    """Make all patches, of which `patches` hold data, pass the encoder, and the decoder attend to all."""
    inputs = model.inputs
    valid = 1 + model.config.hub_tokens + inputs.rois * patches + inputs.structure_tokens
    as_published(model.blocks, valid)
    as_published(model.decoder_blocks)
