"""Weights and numbers of the published BrainHarmonix code: load its checkpoints, and check that we compute the same.

::

    python -m bhx_model.compat check GOLDEN_FOLDER
    python -m bhx_model.compat load --function harmonix-f/model.pth --harmonics modes.csv --gradients gradients.csv \
        --rois rois.npz --structure harmonix-s/model.pth --fusion model.pth --out FOLDER
"""

# Shapes: B batch, R ROIs, T frames, K frames per patch, N time patches, F = R * N, S structure tokens, H hub tokens,
# D width, X Y Z voxels

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bhx_model.atomic_write import read_json, write_json
from bhx_model.command_line import run_command
from bhx_model.config import (
    FunctionConfig,
    FusionConfig,
    FusionInputs,
    StageConfig,
    StructureConfig,
    load_preset,
    to_dict,
)
from bhx_model.data import npz
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.shards import file_sha256
from bhx_model.errors import DataError
from bhx_model.nets import factory
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.heads import HubHead
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.nets.patch_embed import whole_patches
from bhx_model.nets.pos_embed import sincos_grid
from bhx_model.training.checkpoint import save_tensors

#: Largest difference that passes, relative to the largest value of the array.
TOLERANCE: Final = 1e-5

#: Heads of the released fusion's decoder.
DECODER_HEADS: Final = 16
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
                raise DataError(msg)

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
_UNTRAINED = "untrained: needed for training on only"

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

_RULES: Final = {"structure": _STRUCTURE_RULES, "function": _FUNCTION_RULES, "fusion": _FUSION_RULES}


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
    ValueError
        If a tensor does not fit, or one that embedding needs is missing.
    """
    bare = bare_names(theirs)
    state, lines = {}, []
    for key, bare_key in zip(theirs, bare, strict=True):
        value = theirs[key]
        rule = next((r for r in _RULES[stage] if re.fullmatch(r.pattern, bare_key)), None)
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
    lines += [Line("absent", "", name, _UNTRAINED) for name in missing]
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
    """State dict without the ``module.`` that DataParallel puts before names, in the same order."""
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


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a ``.pth`` file without running code in it; the state dict may be under ``model`` or ``state_dict``.

    Raises
    ------
    ValueError
        If it is no checkpoint, or might run code.
    OSError
        If it cannot be read.
    """
    try:
        # MAE's training script, on which two of the published stages build, keeps its arguments beside the weights
        with torch.serialization.safe_globals([argparse.Namespace]):
            raw = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what the unpickler stumbles over in other files may be anything
        msg = f"{path} is refused: it is no checkpoint, or holds more than tensors and numbers and might run code"
        raise DataError(msg) from error
    for name in ("model", "state_dict"):
        if isinstance(raw, dict) and isinstance(raw.get(name), dict):
            raw = raw[name]
    if (
        not isinstance(raw, dict)
        or not raw
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in raw.items())
    ):
        msg = f"{path}: expected a dict of tensors, bare or under 'model'"
        raise DataError(msg)
    return raw


def sizes(stage: str, theirs: Mapping[str, Tensor], heads: int, inner_heads: int) -> dict[str, Any]:
    """Read a model's sizes from the shapes of its tensors, as fields of its configuration.

    Numbers of heads leave no trace in shapes and are given. Parts that the checkpoint lacks have the preset's sizes.

    Raises
    ------
    ValueError
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


def roi_facts(harmonics_RM: NDArray[np.float32], gradients_RG: NDArray[np.float32]) -> RoiMetadata:
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


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison."""

    name: str
    difference: float
    """Largest absolute difference."""
    largest: float
    """Largest absolute value expected."""

    @property
    def passes(self) -> bool:
        """Whether the relative difference is small enough; NaN is not."""
        return self.difference <= TOLERANCE * self.largest


def _case(name: str, ours: Tensor | NDArray[Any], expected: NDArray[Any]) -> Case:
    got = ours.detach().numpy() if isinstance(ours, Tensor) else ours
    if got.shape != expected.shape:
        msg = f"{name}: ours has shape {got.shape}, the golden one {expected.shape}: {_GOLDEN_REMEDY}"
        raise DataError(msg)
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64)).max()
    return Case(name, float(difference), float(np.abs(expected).max()))


def check(folder: Path) -> Iterator[Case]:
    """Compute every case of a golden folder and compare; its README says what the arrays are.

    Yields
    ------
    Case
        As soon as it is computed.

    Raises
    ------
    ValueError
        If the folder's arrays do not fit each other.
    OSError
        If a file is missing.
    """
    metadata = _golden_facts(folder)
    parts = {"function": _check_function, "structure": _check_structure, "fusion": _check_fusion}
    with torch.inference_mode():
        for stage, cases in parts.items():
            try:
                yield from cases(folder, metadata)
            except (IndexError, RuntimeError, TypeError) as error:
                msg = (
                    f"{folder}: arrays of the {stage} stage do not fit each other ({error}): {_GOLDEN_REMEDY}"
                )
                raise DataError(msg) from error


#: What to do about a golden folder that is not whole.
_GOLDEN_REMEDY: Final = "take the folder as its maker made it"


def _golden_facts(folder: Path) -> dict[str, Any]:
    """Read ``config.json``: sizes that leave no trace in the arrays."""
    path = folder / "config.json"
    metadata = read_json(path, _GOLDEN_REMEDY)
    for name in ("rois", "time_patches", "heads", "fusion_decoder_heads"):
        if type(metadata.get(name)) is not int or metadata[name] < 1:
            msg = f"{path}: {name} is {metadata.get(name)}, expected a positive number: {_GOLDEN_REMEDY}"
            raise DataError(msg)
    return metadata


class _Cases:
    """Arrays of one file of a golden folder, which keeps account of those that were compared or computed with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays = npz.read(path, _GOLDEN_REMEDY)
        self._left = set(self._arrays)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            msg = f"{self.path}: {name} is missing, so its case cannot be checked: {_GOLDEN_REMEDY}"
            raise DataError(msg)
        self._left.discard(name)
        return self._arrays[name]

    def finish(self) -> None:
        """Refuse arrays that nobody asked for: what is not compared has not passed."""
        if self._left:
            names = ", ".join(sorted(self._left))
            msg = f"{self.path}: {names} belong to no known case and were not compared: {_GOLDEN_REMEDY}"
            raise DataError(msg)


def _weights(path: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in npz.read(path, _GOLDEN_REMEDY).items()}


def _convert_all(stage: str, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Load golden weights, all of which the cases need."""
    lines = convert(stage, weights, model).lines
    lacking = [line.ours for line in lines if line.note == _UNTRAINED]
    if lacking:
        msg = f"{stage}_weights.npz lacks {', '.join(lacking)}: {_GOLDEN_REMEDY}"
        raise DataError(msg)


def _check_function(folder: Path, metadata: dict[str, Any]) -> Iterator[Case]:
    cases, weights = _Cases(folder / "function_cases.npz"), _weights(folder / "function_weights.npz")
    time_patches = metadata["time_patches"]
    config: FunctionConfig = reference_config(
        "function",
        {**sizes("function", weights, metadata["heads"], metadata["heads"]), "time_patches": time_patches},
    )
    model = FunctionJEPA(config, roi_facts(cases["harmonics"], cases["gradients"])).eval()
    _convert_all("function", weights, model)

    for name, buffer in model.encoder.roi_position.named_buffers():
        known = name.partition("_")[0]
        if f"loaded_{known}" in cases:
            yield _case(f"{known} as their loader reads them", buffer, cases[f"loaded_{known}"])
    yield _case(
        "function position code, encoder", model.encoder.position(time_patches)[None], cases["pos_encoder"]
    )
    predictor_code = model.predictor.position(model.encoder.roi_position(), time_patches)
    yield _case("function position code, predictor", predictor_code[None], cases["pos_predictor"])

    lengths = [int(m[1]) for m in (re.match(r"k(\d+)_", key) for key in cases) if m]
    lengths = list(dict.fromkeys(lengths))
    if not lengths:
        msg = f"{cases.path} holds no series of any patch length (k48_input and so on): {_GOLDEN_REMEDY}"
        raise DataError(msg)
    kernels = {int(m[1]) for m in (re.fullmatch(r"resized_kernel_(\d+)", key) for key in cases) if m}
    for frames in sorted(kernels.union(lengths)):
        yield _case(
            f"patch kernel, k={frames}",
            model.encoder.patch_embed.kernel(frames),
            cases[f"resized_kernel_{frames}"][:, 0, 0],
        )

    for frames in lengths:
        name = f"k{frames}"
        n = _golden_patches(cases, f"{name}_valid_patches", time_patches)
        series_BRT = torch.from_numpy(cases[f"{name}_input"][:, 0])
        n_rois = series_BRT.shape[1]
        embedded_BFD = model.encoder.patch_embed(series_BRT, frames).flatten(1, 2)
        yield _case(f"patch embedding, k={frames}", embedded_BFD, cases[f"{name}_patch_embed"])

        def valid(tokens: NDArray[Any], n: int = n, n_rois: int = n_rois) -> NDArray[Any]:
            by_roi = tokens.reshape(len(tokens), n_rois, time_patches, -1)
            return by_roi[:, :, :n].reshape(len(tokens), n_rois * n, -1)

        valid_BRT = series_BRT[:, :, : n * frames]
        expected = valid(cases[f"{name}_tokens"])
        yield _case(
            f"function tokens, k={frames}, {n} patches",
            model.encode(valid_BRT, frames, target=False),
            expected,
        )
        padded_BFD = model.encode(valid_BRT, frames, pad_to=time_patches, target=False).numpy()
        yield _case(f"function tokens beside padding, k={frames}", valid(padded_BFD), expected)

        # the cases number tokens on the padded grid, we on the valid one
        index = {part: _valid_index(cases, f"{name}_{part}_index", n_rois, time_patches, n)
                 for part in ("context", "target")}  # fmt: skip
        losses_B = model.sample_losses(*model.predict(valid_BRT, frames, index["context"], index["target"]))
        yield _case(f"JEPA loss, k={frames}", losses_B, cases[f"{name}_jepa_loss"])
    cases.finish()


def _golden_patches(cases: _Cases, name: str, time_patches: int) -> int:
    """Read how many of the time patches hold data."""
    n = int(cases[name])
    if not 0 < n <= time_patches:
        msg = f"{cases.path}: {name} is {n}, config.json allows 1 to {time_patches}: {_GOLDEN_REMEDY}"
        raise DataError(msg)
    return n


def _valid_index(cases: _Cases, name: str, n_rois: int, time_patches: int, n: int) -> Tensor:
    """Renumber tokens of a grid of `time_patches` patches for one of the `n` that hold data."""
    roi, patch = np.divmod(cases[name], time_patches)
    renumbered = roi * n + patch
    distinct = all(len(np.unique(row)) == len(row) for row in renumbered)
    if not distinct or ((roi < 0) | (roi >= n_rois) | (patch >= n)).any():
        msg = f"{cases.path}: {name} names a token twice, or one of padding or of no ROI: {_GOLDEN_REMEDY}"
        raise DataError(msg)
    return torch.from_numpy(renumbered)


def _check_structure(folder: Path, metadata: dict[str, Any]) -> Iterator[Case]:
    cases, weights = _Cases(folder / "structure_cases.npz"), _weights(folder / "structure_weights.npz")
    config: StructureConfig = reference_config(
        "structure", {**sizes("structure", weights, metadata["heads"], metadata["heads"]),
                      "decoder_width": 6, "decoder_heads": 1, "decoder_depth": 1}
    )  # fmt: skip
    grid = _golden_grid(cases, config)
    model = StructureMAE(config, grid).eval()
    convert("structure", weights, model)
    position = model.encoder.position_ND
    yield _case(
        "structure position code",
        torch.cat([torch.zeros_like(position[:1]), position])[None],
        cases["pos_embed"],
    )
    volume = golden_volume(grid)
    x, y, z = VOLUME_STRIDES
    yield _case("structure test volume", volume[::x, ::y, ::z], cases["volume_sample"])
    yield _case("structure tokens", model.encode(torch.from_numpy(volume)[None]), cases["tokens"])
    cases.finish()


def _check_fusion(folder: Path, metadata: dict[str, Any]) -> Iterator[Case]:
    cases, weights = _Cases(folder / "fusion_cases.npz"), _weights(folder / "fusion_weights.npz")
    token_width = weights["decoder_pred.weight"].shape[0]
    config: FusionConfig = reference_config(
        "fusion", sizes("fusion", weights, metadata["heads"], metadata["fusion_decoder_heads"])
    )
    inputs = _golden_inputs(folder, cases, metadata, token_width)
    model = FusionModel(config, inputs).eval()
    _convert_all("fusion", weights, model)

    time_patches = inputs.time_patches
    n_function = inputs.rois * time_patches
    for name, position in (("pos_embed", model.position), ("decoder_pos_embed", model.decoder_position)):
        code = torch.cat([position("function", time_patches), position("structure", time_patches)])
        with_cls = torch.cat([torch.zeros_like(code[:1]), code])  # theirs begins with CLS, at 0
        yield _case(f"fusion {name.replace('_', ' ')}", with_cls[::POSITION_STRIDE], cases[f"{name}_sample"])

    n = _golden_patches(cases, "valid_patches", time_patches)
    tokens = golden_tokens(n_function + inputs.structure_tokens, token_width)
    yield _case(
        "fusion test tokens", tokens[:: TOKEN_STRIDES[0], :: TOKEN_STRIDES[1]], cases["tokens_sample"]
    )
    function_BFD, structure_BSD = torch.from_numpy(tokens)[None].split(
        [n_function, inputs.structure_tokens], dim=1
    )
    latents_BHD = model.latents(structure_BSD, function_BFD, n)
    theirs = torch.cat([latents_BHD[:, -1:], latents_BHD[:, :-1]], dim=1)
    yield _case("fusion latents", theirs, cases["latent"])
    predicted = model.decode(latents_BHD, time_patches)
    joined_MD = torch.cat([predicted["function"], predicted["structure"]], dim=1)[0]
    yield _case("fusion prediction", joined_MD[::PREDICTION_STRIDE], cases["prediction_every_97th"])
    loss, _ = model(structure_BSD, function_BFD, n)
    yield _case("fusion loss", loss, cases["loss"])
    cases.finish()

    head_cases = _Cases(folder / "downstream_cases.npz")
    head = HubHead(config.width, len(head_cases["head.bias"])).eval()
    names = {"norm": "fc_norm", "linear": "head"}
    head.load_state_dict({
        f"{ours}.{kind}": torch.from_numpy(head_cases[f"{name}.{kind}"])
        for ours, name in names.items() for kind in ("weight", "bias")
    })  # fmt: skip
    hub_BHD = model.encode(structure_BSD, function_BFD, n, normed=False)
    yield _case("downstream features", head.features(hub_BHD), head_cases["features"])
    yield _case("downstream logits", head(hub_BHD), head_cases["logits"])
    head_cases.finish()


#: Every how many voxels, tokens and channels the golden cases hold samples of large arrays.
VOLUME_STRIDES: Final = (37, 41, 33)
TOKEN_STRIDES: Final = (611, 59)
POSITION_STRIDE: Final = 401
PREDICTION_STRIDE: Final = 97


def _golden_grid(cases: _Cases, config: StructureConfig) -> tuple[int, int, int]:
    """Find the grid with as many voxels as the samples of the test volume have, and as many patches as tokens.

    If there are several, take the one that the position code is of.
    """
    edges = [
        [n for n in range(config.patch, stride * rows + 1, config.patch) if math.ceil(n / stride) == rows]
        for stride, rows in zip(VOLUME_STRIDES, cases["volume_sample"].shape, strict=True)
    ]
    n_voxels = cases["tokens"].shape[1] * config.patch**3
    fitting = [(x, y, z) for x, y, z in itertools.product(*edges) if x * y * z == n_voxels]
    if not fitting:
        msg = "structure_cases.npz: no grid has as many voxels as volume_sample and as many patches as tokens"
        raise DataError(msg)

    def distance(grid: tuple[int, int, int]) -> float:
        x, y, z = (n // config.patch for n in grid)
        code = sincos_grid((x, y, z), config.width).numpy()
        return float(np.abs(code - cases["pos_embed"][0, 1:]).max())

    return min(fitting, key=distance)


def _golden_inputs(folder: Path, cases: _Cases, metadata: Mapping[str, Any], width: int) -> FusionInputs:
    """Find the sizes of the fusion's tokens: those of the folder's other cases, or the released model's.

    ``fusion_rois`` and ``fusion_time_patches`` in ``config.json`` go before both.
    """
    structure = _weights(folder / "structure_weights.npz")
    config: StructureConfig = reference_config(
        "structure", sizes("structure", structure, metadata["heads"], 1)
    )
    grid = _golden_grid(_Cases(folder / "structure_cases.npz"), config)
    own = Sizes(grid=grid, rois=metadata["rois"], time_patches=metadata["time_patches"])
    for known in (own, Sizes()):
        rois = metadata.get("fusion_rois", known.rois)
        time_patches = metadata.get("fusion_time_patches", known.time_patches)
        inputs = dataclasses.replace(known, rois=rois, time_patches=time_patches).fusion_inputs(
            config.patch, width
        )
        n = rois * time_patches + inputs.structure_tokens
        rows = (
            math.ceil(n / TOKEN_STRIDES[0]),
            math.ceil((n + 1) / POSITION_STRIDE),
            math.ceil(n / PREDICTION_STRIDE),
        )
        if rows == tuple(
            len(cases[k]) for k in ("tokens_sample", "pos_embed_sample", "prediction_every_97th")
        ):
            return inputs
    msg = "fusion_cases.npz is of other sizes than the other cases: name fusion_rois and fusion_time_patches in config.json"
    raise DataError(msg)


def golden_volume(grid: tuple[int, int, int]) -> NDArray[np.float32]:
    """Make the T1 volume of the golden cases: (X, Y, Z)."""
    i, j, k = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in grid), indexing="ij")
    waves = np.sin(0.07 * i + 0.3) * np.cos(0.05 * j) + np.sin(0.011 * (i + 1) * (k + 1) / 8)
    return (waves + 0.5 * np.cos(0.03 * j * k / 16)).astype(np.float32)


def golden_tokens(n_tokens: int, width: int) -> NDArray[np.float32]:
    """Make the input tokens of the golden fusion cases: (tokens, width)."""
    # in float32 as the golden cases: the first sine's arguments reach 700, where float64 differs in the fifth digit
    n, c = torch.arange(n_tokens)[:, None], torch.arange(width)
    waves = torch.sin(0.013 * (n + 1) * (c % 7 + 1)) + torch.cos(0.021 * (c + 3) + 0.002 * n)
    return waves.numpy()


def read_table(path: Path) -> NDArray[np.float32]:
    """Read a CSV of numbers, with or without a header row and an index column of text.

    Raises
    ------
    ValueError
        If anything else is not a number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
        if rows and not all(_is_number(cell) for cell in rows[0][1:]):
            rows = rows[1:]
        if rows and not _is_number(rows[0][0]):
            rows = [row[1:] for row in rows]
        table = np.array(rows, dtype=np.float32)
    except ValueError as error:
        msg = f"{path}: expected one row of numbers per ROI, separated by commas: {error}"
        raise DataError(msg) from error
    if not table.size:
        msg = f"{path} holds no numbers: expected one row of numbers per ROI, separated by commas"
        raise DataError(msg)
    return table


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Released:
    """Files of a released model."""

    structure: Path | None = None
    function: Path | None = None
    fusion: Path | None = None
    harmonics: Path | None = None
    """CSV of the function encoder's modes, a row per ROI."""
    gradients: Path | None = None
    """CSV of its gradients."""
    rois: Path | None = None
    """``rois.npz`` for names and normaliser, neither of which was released."""


def load(released: Released, out: Path, known: Sizes = Sizes()) -> dict[str, Converted]:
    """Convert released checkpoints into stage folders, each with ``model.safetensors`` and ``run.json``.

    With the function stage goes ``rois.npz``, the metadata about its ROIs. If all three stages are there,
    ``bhx_model.release.export`` makes an export of them as of trained ones.

    Parameters
    ----------
    released
        What there is; stages without a file are left out.
    out
        Folder for the stages' folders.
    known
        Sizes that cannot be read from the checkpoints. The number of ROIs is that of the CSVs, if there are any; the
        fusion's decoder has `DECODER_HEADS`, or as many as the encoders if its width does not divide by them.

    Returns
    -------
    dict
        What became of every key, by stage.

    Raises
    ------
    ValueError
        If a checkpoint holds something else than tensors, or they do not fit.
    """
    done: dict[str, Converted] = {}
    rois = _released_rois(released)
    if rois is not None:
        known = dataclasses.replace(known, rois=len(rois))
    encoders: dict[str, str] = {}
    patch = StructureConfig().patch
    for stage in _RULES:
        path: Path | None = getattr(released, stage)
        if path is None:
            continue
        theirs = read_checkpoint(path)
        bare = bare_names(theirs)
        inner = bare["mask_token"].shape[-1] if stage == "fusion" and "mask_token" in bare else 1
        changes = sizes(
            stage, bare, known.heads, DECODER_HEADS if inner % DECODER_HEADS == 0 else known.heads
        )
        if stage == "function":
            changes["time_patches"] = known.time_patches
        config = load_preset(stage, "reference").override({f"model.{k}": v for k, v in changes.items()})
        model, metadata = _build(config, bare, known, rois, patch)
        if isinstance(model, StructureMAE):
            patch = model.config.patch
        if isinstance(model, FusionModel):
            metadata |= {
                "encoders": dict(encoders),
                **(factory.describe_rois(rois) if rois is not None else {}),
            }
        done[stage] = convert(stage, theirs, model)
        folder = out / stage
        folder.mkdir(parents=True, exist_ok=True)
        weights = folder / "model.safetensors"
        save_tensors(model.state_dict(), weights)
        encoders[stage] = file_sha256(weights)
        unknown = dict.fromkeys(("train_subjects", "train_samples", "holdout_samples", "samples_seen"))
        run = {
            "stage": stage, "config": config.to_dict(), "model_metadata": metadata, "converted_from": path.name,
            "counts": {**unknown, "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)},
            "loss": dict.fromkeys(("first", "last", "holdout", "mean_predictor")),
            "cohorts": [], "synthetic": False,
        }  # fmt: skip
        write_json(folder / "run.json", run)
    if rois is not None and released.function is not None:
        rois.save(out / "rois.npz")
    return done


def _released_rois(released: Released) -> RoiMetadata | None:
    """Facts about the ROIs: harmonics and gradients from the CSVs, names and normaliser from ``rois.npz``."""
    if released.harmonics is None or released.gradients is None:
        if released.function is not None:
            msg = "function: its position code needs the CSVs of harmonics and gradients that came with it"
            raise DataError(msg)
        return None if released.rois is None else RoiMetadata.load(released.rois)
    harmonics, gradients = read_table(released.harmonics), read_table(released.gradients)
    if len(harmonics) != len(gradients):
        msg = (
            f"{released.harmonics} has {len(harmonics)} rows, {released.gradients} has {len(gradients)}: "
            "both need one for every ROI"
        )
        raise DataError(msg)
    rois = roi_facts(harmonics, gradients)
    if released.rois is None:
        return rois
    known = RoiMetadata.load(released.rois)
    if len(known) != len(rois):
        msg = f"{released.rois} describes {len(known)} ROIs, the CSVs {len(rois)}: use the CSVs' atlas"
        raise DataError(msg)
    return dataclasses.replace(
        rois, atlas=known.atlas, names=known.names, hemisphere=known.hemisphere,
        median=known.median, iqr=known.iqr,
    )  # fmt: skip


def _build(
    config: StageConfig, theirs: Mapping[str, Tensor], known: Sizes, rois: RoiMetadata | None, patch: int
) -> tuple[nn.Module, dict[str, Any]]:
    """Make the model of a released checkpoint, and the metadata from which it can be made again."""
    if isinstance(config.model, StructureConfig):
        model = StructureMAE(config.model, known.grid)
        n_patches = _table_rows(theirs)
        if n_patches not in (None, model.n_tokens):
            msg = (
                f"structure: the checkpoint has {n_patches} patches, {known.grid} voxels make "
                f"{model.n_tokens}: name the voxels of its T1 volumes with --grid"
            )
            raise DataError(msg)
        return model, {"grid": list(known.grid)}
    if isinstance(config.model, FunctionConfig):
        assert rois is not None
        return FunctionJEPA(config.model, rois), factory.describe_rois(rois)
    width = next(
        theirs[key].shape[axis]
        for key, axis in (("pre_map.weight", 1), ("decoder_pred.weight", 0), ("latent_tokens", -1))
        if key in theirs
    )
    inputs = known.fusion_inputs(patch, width)
    n_tokens = _table_rows(theirs)
    expected = inputs.rois * inputs.time_patches + inputs.structure_tokens
    if n_tokens not in (None, expected):
        msg = (
            f"fusion: the checkpoint has {n_tokens} tokens, {inputs.rois} ROIs x {inputs.time_patches} patches and "
            f"{inputs.structure_tokens} of the T1 make {expected}: name them with --n-rois, --time-patches, --grid"
        )
        raise DataError(msg)
    return FusionModel(config.model, inputs), {"inputs": to_dict(inputs)}


def _table_rows(theirs: Mapping[str, Tensor]) -> int | None:
    """Tokens, CLS apart, of which a checkpoint holds position codes; None if it holds none."""
    table = theirs.get("pos_embed")
    return None if table is None or table.ndim < 2 else table.shape[-2] - 1


def report(done: Mapping[str, Converted]) -> Iterator[str]:
    """Say key by key what was used, renamed, dropped, and what a checkpoint lacks."""
    for stage, converted in done.items():
        for line in converted.lines:
            keys = " -> ".join(key for key in (line.theirs, line.ours) if key)
            yield f"{stage:10s}{line.action:8s} {keys}" + (f"  ({line.note})" if line.note else "")
        counts = Counter(line.action for line in converted.lines)
        yield f"{stage}: " + ", ".join(f"{n} {action}" for action, n in sorted(counts.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if all is well, 1 with a sentence if not."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.compat", description="Check against, or load, the published BrainHarmonix code.",
        epilog="example: python -m bhx_model.compat check golden/",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="compare every case of a golden folder; fails above 1e-5")
    checking.add_argument("folder", type=Path)
    loading = commands.add_parser("load", help="convert released .pth files into stage folders")
    for field in dataclasses.fields(Released):
        loading.add_argument(f"--{field.name}", type=Path)
    usual = Sizes()
    loading.add_argument("--grid", type=int, nargs=3, default=usual.grid, help="voxels of a T1 (160 192 160)")
    loading.add_argument("--n-rois", type=int, default=usual.rois, help="if there are no CSVs (400)")
    loading.add_argument("--time-patches", type=int, default=usual.time_patches, help="of a series (18)")
    loading.add_argument(
        "--heads", type=int, default=usual.heads, help="attention heads of the encoders (12)"
    )
    loading.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "check":
        return _print_cases(check(arguments.folder))
    released = Released(**{f.name: getattr(arguments, f.name) for f in dataclasses.fields(Released)})
    if not (released.structure or released.function or released.fusion):
        msg = "nothing to load: name a .pth file with --structure, --function or --fusion"
        raise DataError(msg)
    known = Sizes(
        grid=tuple(arguments.grid), rois=arguments.n_rois, time_patches=arguments.time_patches,
        heads=arguments.heads,
    )  # fmt: skip
    for line in report(load(released, arguments.out, known)):
        print(line)
    return 0


def _print_cases(cases: Iterator[Case]) -> int:
    """Print a line per case, and say in the end how many fail."""
    n = failed = 0
    print(f"{'case':44s} {'largest difference':>18s}  relative")
    for case in cases:
        n += 1
        failed += not case.passes
        relative = case.difference / case.largest if case.largest else case.difference
        verdict = "" if case.passes else "  FAILS"
        print(f"{case.name:44s} {case.difference:18.2e}  {relative:.2e}{verdict}", flush=True)
    print(f"{n - failed} of {n} cases within {TOLERANCE:g} of their largest value")
    return 1 if failed else 0
