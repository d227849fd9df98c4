"""Golden check: compare our numbers with those that the published BrainHarmonix code computed."""

# Shapes: B batch, R ROIs, T frames, K frames per patch, N time patches, F = R * N, S structure tokens, H hub tokens,
# D width, X Y Z voxels

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bhx_model.atomic_write import read_json
from bhx_model.compat.convert import UNTRAINED, Sizes, convert, numbered_rois, reference_config, sizes
from bhx_model.config import (
    FunctionConfig,
    FusionConfig,
    FusionInputs,
    StructureConfig,
)
from bhx_model.data import npz
from bhx_model.errors import DataError
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.heads import HubHead
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.nets.pos_embed import sincos_grid

#: Largest difference that passes, relative to the largest value of the array.
TOLERANCE: Final = 1e-5
#: What to do about a golden folder that is not whole.
_REMEDY: Final = "use the folder unchanged, as it was made"
#: Every how many voxels, tokens and channels the golden cases hold samples of large arrays.
VOLUME_STRIDES: Final = (37, 41, 33)
TOKEN_STRIDES: Final = (611, 59)
POSITION_STRIDE: Final = 401
PREDICTION_STRIDE: Final = 97


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
        msg = f"{name}: ours has shape {got.shape}, the golden one {expected.shape}: {_REMEDY}"
        raise DataError(msg)
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64)).max()
    return Case(name, float(difference), float(np.abs(expected).max()))


def check(folder: Path) -> Iterator[Case]:
    """Compute every case of a golden folder and compare; its README describes the arrays.

    Yields
    ------
    Case
        As soon as it is computed.

    Raises
    ------
    DataError
        If the folder's arrays do not fit each other.
    OSError
        If a file is missing.
    """
    metadata = _read_config(folder)
    parts = {"function": _check_function, "structure": _check_structure, "fusion": _check_fusion}
    with torch.inference_mode():
        for stage, cases in parts.items():
            try:
                yield from cases(folder, metadata)
            except (IndexError, RuntimeError, TypeError) as error:
                msg = f"{folder}: arrays of the {stage} stage do not fit each other ({error}): {_REMEDY}"
                raise DataError(msg) from error


def _read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``: sizes that leave no trace in the arrays."""
    path = folder / "config.json"
    metadata = read_json(path, _REMEDY)
    for name in ("rois", "time_patches", "heads", "fusion_decoder_heads"):
        if type(metadata.get(name)) is not int or metadata[name] < 1:
            msg = f"{path}: {name} is {metadata.get(name)}, expected a positive number: {_REMEDY}"
            raise DataError(msg)
    return metadata


class _Cases:
    """Arrays of one file of a golden folder, which records which were compared or computed with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays = npz.read(path, _REMEDY)
        self._left = set(self._arrays)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            msg = f"{self.path}: {name} is missing, so its case cannot be checked: {_REMEDY}"
            raise DataError(msg)
        self._left.discard(name)
        return self._arrays[name]

    def finish(self) -> None:
        """Refuse arrays that that were not used: what is not compared has not passed."""
        if self._left:
            names = ", ".join(sorted(self._left))
            msg = f"{self.path}: {names} belong to no known case and were not compared: {_REMEDY}"
            raise DataError(msg)


def _weights(path: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in npz.read(path, _REMEDY).items()}


def _convert_all(stage: str, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Load golden weights, all of which the cases need."""
    lines = convert(stage, weights, model).lines
    lacking = [line.ours for line in lines if line.note == UNTRAINED]
    if lacking:
        msg = f"{stage}_weights.npz lacks {', '.join(lacking)}: {_REMEDY}"
        raise DataError(msg)


def _check_function(folder: Path, metadata: dict[str, Any]) -> Iterator[Case]:
    cases, weights = _Cases(folder / "function_cases.npz"), _weights(folder / "function_weights.npz")
    time_patches = metadata["time_patches"]
    config: FunctionConfig = reference_config(
        "function",
        {**sizes("function", weights, metadata["heads"], metadata["heads"]), "time_patches": time_patches},
    )
    model = FunctionJEPA(config, numbered_rois(cases["harmonics"], cases["gradients"])).eval()
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
        msg = f"{cases.path} holds no series of any patch length (k48_input and so on): {_REMEDY}"
        raise DataError(msg)
    kernels = {int(m[1]) for m in (re.fullmatch(r"resized_kernel_(\d+)", key) for key in cases) if m}
    for frames in sorted(kernels.union(lengths)):
        yield _case(
            f"patch kernel, k={frames}",
            model.encoder.patch_embed.kernel(frames),
            cases[f"resized_kernel_{frames}"][:, 0, 0],
        )

    for frames in lengths:
        yield from _check_series(model, cases, frames)
    cases.finish()


def _check_series(model: FunctionJEPA, cases: _Cases, frames: int) -> Iterator[Case]:
    """Cases of series whose patches have so many frames."""
    name, time_patches = f"k{frames}", model.config.time_patches
    n = _valid_patches(cases, f"{name}_valid_patches", time_patches)
    series_BRT = torch.from_numpy(cases[f"{name}_input"][:, 0])
    n_rois = series_BRT.shape[1]
    embedded_BFD = model.encoder.patch_embed(series_BRT, frames).flatten(1, 2)
    yield _case(f"patch embedding, k={frames}", embedded_BFD, cases[f"{name}_patch_embed"])

    def valid(tokens: NDArray[Any]) -> NDArray[Any]:
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


def _valid_patches(cases: _Cases, name: str, time_patches: int) -> int:
    """Read how many of the time patches hold data."""
    n = int(cases[name])
    if not 0 < n <= time_patches:
        msg = f"{cases.path}: {name} is {n}, config.json allows 1 to {time_patches}: {_REMEDY}"
        raise DataError(msg)
    return n


def _valid_index(cases: _Cases, name: str, n_rois: int, time_patches: int, n: int) -> Tensor:
    """Renumber tokens of a grid of `time_patches` patches for one of the `n` that hold data."""
    roi, patch = np.divmod(cases[name], time_patches)
    renumbered = roi * n + patch
    distinct = all(len(np.unique(row)) == len(row) for row in renumbered)
    if not distinct or ((roi < 0) | (roi >= n_rois) | (patch >= n)).any():
        msg = f"{cases.path}: {name} names a token twice, or one of padding or of no ROI: {_REMEDY}"
        raise DataError(msg)
    return torch.from_numpy(renumbered)


def _check_structure(folder: Path, metadata: dict[str, Any]) -> Iterator[Case]:
    cases, weights = _Cases(folder / "structure_cases.npz"), _weights(folder / "structure_weights.npz")
    config: StructureConfig = reference_config(
        "structure", {**sizes("structure", weights, metadata["heads"], metadata["heads"]),
                      "decoder_width": 6, "decoder_heads": 1, "decoder_depth": 1}
    )  # fmt: skip
    grid = _find_grid(cases, config)
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
    inputs = _find_inputs(folder, cases, metadata, token_width)
    model = FusionModel(config, inputs).eval()
    _convert_all("fusion", weights, model)

    time_patches = inputs.time_patches
    n_function = inputs.rois * time_patches
    for name, position in (("pos_embed", model.position), ("decoder_pos_embed", model.decoder_position)):
        code = torch.cat([position("function", time_patches), position("structure", time_patches)])
        with_cls = torch.cat([torch.zeros_like(code[:1]), code])  # theirs begins with CLS, at 0
        yield _case(f"fusion {name.replace('_', ' ')}", with_cls[::POSITION_STRIDE], cases[f"{name}_sample"])

    n = _valid_patches(cases, "valid_patches", time_patches)
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


def _find_grid(cases: _Cases, config: StructureConfig) -> tuple[int, int, int]:
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


def _find_inputs(folder: Path, cases: _Cases, metadata: Mapping[str, Any], width: int) -> FusionInputs:
    """Find the sizes of the fusion's tokens: those of the folder's other cases, or the released model's.

    ``fusion_rois`` and ``fusion_time_patches`` in ``config.json`` override both.
    """
    structure = _weights(folder / "structure_weights.npz")
    config: StructureConfig = reference_config(
        "structure", sizes("structure", structure, metadata["heads"], 1)
    )
    grid = _find_grid(_Cases(folder / "structure_cases.npz"), config)
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
