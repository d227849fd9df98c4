"""Harmonizer: hub tokens that compress the tokens of both encoders, and a decoder that reconstructs them."""

# Shapes: B batch, S structure tokens, F function tokens (ROI-major), R ROIs, N time patches, H hub tokens,
# M tokens to reconstruct, D width, C decoder width

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from bhx_model.config import FusionConfig, FusionInputs
from bhx_model.errors import ConfigError
from bhx_model.nets.attention import KeyWeights, key_weights
from bhx_model.nets.hub_start import HubStart
from bhx_model.nets.pos_embed import grid_code, sincos, sincos_grid
from bhx_model.nets.vit import ALL, NORM_EPS, Blocks, Kept, init_weights, standardise

MODALITIES: Final = ("function", "structure")


class TokenPosition(nn.Module):
    """Position codes of the tokens of both modalities, and which modality it is.

    With modality embedding, function tokens are coded by time and ROI, structure tokens by their place in the
    grid, and a learned vector distinguishes them. Without (reference), all lie on one axis: function tokens
    roi * time_patches + patch, structure tokens after them.
    """

    function_FC: Tensor
    structure_SC: Tensor

    def __init__(self, config: FusionConfig, inputs: FusionInputs, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        n_function, n_structure = inputs.rois * inputs.time_patches, inputs.structure_tokens
        if config.modality_embedding:
            half = width // 4 * 2
            time = sincos(torch.arange(inputs.time_patches), half)
            function = grid_code(time, sincos(torch.arange(inputs.rois), width - half))
            structure = sincos_grid(inputs.structure_grid, width)
            self.modality = nn.ParameterDict({m: nn.Parameter(torch.zeros(width)) for m in MODALITIES})
        else:
            axis = sincos(torch.arange(n_function + n_structure), width)
            function, structure = axis.split([n_function, n_structure])
            self.modality = nn.ParameterDict()
        self.register_buffer("function_FC", function.clone(), persistent=False)
        self.register_buffer("structure_SC", structure.clone(), persistent=False)

    def forward(self, modality: str, n_patches: int) -> Tensor:
        """Return the code of all structure tokens, or of the function tokens of the first `n_patches` patches."""
        if modality == "structure":
            code = self.structure_SC
        else:
            code = self.function_FC.unflatten(0, (self.inputs.rois, -1))[:, :n_patches].flatten(0, 1)
        return code + self.modality[modality] if modality in self.modality else code


class ModalityMaps(nn.Module):
    """A linear map for each modality, or one for both (reference: none where the widths agree).

    Raises
    ------
    ConfigError
        If modalities of different widths are to share a map.
    """

    def __init__(self, config: FusionConfig, ins: dict[str, int], outs: dict[str, int], bare: bool) -> None:
        super().__init__()
        if config.modality_embedding:
            self.maps = nn.ModuleDict({m: nn.Linear(ins[m], outs[m]) for m in MODALITIES})
            return
        sizes = {(ins[m], outs[m]) for m in MODALITIES}
        if len(sizes) > 1:
            msg = "fusion without modality_embedding shares its maps: both encoders must be equally wide"
            raise ConfigError(msg)
        ((n_in, n_out),) = sizes
        shared = nn.Identity() if bare and n_in == n_out else nn.Linear(n_in, n_out)
        self.maps = nn.ModuleDict({"both": shared})

    def forward(self, x_BND: Tensor, modality: str) -> Tensor:
        """Map tokens of one modality."""
        return self.maps[modality if modality in self.maps else "both"](x_BND)


class FusionModel(nn.Module):
    """Encoder of hub tokens, and decoder.

    Parameters
    ----------
    config
        Sizes and switches.
    inputs
        Sizes of the tokens that come in.
    """

    def __init__(self, config: FusionConfig, inputs: FusionInputs) -> None:
        super().__init__()
        self.config = config
        self.inputs = inputs
        width, inner = config.width, config.decoder_width
        token_widths: dict[str, int] = {
            "structure": inputs.structure_width,
            "function": inputs.function_width,
        }
        self.embed = ModalityMaps(config, token_widths, dict.fromkeys(MODALITIES, width), bare=True)
        self.position = TokenPosition(config, inputs, width)
        self.hub = nn.Parameter(torch.empty(1, config.hub_tokens, width))
        self.hub_start = (
            HubStart(config.hub_tokens, inputs.rois, inputs.structure_tokens)
            if config.hub_start == "places"
            else None
        )
        self.cls_token = nn.Parameter(torch.empty(1, 1, width)) if config.cls_bypass else None
        self.blocks = Blocks(
            width,
            config.depth,
            config.heads,
            config.mlp_ratio,
            drop_path=config.drop_path,
            checkpointing=config.checkpointing,
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(width, inner)
        self.decoder_position = TokenPosition(config, inputs, inner)
        self.decoder_hub = nn.Parameter(torch.empty(1, config.hub_tokens, inner))
        self.mask_token = nn.Parameter(torch.empty(1, 1, inner))
        self.decoder_blocks = Blocks(
            inner,
            config.decoder_depth,
            config.decoder_heads,
            config.mlp_ratio,
            checkpointing=config.checkpointing,
        )
        self.decoder_norm = nn.LayerNorm(inner, eps=NORM_EPS)
        self.decoder_pred = ModalityMaps(config, dict.fromkeys(MODALITIES, inner), token_widths, bare=False)
        init_weights(self)
        # as large as what they attend to: hub tokens that start alike stay alike
        nn.init.normal_(self.hub)
        nn.init.normal_(self.decoder_hub)
        learned = [self.mask_token, self.cls_token]
        learned += [*self.position.modality.values(), *self.decoder_position.modality.values()]
        for parameter in learned:
            if parameter is not None:
                nn.init.normal_(parameter, std=0.02)

    def encode(
        self,
        structure_BSD: Tensor,
        function_BFD: Tensor,
        n_patches: int,
        *,
        normed: bool = True,
        kept: Kept | None = None,
    ) -> Tensor:
        """Return the hub tokens: (B, H, D).

        Parameters
        ----------
        structure_BSD
            (B, S, structure width) tokens of the structure encoder.
        function_BFD
            (B, R * n_patches, function width) tokens of the function encoder, ROI-major; or of all
            ``time_patches``, of which those beyond `n_patches` are not read.
        n_patches
            Time patches that hold data.
        normed
            After the final norm, as the decoder reads them. An endpoint's head averages the hub tokens before any
            norm and has one of its own.
        kept
            Which branches of the blocks each sample skips, from ``blocks.draw``; drawn here if None.

        Raises
        ------
        ValueError
            If numbers or widths of tokens do not fit the model.
        """
        latents_BHD = self._encode(structure_BSD, function_BFD, n_patches, kept)[:, : self.config.hub_tokens]
        return self.norm(latents_BHD) if normed else latents_BHD

    def latents(self, structure_BSD: Tensor, function_BFD: Tensor, n_patches: int) -> Tensor:
        """Return what the decoder reads: hub tokens and, with `cls_bypass`, CLS after them."""
        return self.norm(self._encode(structure_BSD, function_BFD, n_patches))

    def _encode(
        self, structure_BSD: Tensor, function_BFD: Tensor, n_patches: int, kept: Kept | None = None
    ) -> Tensor:
        valid_BFD = self._valid(structure_BSD, function_BFD, n_patches)
        x_BFD = self.embed(valid_BFD, "function")
        x_BSD = self.embed(structure_BSD, "structure")
        first = [self.hub.expand(len(x_BSD), -1, -1)]
        if self.hub_start is not None:
            first[0] = first[0] + self.hub_start(x_BSD, x_BFD)
        if self.cls_token is not None:
            first.append(self.cls_token.expand(len(x_BSD), -1, -1))
        x_BFD = x_BFD + self.position("function", n_patches)
        x_BSD = x_BSD + self.position("structure", n_patches)
        n_first = sum(t.shape[1] for t in first)
        weights = self.attention_weights(n_first, x_BFD.shape[1], x_BSD.shape[1])
        x_BND = torch.cat([*first, x_BFD, x_BSD], dim=1)
        del x_BFD, x_BSD  # as large as x_BND, and the blocks need the memory
        return self.blocks(x_BND, queries=slice(0, n_first), weights=weights, kept=kept)

    def attention_weights(self, n_first: int, n_function: int, n_structure: int) -> KeyWeights | None:
        """Return how much tokens (hub and CLS, function, structure) count where they are attended to.

        With ``modality_attention: equal`` so that each modality weighs as half of the tokens of both; else None, equally.
        """
        if self.config.modality_attention == "tokens":
            return None
        half = (n_function + n_structure) / 2
        groups = ((n_first, 1.0), (n_function, half / n_function), (n_structure, half / n_structure))
        head = self.config.width // self.config.heads
        return key_weights(groups, self.hub.device, self.hub.dtype, head)

    def decode(self, latents_BHD: Tensor, n_patches: int) -> dict[str, Tensor]:
        """Reconstruct tokens from `latents`: function (B, R * n_patches, .) and structure (B, S, .)."""
        h_BHC = self.decoder_embed(latents_BHD)
        hub_tokens = self.config.hub_tokens
        h_BHC = torch.cat([h_BHC[:, :hub_tokens] + self.decoder_hub, h_BHC[:, hub_tokens:]], dim=1)
        codes_MC = [self.decoder_position(m, n_patches) for m in MODALITIES]
        mask_BMC = (self.mask_token + torch.cat(codes_MC)).expand(len(h_BHC), -1, -1)
        kept = h_BHC.shape[1]
        y_BMC = self.decoder_blocks(
            torch.cat([h_BHC, mask_BMC.to(h_BHC.dtype)], dim=1),
            queries=slice(kept, None),
            keys=slice(0, kept) if self.config.decoder == "cross" else ALL,
        )
        parts = self.decoder_norm(y_BMC).split([len(code) for code in codes_MC], dim=1)
        return {m: self.decoder_pred(part, m) for m, part in zip(MODALITIES, parts, strict=True)}

    def forward(
        self,
        structure_BSD: Tensor,
        function_BFD: Tensor,
        n_patches: int,
        weight_BF: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the reconstruction loss, and what to log.

        Parameters
        ----------
        structure_BSD, function_BFD, n_patches
            As in `encode`; with ``loss_tokens: all`` function tokens of all ``time_patches``.
        weight_BF
            (B, F) how much each function token counts, see ``FunctionJEPA.token_weights``; equally if None.

        Returns
        -------
        loss
            Mean squared error per token; the mean of both modalities' with `balance`, else over all tokens.
        stats
            ``structure`` and ``function``: the modalities' losses; ``mean_predictor_loss``: the loss of predicting each
            modality's mean token.

        Raises
        ------
        ValueError
            If the loss is over the tokens of all patches, and not all are given.
        """
        latents_BHD = self.latents(structure_BSD, function_BFD, n_patches)
        wanted = n_patches
        if self.config.loss_tokens == "all":
            wanted = self.inputs.time_patches
            if function_BFD.shape[1] != self.inputs.rois * wanted:
                msg = "fusion loss_tokens is all, but the tokens hold valid patches only: encode them with pad_to"
                raise ValueError(msg)
        else:
            function_BFD = self._valid(structure_BSD, function_BFD, n_patches)
        targets: dict[str, Tensor] = {
            "function": function_BFD.float(),
            "structure": structure_BSD.float(),
        }
        if self.config.norm_targets:
            targets = {m: standardise(t) for m, t in targets.items()}
        predicted = self.decode(latents_BHD, wanted)
        weights = {m: torch.ones(t.shape[:2], device=t.device) for m, t in targets.items()}
        if weight_BF is not None:
            weights["function"] = weight_BF.to(function_BFD.device)
        errors = {m: (predicted[m].float() - targets[m]).square().mean(dim=-1) for m in MODALITIES}
        spreads = {m: (t - t.mean(dim=(0, 1))).square().mean(dim=-1).detach() for m, t in targets.items()}
        loss, by_modality = self._average(errors, weights)
        stats = {m: value.detach() for m, value in by_modality.items()}
        return loss, {**stats, "mean_predictor_loss": self._average(spreads, weights)[0]}

    def _average(
        self, errors: dict[str, Tensor], weights: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        sums = {m: (errors[m] * weights[m]).sum() for m in MODALITIES}
        totals = {m: weights[m].sum() for m in MODALITIES}
        means = {m: sums[m] / totals[m] for m in MODALITIES}
        if self.config.balance:
            return (means["function"] + means["structure"]) / 2, means
        return (sums["function"] + sums["structure"]) / (totals["function"] + totals["structure"]), means

    def _valid(self, structure_BSD: Tensor, function_BFD: Tensor, n_patches: int) -> Tensor:
        """Return the function tokens of the first `n_patches` patches, after checking all sizes."""
        inputs = self.inputs
        expected = (inputs.structure_tokens, inputs.structure_width)
        if tuple(structure_BSD.shape[1:]) != expected:
            msg = f"structure tokens are {tuple(structure_BSD.shape[1:])}, the fusion needs {expected}: same encoder?"
            raise ValueError(msg)
        if not 0 < n_patches <= inputs.time_patches:
            msg = f"{n_patches} time patches, the fusion knows 1 to {inputs.time_patches}: crop the series"
            raise ValueError(msg)
        per_roi, rest = divmod(function_BFD.shape[1], inputs.rois)
        if (
            rest
            or per_roi not in (n_patches, inputs.time_patches)
            or function_BFD.shape[2] != inputs.function_width
        ):
            msg = (
                f"function tokens are {tuple(function_BFD.shape[1:])}, {n_patches} patches of {inputs.rois} ROIs "
                f"need {(n_patches * inputs.rois, inputs.function_width)}: same encoder and atlas?"
            )
            raise ValueError(msg)
        if per_roi == n_patches:
            return function_BFD
        return function_BFD.unflatten(1, (inputs.rois, per_roi))[:, :, :n_patches].flatten(1, 2)
