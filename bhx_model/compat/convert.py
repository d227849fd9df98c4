"""Convert names and shapes of the published BrainHarmonix code's tensors to ours."""

# Shapes: B batch, R ROIs, T frames, K frames per patch, N time patches, F = R * N, S structure tokens, H hub tokens,
# D width, X Y Z voxels

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bhx_model.config import (
    FusionInputs,
    load_preset,
)
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import ConfigError, DataError
from bhx_model.nets.patch_embed import whole_patches

#: What embedding needs of a stage: a checkpoint that lacks any of it is of no use. Decoders and the trained encoder
#: beside its slow copy are needed for training on only.
_NEEDED: Final = {
    "structure": re.compile(r"encoder\..*"),
    "function": re.compile(r"target\..*"),
    "fusion": re.compile(r"(?!decoder_|mask_token).*"),
}
Action = Literal["used", "renamed", "dropped", "absent"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """What leaves no trace in the shapes of a checkpoint's tensors; by default the released models'."""

    grid: tuple[int, int, int] = (160, 192, 160)
    """Voxels of the T1 volumes."""
    rois: int = 400
    time_patches: int = 18
    heads: int = 12
    """Of the encoders and the predictor."""

    def __post_init__(self) -> None:
        """Refuse sizes of nothing."""
        for name in ("rois", "time_patches", "heads"):
            if getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}: give a positive number"
                raise ConfigError(msg)

    def fusion_inputs(self, patch: int, width: int) -> FusionInputs:
        """Sizes of the fusion's tokens, `width` wide, from cubes of `patch` voxels."""
        x, y, z = whole_patches(self.grid, patch)
        return FusionInputs(
            structure_grid=(x, y, z), structure_width=width, rois=self.rois, time_patches=self.time_patches,
            function_width=width,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Line:
    """What became of one key."""

    action: Action
    theirs: str
    ours: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Converted:
    """State dict in our names, and what became of every key."""

    state: dict[str, Tensor]
    lines: list[Line]


@dataclasses.dataclass(frozen=True)
class _Rule:
    """Keys that match `pattern` become `name`, changed by `change`; or are dropped for the reason in `note`."""

    pattern: str
    name: str | None
    note: str = ""
    change: Callable[[Tensor], Tensor] | None = None


def _flat(weight: Tensor) -> Tensor:
    return weight.flatten(1)


_BLOCK = r"(\d+\.(?:norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12])\.(?:weight|bias))"
_TABLE = "sine and cosine table of {size}, computed here"
_SHARED = "the predictor reads the encoder's ROI code"
_MERGED = "added to hub"
UNTRAINED = "untrained: needed for training on only"
_FUNCTION_RULES = (
    *(
        rule
        for theirs, ours in (("encoder", "encoder"), ("encoder_ema", "target"))
        for rule in (
            _Rule(rf"{theirs}\.patch_embed\.proj\.weight", f"{ours}.patch_embed.weight", change=_flat),
            _Rule(rf"{theirs}\.patch_embed\.proj\.bias", f"{ours}.patch_embed.bias"),
            _Rule(rf"{theirs}\.pos_embed\.grad_proj\.(\w+)", rf"{ours}.roi_position.maps.gradients.\1"),
            _Rule(rf"{theirs}\.pos_embed\.geo_harm_proj\.(\w+)", rf"{ours}.roi_position.maps.harmonics.\1"),
            _Rule(rf"{theirs}\.pos_embed\.decoder_pos_embed_proj\..*", None, "the predictor has it"),
            _Rule(rf"{theirs}\.pos_embed\.emb_h_\w+", None, _TABLE),
            _Rule(rf"{theirs}\.blocks\.{_BLOCK}", rf"{ours}.blocks.\1"),
            _Rule(rf"{theirs}\.norm\.(\w+)", rf"{ours}.norm.\1"),
        )
    ),
    _Rule(r"decoder\.mask_token", "predictor.mask_token"),
    _Rule(r"decoder\.predictor_embed\.(\w+)", r"predictor.embed.\1"),
    _Rule(r"decoder\.predictor_pos_embed\.decoder_pos_embed_proj\.(\w+)", r"predictor.roi_map.\1"),
    _Rule(r"decoder\.predictor_pos_embed\.emb_h_\w+", None, _TABLE),
    _Rule(r"decoder\.predictor_pos_embed\.(?:grad|geo_harm)_proj\..*", None, _SHARED),
    _Rule(rf"decoder\.predictor_blocks\.{_BLOCK}", r"predictor.blocks.\1"),
    _Rule(r"decoder\.predictor_norm\.(\w+)", r"predictor.norm.\1"),
    _Rule(r"decoder\.predictor_proj\.(\w+)", r"predictor.proj.\1"),
)
_STRUCTURE_RULES = (
    _Rule(r"cls_token", "encoder.cls_token"),
    _Rule(r"pos_embed", None, _TABLE),
    _Rule(r"patch_embed\.proj\.weight", "encoder.patch_embed.proj.weight", change=_flat),
    _Rule(r"patch_embed\.proj\.bias", "encoder.patch_embed.proj.bias"),
    _Rule(rf"blocks\.{_BLOCK}", r"encoder.blocks.\1"),
    _Rule(r"norm\.(\w+)", r"encoder.norm.\1"),
)
_FUSION_RULES = (
    _Rule(r"latent_tokens", "hub", change=lambda t: t.reshape(1, *t.shape[-2:])),
    _Rule(r"enc_latent_token_positional_embedding", None, _MERGED),
    _Rule(
        r"dec_latent_token_positional_embedding", "decoder_hub", change=lambda t: t.reshape(1, *t.shape[-2:])
    ),
    _Rule(r"(?:decoder_)?pos_embed", None, _TABLE),
    _Rule(r"pre_map\.(\w+)", r"embed.maps.both.\1"),
    _Rule(r"decoder_pred\.(\w+)", r"decoder_pred.maps.both.\1"),
    _Rule(r"(cls_token|mask_token)", r"\1"),
    _Rule(rf"((?:decoder_)?blocks\.{_BLOCK})", r"\1"),
    _Rule(r"((?:norm|decoder_embed|decoder_norm)\.\w+)", r"\1"),
)
RULES: Final = {"structure": _STRUCTURE_RULES, "function": _FUNCTION_RULES, "fusion": _FUSION_RULES}


def convert(stage: str, theirs: Mapping[str, Tensor], model: nn.Module) -> Converted:
    """Bring a checkpoint of the published code into the names of `model` and load it.

    Parameters
    ----------
    stage
        ``structure``, ``function`` or ``fusion``.
    theirs
        State dict; ``module.``, which DataParallel puts before names, is ignored.
    model
        Of the sizes of the checkpoint, with the reference's switches. What the checkpoint lacks and embedding does
        not need keeps its value: the published structure encoder has no decoder.

    Raises
    ------
    DataError
        If a tensor does not fit, or one that embedding needs is missing.
    """
    bare = bare_names(theirs)
    state, lines = {}, []
    for key, bare_key in zip(theirs, bare, strict=True):
        value = theirs[key]
        rule = next((r for r in RULES[stage] if re.fullmatch(r.pattern, bare_key)), None)
        if rule is None:
            lines.append(Line("dropped", key, "", "not a part of this model"))
        elif rule.name is None:
            size = " x ".join(map(str, value.shape))
            lines.append(Line("dropped", key, "", rule.note.format(size=size)))
        else:
            name = re.sub(rule.pattern, rule.name, bare_key)
            state[name] = _changed(stage, key, value, rule)
            lines.append(Line("used" if name == key else "renamed", key, name))
    if stage == "function":
        _check_shared(bare)
    if stage == "fusion":
        state["hub"] = state["hub"] + _hub_position(bare, state["hub"].shape)
    own = model.state_dict()
    for name, value in state.items():
        if name not in own or own[name].shape != value.shape:
            need = tuple(own[name].shape) if name in own else "no such tensor"
            msg = f"{stage}: {name} is {tuple(value.shape)}, the model has {need}: give it the checkpoint's sizes"
            raise DataError(msg)
        if not torch.isfinite(value).all():
            msg = f"{stage}: {name} holds values that are not finite, nothing can be computed with them: load it anew"
            raise DataError(msg)
    given = {name for name, _ in model.named_buffers()}  # metadata about ROIs, from other files
    missing = [name for name in own if name not in state and name not in given]
    needed = [name for name in missing if _NEEDED[stage].fullmatch(name)]
    if needed:
        msg = f"{stage}: the checkpoint lacks {needed[0]} and {len(needed) - 1} more tensors: is it of this stage?"
        raise DataError(msg)
    lines += [Line("absent", "", name, UNTRAINED) for name in missing]
    lines += [Line("absent", "", name, "from the CSVs and rois.npz") for name in sorted(given & own.keys())]
    model.load_state_dict({**own, **state}, strict=True)
    return Converted(state, lines)


def _changed(stage: str, key: str, value: Tensor, rule: _Rule) -> Tensor:
    """Bring a tensor of a checkpoint into the shape that ours has."""
    if rule.change is None:
        return value
    try:
        return rule.change(value)
    except (IndexError, RuntimeError) as error:
        msg = f"{stage}: {key} of shape {tuple(value.shape)} is no such tensor: is it of this stage?"
        raise DataError(msg) from error


def _hub_position(theirs: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """Position code of the hub tokens, which the published code adds to them: (1, H, D)."""
    key = "enc_latent_token_positional_embedding"
    code = theirs.get(key)
    if code is None or code.numel() != shape.numel():
        what = "lacks" if code is None else f"has a {tuple(code.shape)}"
        msg = f"fusion: the checkpoint {what} {key}, hub tokens of {tuple(shape[1:])} need one: is it of this stage?"
        raise DataError(msg)
    return code.reshape(shape)


def bare_names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict without the ``module.`` that DataParallel puts before names, in the same order.

    Raises
    ------
    DataError
        If it has names with and without ``module.``.
    """
    bare = {re.sub(r"(^|\.)module\.", r"\1", key): value for key, value in theirs.items()}
    if len(bare) != len(theirs):
        msg = "the checkpoint holds names with and without 'module.': keep one of the two models in it"
        raise DataError(msg)
    return bare


def _check_shared(theirs: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint whose predictor has an ROI code of its own: ours reads the encoder's."""
    prefix = "decoder.predictor_pos_embed."
    for key, value in theirs.items():
        twin = "encoder.pos_embed." + key.removeprefix(prefix)
        if (
            key.startswith(prefix)
            and "_proj" in key
            and twin in theirs
            and not torch.equal(theirs[twin], value)
        ):
            msg = f"function: {key} and {twin} differ, although published models share them: another code version?"
            raise DataError(msg)


def sizes(stage: str, theirs: Mapping[str, Tensor], heads: int, inner_heads: int) -> dict[str, Any]:
    """Read a model's sizes from the shapes of its tensors, as fields of its configuration.

    Numbers of heads leave no trace in shapes and are given. Parts that the checkpoint lacks have the preset's sizes.

    Raises
    ------
    DataError
        If it is no checkpoint of this stage.
    """

    def depth(prefix: str) -> int:
        return 1 + max(int(m[1]) for k in theirs if (m := re.match(rf"{re.escape(prefix)}(\d+)\.", k)))

    first, prefix = {
        "structure": ("patch_embed.proj.weight", "blocks."),
        "function": ("encoder_ema.patch_embed.proj.weight", "encoder_ema.blocks."),
        "fusion": ("latent_tokens", "blocks."),
    }[stage]
    if first not in theirs or f"{prefix}0.norm1.weight" not in theirs:
        msg = f"no checkpoint of the {stage} stage: it has no {first} or no {prefix}0: name the right file"
        raise DataError(msg)
    axes = {
        first: {"structure": 5, "function": 2, "fusion": 2}[stage],
        "mask_token": 1,
        "decoder.mask_token": 1,
    }
    for key, least in axes.items():
        if key in theirs and theirs[key].ndim < least:
            msg = f"no checkpoint of the {stage} stage: {key} is {tuple(theirs[key].shape)}: name the right file"
            raise DataError(msg)
    shape = theirs[first].shape
    found = {"depth": depth(prefix), "heads": heads}
    if stage == "structure":
        return {**found, "width": shape[0], "patch": shape[-1]}
    if stage == "function":
        found |= {"width": shape[0], "base_patch": shape[-1]}
        if "decoder.mask_token" in theirs:
            found |= {
                "predictor_width": theirs["decoder.mask_token"].shape[-1],
                "predictor_depth": depth("decoder.predictor_blocks."), "predictor_heads": inner_heads,
            }  # fmt: skip
        return found
    found |= {"width": shape[-1], "hub_tokens": shape[-2]}
    if "mask_token" in theirs:
        found |= {
            "decoder_width": theirs["mask_token"].shape[-1], "decoder_depth": depth("decoder_blocks."),
            "decoder_heads": inner_heads,
        }  # fmt: skip
    return found


def reference_config(stage: str, changes: Mapping[str, Any]) -> Any:
    """Model configuration of preset `reference` with other sizes."""
    return load_preset(stage, "reference").override({f"model.{k}": v for k, v in changes.items()}).model


def numbered_rois(harmonics_RM: NDArray[np.float32], gradients_RG: NDArray[np.float32]) -> RoiMetadata:
    """ROIs of which only the published arrays are known: numbered, and with a normaliser that changes nothing."""
    n = len(harmonics_RM)
    return RoiMetadata(
        atlas="reference",
        names=tuple(f"roi-{i + 1}" for i in range(n)),
        hemisphere=(np.arange(n) >= n // 2).astype(np.int8),
        harmonics=harmonics_RM.astype(np.float32),
        eigenvalues=np.zeros((2, harmonics_RM.shape[1])),
        gradients=gradients_RG.astype(np.float32),
        median=np.zeros(n, np.float32),
        iqr=np.ones(n, np.float32),
    )
