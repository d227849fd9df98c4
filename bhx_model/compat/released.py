"""Convert released checkpoints of the published BrainHarmonix code to folders of trained stages."""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bhx_model.atomic_write import write_json
from bhx_model.compat.convert import RULES, Converted, Sizes, bare_names, convert, numbered_rois, sizes
from bhx_model.config import (
    FunctionConfig,
    StageConfig,
    StructureConfig,
    load_preset,
    to_dict,
)
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import ConfigError, DataError
from bhx_model.file_hash import file_sha256
from bhx_model.nets import factory
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.training.checkpoint import save_tensors

#: Heads of the released fusion's decoder.
DECODER_HEADS: Final = 16
#: Other sizes of the released models.
RELEASED: Final = Sizes()


@dataclasses.dataclass(frozen=True)
class Released:
    """Files of a released model."""

    structure: Path | None = None
    function: Path | None = None
    fusion: Path | None = None
    harmonics: Path | None = None
    """CSV of the function encoder's modes, a row per ROI."""
    harmonics_order: int | None = None
    """7 where the rows of that CSV are Schaefer's 400 parcels in 7-network order, and are to be brought into the 17-network
    order of the series and gradients. So are those that were released; whether the weights were trained with them as they
    are is not known."""
    gradients: Path | None = None
    """CSV of its gradients."""
    rois: Path | None = None
    """``rois.npz`` for names and normaliser, neither of which was released."""


def load(released: Released, out: Path, known: Sizes = RELEASED) -> dict[str, Converted]:
    """Convert released checkpoints into stage folders, each with ``model.safetensors`` and ``run.json``.

    With the function stage goes ``rois.npz``, the metadata about its ROIs. If all three stages are there,
    ``bhx_model.release.export`` makes an export of them as of trained ones.

    Parameters
    ----------
    released
        Files; stages without one are skipped.
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
    DataError
        If a checkpoint holds something else than tensors, or they do not fit.
    ConfigError
        If the function stage lacks its CSVs.
    """
    done: dict[str, Converted] = {}
    rois = _released_rois(released)
    if rois is not None:
        known = dataclasses.replace(known, rois=len(rois))
    encoders: dict[str, str] = {}
    patch = StructureConfig().patch
    for stage in RULES:
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
    """Metadata of the ROIs: harmonics and gradients from the CSVs, names and normaliser from ``rois.npz``."""
    if released.harmonics is None or released.gradients is None:
        if released.function is not None:
            msg = "function: its position code needs the CSVs of harmonics and gradients that came with it"
            raise ConfigError(msg)
        return None if released.rois is None else RoiMetadata.load(released.rois)
    harmonics, gradients = read_table(released.harmonics), read_table(released.gradients)
    if released.harmonics_order == 7:
        harmonics = to_17_networks(harmonics)
    if len(harmonics) != len(gradients):
        msg = (
            f"{released.harmonics} has {len(harmonics)} rows, {released.gradients} has {len(gradients)}: "
            "both need one for every ROI"
        )
        raise DataError(msg)
    rois = numbered_rois(harmonics, gradients)
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


def to_17_networks(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring rows (400, M) of Schaefer's parcels from the 7-network order into the 17-network order.

    Raises
    ------
    DataError
        If there are not 400.
    """
    order = np.loadtxt(Path(__file__).with_name("schaefer400_rows.txt"), np.int64).ravel()
    if len(rows) != len(order):
        msg = f"the harmonics have {len(rows)} rows: only Schaefer's {len(order)} parcels are reordered"
        raise DataError(msg)
    return rows[order]


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


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a ``.pth`` file without running code in it; the state dict may be under ``model`` or ``state_dict``.

    Raises
    ------
    DataError
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
    except Exception as error:  # the unpickler fails on other files with errors of any kind
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


def read_table(path: Path) -> NDArray[np.float32]:
    """Read a CSV of numbers, (R, M), with or without a header row and an index column of text.

    Raises
    ------
    DataError
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
