"""BrainHarmonix-F: a joint-embedding predictive model of ROI series of any repetition time."""

# Shapes: B batch, R ROIs, T frames, K frames per patch, N time patches, F = R * N tokens (ROI-major),
# C context tokens, U target tokens, D width, E predictor width, M components

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bhx_model.config import FunctionConfig
from bhx_model.data.rois import RoiMetadata
from bhx_model.nets.attention import with_few_lengths
from bhx_model.nets.connectivity import ConnectivityCode, whitening_loss
from bhx_model.nets.normalise import Normaliser
from bhx_model.nets.patch_embed import SeriesPatchEmbed
from bhx_model.nets.pos_embed import RoiPosition, grid_code, time_code
from bhx_model.nets.vit import NORM_EPS, Blocks, gather_tokens, init_weights


class FunctionEncoder(nn.Module):
    """Vision transformer over ROI x time patches."""

    def __init__(self, config: FunctionConfig, rois: RoiMetadata) -> None:
        super().__init__()
        self.patch_embed = SeriesPatchEmbed(config.base_patch, config.width, config.resize, config.base_tr_s)
        self.roi_position = RoiPosition(config, rois, config.width // 2)
        self.connectivity: ConnectivityCode | None = None
        if config.connectivity_code:
            self.connectivity = ConnectivityCode(
                self.roi_position.columns(), config.connectivity_code, config.width
            )
        self.blocks = Blocks(
            config.width, config.depth, config.heads, config.mlp_ratio, checkpointing=config.checkpointing
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)

    def position(self, n_patches: int) -> Tensor:
        """Return the position code of all tokens: (R * N, D), half time, half ROI."""
        roi_RC = self.roi_position()
        time_NC = time_code(n_patches, roi_RC.shape[1], roi_RC.device)
        return grid_code(time_NC, roi_RC)

    def embed(self, content_BRND: Tensor, code_BRM: Tensor | None) -> Tensor:
        """Add positions and, where there is one, the connectivity code to embedded patches: (B, F, D)."""
        x_BRND = content_BRND + self.patch_embed.bias
        if self.connectivity is not None:
            assert code_BRM is not None
            x_BRND = x_BRND + self.connectivity.map(code_BRM)[:, :, None]
        return x_BRND.flatten(1, 2) + self.position(x_BRND.shape[2])

    def code(self, content_BRND: Tensor, context_BC: Tensor | None = None) -> Tensor | None:
        """Return the connectivity code of the tokens of a context, or of all: (B, R, M); None if the model has none."""
        if self.connectivity is None:
            return None
        if context_BC is None:
            return self.connectivity(content_BRND)
        seen_BRN = torch.zeros(content_BRND.shape[:3], device=content_BRND.device)
        seen_BRN = seen_BRN.flatten(1).scatter(1, context_BC, 1.0).view_as(seen_BRN)
        return self.connectivity(content_BRND, seen_BRN)

    def context(self, content_BRND: Tensor, context_BC: Tensor) -> Tensor:
        """Encode some tokens, (B, C), as if there were no others: (B, C, D)."""
        x_BFD = self.embed(content_BRND, self.code(content_BRND, context_BC))
        return self.norm(self.blocks(gather_tokens(x_BFD, context_BC)))

    def whole(self, content_BRND: Tensor, code_BRM: Tensor | None, keys: int | None = None) -> Tensor:
        """Encode all tokens of embedded patches and their code; `keys` as in `forward`: (B, F, D)."""
        x_BFD = self.embed(content_BRND, code_BRM)
        n_rois, n = content_BRND.shape[1:3]
        if keys is None or keys == n:
            return self.norm(self.blocks(x_BFD))
        # time-major, so that the tokens that are attended to come first
        x_BFD = x_BFD.unflatten(1, (n_rois, n)).transpose(1, 2).flatten(1, 2)
        y_BFD = self.norm(self.blocks(x_BFD, keys=slice(0, keys * n_rois)))
        return y_BFD.unflatten(1, (n, n_rois)).transpose(1, 2).flatten(1, 2)

    def forward(
        self, scaled_BRT: Tensor, patch_frames: int, context_BC: Tensor | None = None, keys: int | None = None
    ) -> Tensor:
        """Encode normalised series.

        Parameters
        ----------
        scaled_BRT
            (B, R, N * K) normalised series.
        patch_frames
            K.
        context_BC
            Tokens to encode, as if there were no others; all if None.
        keys
            Number of time patches that hold data; those beyond are computed, but no token attends to them.
            Only preset `reference` wants them. All if None.

        Returns
        -------
        (B, F or C, D)
        """
        content_BRND = self.patch_embed.content(scaled_BRT, patch_frames)
        if context_BC is not None:
            return self.context(content_BRND, context_BC)
        return self.whole(content_BRND, self.code(content_BRND), keys)


class Predictor(nn.Module):
    """Narrow transformer that predicts target tokens from context tokens and positions."""

    def __init__(self, config: FunctionConfig) -> None:
        super().__init__()
        width = config.predictor_width
        self.embed = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.roi_map = nn.Linear(config.width // 2, width // 2)
        self.blocks = Blocks(
            width,
            config.predictor_depth,
            config.predictor_heads,
            config.mlp_ratio,
            checkpointing=config.checkpointing,
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.proj = nn.Linear(width, config.width)

    def position(self, roi_RC: Tensor, n_patches: int) -> Tensor:
        """Return the position code (R * N, E) from the encoder's ROI code, which learns nothing from here."""
        roi_RE = self.roi_map(roi_RC.detach())
        time_NE = time_code(n_patches, roi_RE.shape[1], roi_RC.device)
        return grid_code(time_NE, roi_RE.float())

    def forward(
        self, context_BCD: Tensor, context_BC: Tensor, target_BU: Tensor, roi_RC: Tensor, n_patches: int
    ) -> Tensor:
        """Predict the tokens at `target_BU`: (B, U, D)."""
        position_FE = self.position(roi_RC, n_patches)
        mask_BUE = self.mask_token + position_FE[target_BU]
        seen_BCE = self.embed(context_BCD) + position_FE[context_BC]
        x_BNE = torch.cat([mask_BUE.to(seen_BCE.dtype), seen_BCE], dim=1)
        return self.proj(self.norm(self.blocks(x_BNE, queries=slice(0, target_BU.shape[1]))))


class _Prediction(NamedTuple):
    """What a step computes before its losses."""

    predicted_BUD: Tensor
    wanted_BUD: Tensor
    weight_BU: Tensor
    scaled_BRT: Tensor
    """Normalised series."""
    content_BRND: Tensor
    """Patches as the trained encoder embeds them, without bias or position."""
    context_BCD: Tensor
    """Tokens of the context."""
    code_BRM: Tensor | None
    """Connectivity code of the whole runs, by the target encoder."""


class FunctionJEPA(nn.Module):
    """Encoder, predictor, and the target encoder: a slow copy of the encoder that is never trained itself.

    All series of a batch share their patch length and number of patches, so nothing is computed for padding
    beyond the last patch.

    Parameters
    ----------
    config
        Sizes and switches.
    rois
        Per-ROI metadata; they become buffers.
    """

    def __init__(self, config: FunctionConfig, rois: RoiMetadata) -> None:
        super().__init__()
        self.config = config
        self.n_rois = len(rois)
        self.normaliser = Normaliser(rois, config.scaling)
        self.encoder = FunctionEncoder(config, rois)
        self.predictor = Predictor(config)
        self.connectivity_head: nn.Linear | None = None
        if self.encoder.connectivity is not None and config.connectivity_weight:
            self.connectivity_head = nn.Linear(config.width, self.encoder.connectivity.map.in_features)
        init_weights(self)
        nn.init.trunc_normal_(self.predictor.mask_token, std=0.02)
        if self.encoder.connectivity is not None:
            nn.init.zeros_(self.encoder.connectivity.map.weight)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)

    def encode(
        self, series_BRT: Tensor, patch_frames: int, *, pad_to: int | None = None, target: bool = True
    ) -> Tensor:
        """Return the tokens of all patches that hold data: (B, R * N, D), token = roi * N + patch.

        Parameters
        ----------
        series_BRT
            (B, R, N * K) parcel means before any scaling, NaN beyond the last frame and for ROIs
            without coverage; ``augment.apply_plan`` makes it.
        patch_frames
            K.
        pad_to
            Compute tokens of padding up to this number of patches too, as the reference does. Nothing should
            want them but a fusion whose loss is over all tokens.
        target
            Use the target encoder, as downstream stages do, or the trained one.

        Raises
        ------
        ValueError
            If the shape does not fit the model.
        """
        n = self._check(series_BRT, patch_frames)
        encoder = self.target if target else self.encoder
        scaled_BRT = self.normaliser(series_BRT)
        if pad_to is None:
            return encoder(scaled_BRT, patch_frames)
        if pad_to < n:
            msg = f"{n} patches hold data, more than the {pad_to} that were asked for: crop the series, or pad to more"
            raise ValueError(msg)
        padded_BRT = F.pad(scaled_BRT, (0, (pad_to - n) * patch_frames))
        return encoder(padded_BRT, patch_frames, keys=n)

    def token_weights(self, series_BRT: Tensor, patch_frames: int) -> Tensor:
        """Return how much a token counts in a loss: (B, F), the share of its frames that hold data.

        With ``partial_patch: whole`` every token counts fully.
        """
        patches_BFK = series_BRT.unflatten(-1, (-1, patch_frames)).flatten(1, 2)
        if self.config.partial_patch == "whole":
            return torch.ones(patches_BFK.shape[:2], device=series_BRT.device)
        return (~patches_BFK.isnan()).float().mean(dim=-1)

    def forward(
        self,
        series_BRT: Tensor,
        patch_frames: int,
        context_BC: Tensor,
        target_BU: Tensor,
        *,
        diagnose: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what is minimised, and what to log.

        Parameters
        ----------
        series_BRT, patch_frames
            As in `encode`.
        context_BC, target_BU
            (B, C) and (B, U) int64 token indices of ``masking.jepa_masks``.
        diagnose
            Also compute the effective rank of the targets, which takes an eigenvalue decomposition.

        Returns
        -------
        objective
            Mean over samples of `sample_losses`, plus the weighted terms that the configuration adds.
        stats
            ``loss``: the first alone, with which ``mean_predictor_loss``, that of predicting the batch's mean target, is
            compared; ``target_std``: mean over channels of the standard deviation over tokens; with `diagnose`,
            ``target_rank``. All fall to 0 (the rank to 1) when the targets collapse. ``connectivity_loss`` and
            ``whitening_loss`` where they have a weight, the former to be compared with
            ``connectivity_mean_predictor_loss``: that of predicting every run to be as the mean run at the start of the
            training was. Both are about 1 then, and drift with the embedding.
        """
        done = self._predict(series_BRT, patch_frames, context_BC, target_BU)
        wanted_BUD = done.wanted_BUD
        loss = self.sample_losses(done.predicted_BUD, wanted_BUD, done.weight_BU).mean()
        objective, terms = loss, {}
        if self.connectivity_head is not None:
            terms |= self._connectivity_losses(done, context_BC)
            objective = objective + self.config.connectivity_weight * terms["connectivity_loss"]
        if self.config.whitening_weight:
            patches_BFK = done.scaled_BRT.unflatten(-1, (-1, patch_frames)).flatten(1, 2)
            kernel_DK = self.encoder.patch_embed.kernel(patch_frames)
            terms["whitening_loss"] = whitening_loss(patches_BFK, kernel_DK).mean()
            objective = objective + self.config.whitening_weight * terms["whitening_loss"]
        with torch.no_grad():
            mean_D = wanted_BUD.mean(dim=(0, 1))
            stats = {
                "loss": loss.detach(),
                **{name: term.detach() for name, term in terms.items()},
                "mean_predictor_loss": F.smooth_l1_loss(mean_D.expand_as(wanted_BUD), wanted_BUD),
                "target_std": wanted_BUD.flatten(0, 1).std(dim=0).mean(),
            }
            if diagnose:
                stats["target_rank"] = effective_rank(wanted_BUD.flatten(0, 1))
        return objective, stats

    def predict(
        self, series_BRT: Tensor, patch_frames: int, context_BC: Tensor, target_BU: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return predictions (B, U, D), what they should be (B, U, D), and weights (B, U)."""
        done = self._predict(series_BRT, patch_frames, context_BC, target_BU)
        return done.predicted_BUD, done.wanted_BUD, done.weight_BU

    def _predict(
        self, series_BRT: Tensor, patch_frames: int, context_BC: Tensor, target_BU: Tensor
    ) -> _Prediction:
        n = self._check(series_BRT, patch_frames)
        scaled_BRT = self.normaliser(series_BRT)
        with torch.no_grad(), with_few_lengths():  # all tokens of runs, whatever is masked
            content_BRND = self.target.patch_embed.content(scaled_BRT, patch_frames)
            code_BRM = self.target.code(content_BRND)
            tokens_BUD = gather_tokens(self.target.whole(content_BRND, code_BRM), target_BU)
            wanted_BUD = F.layer_norm(tokens_BUD.float(), tokens_BUD.shape[-1:])
        content_BRND = self.encoder.patch_embed.content(scaled_BRT, patch_frames)
        context_BCD = self.encoder.context(content_BRND, context_BC)
        roi_RC = self.encoder.roi_position()
        predicted_BUD = self.predictor(context_BCD, context_BC, target_BU, roi_RC, n)
        weight_BU = self.token_weights(series_BRT, patch_frames).gather(1, target_BU)
        return _Prediction(
            predicted_BUD.float(), wanted_BUD, weight_BU, scaled_BRT, content_BRND, context_BCD, code_BRM
        )

    def _connectivity_losses(self, done: _Prediction, context_BC: Tensor) -> dict[str, Tensor]:
        """Mean squared errors of the whole run's code, for every ROI that is seen: predicted from its tokens, and as 0."""
        assert self.connectivity_head is not None
        assert done.code_BRM is not None
        wanted_BRM, context_BCD = done.code_BRM, done.context_BCD
        n_rois, n = done.content_BRND.shape[1:3]
        roi_BC = context_BC // n
        sum_BRD = torch.zeros(len(roi_BC), n_rois, context_BCD.shape[-1], device=roi_BC.device)
        sum_BRD = sum_BRD.scatter_add(1, roi_BC[..., None].expand_as(context_BCD), context_BCD.float())
        count_BR = torch.zeros(len(roi_BC), n_rois, device=roi_BC.device)
        count_BR = count_BR.scatter_add(1, roi_BC, torch.ones_like(roi_BC, dtype=count_BR.dtype))
        predicted_BRM = self.connectivity_head(sum_BRD / count_BR.clamp_min(1)[..., None]).float()
        counts_BR = count_BR.gt(0) & wanted_BRM.ne(0).any(dim=-1)

        def over_rois(error_BRM: Tensor) -> Tensor:
            error_BR = error_BRM.square().mean(dim=-1)
            return ((error_BR * counts_BR).sum(dim=1) / counts_BR.sum(dim=1).clamp_min(1)).mean()

        return {
            "connectivity_loss": over_rois(predicted_BRM - wanted_BRM),
            "connectivity_mean_predictor_loss": over_rois(wanted_BRM),  # of which the mean is taken off
        }

    @torch.no_grad()
    def connectivity_code(self, series_BRT: Tensor, patch_frames: int) -> Tensor:
        """Return the standardised connectivity code of whole runs, by the target encoder: (B, R, M).

        Raises
        ------
        ValueError
            If the model has none.
        """
        content_BRND = self.target.patch_embed.content(self.normaliser(series_BRT), patch_frames)
        code_BRM = self.target.code(content_BRND)
        if code_BRM is None:
            msg = "the model was configured without a connectivity code (model.connectivity_code is 0)"
            raise ValueError(msg)
        return code_BRM

    @torch.no_grad()
    def fit_connectivity(self, runs: Iterable[tuple[Tensor, int]]) -> None:
        """Take the mean and the spread of the connectivity code from runs of the training, if there is a code.

        Parameters
        ----------
        runs
            (R, T) series as `encode` takes them, and the frames of a patch.
        """
        codes = [encoder.connectivity for encoder in (self.encoder, self.target)]
        if codes[0] is None:
            return
        found_NRM = torch.cat([
            codes[0].correlations(self.encoder.patch_embed.content(self.normaliser(series_RT[None]), frames))
            for series_RT, frames in runs
        ])  # fmt: skip
        for code in codes:
            assert code is not None
            code.fit(found_NRM)

    @staticmethod
    def sample_losses(predicted_BUD: Tensor, wanted_BUD: Tensor, weight_BU: Tensor) -> Tensor:
        """Return the weighted mean smooth-L1 distance of each sample: (B,); 0 where all weights are."""
        distance_BU = F.smooth_l1_loss(predicted_BUD, wanted_BUD, reduction="none").mean(dim=-1)
        return (distance_BU * weight_BU).sum(dim=1) / weight_BU.sum(dim=1).clamp_min(1e-6)

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Move the target encoder: ``target = momentum * target + (1 - momentum) * encoder``."""
        slow, fast = tuple(self.target.parameters()), tuple(self.encoder.parameters())
        torch._foreach_lerp_(slow, fast, 1 - momentum)  # a few kernels, not one for every weight

    def _check(self, series_BRT: Tensor, patch_frames: int) -> int:
        """Return the number of patches, or say what does not fit."""
        n_rois, frames = series_BRT.shape[-2:]
        if series_BRT.ndim != 3 or n_rois != self.n_rois:
            msg = f"series of shape {tuple(series_BRT.shape)}, the model needs (batch, {self.n_rois} ROIs, frames)"
            raise ValueError(msg)
        if frames < patch_frames or frames % patch_frames:
            msg = (
                f"{frames} frames are no whole number of patches of {patch_frames}: pad the last one with NaN"
            )
            raise ValueError(msg)
        return frames // patch_frames


def effective_rank(tokens_ND: Tensor, limit: int = 4096) -> Tensor:
    """Return the exponential of the entropy of the covariance's spectrum (Roy & Vetterli 2007).

    Parameters
    ----------
    tokens_ND
        (N, D) tokens, of which at most `limit`, evenly spread, are used.
    limit
        Bounds the cost.

    Returns
    -------
    () float
        Between 1 (all tokens lie on a line) and D; NaN if a token is not finite.
    """
    step = max(len(tokens_ND) // limit, 1)
    covariance_DD = torch.cov(tokens_ND[::step].float().T)
    finite = covariance_DD.isfinite().all()  # of anything else there is no decomposition, but an exception
    spectrum = torch.linalg.eigvalsh(torch.where(finite, covariance_DD, 0.0)).clamp_min(0)
    share = spectrum / spectrum.sum().clamp_min(1e-12)
    return torch.where(finite, torch.special.entr(share).sum().exp(), torch.nan)
