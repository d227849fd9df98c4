"""Load an exported folder: check its description, hash its files, and compare its ROIs with those of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from bhx_model.atomic_write import read_json
from bhx_model.config import STAGES
from bhx_model.data import t1w_space
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.t1w_space import T1wSpace
from bhx_model.errors import ConfigError, DataError, SiteError
from bhx_model.file_hash import file_sha256
from bhx_model.nets import factory
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.training import checkpoint

#: Layout of an exported folder: 2 describes the T1s and the denoising that the weights expect.
EXPORT_VERSION: Final = 2
_REMEDY: Final = "name an export, as results/experiments/<name>/export is"
#: Layouts that can be read.
READABLE: Final = (1, 2)


def read_about(folder: Path, name: str | Path | None = None) -> dict[str, Any]:
    """``config.json`` of an export, which the user called `name`.

    Raises
    ------
    DataError
        If the folder is none, or of a version that this code does not read.
    """
    try:
        about = read_json(folder / "config.json", _REMEDY)
    except OSError as error:
        msg = f"{folder} is no exported model ({error.strerror}: {error.filename}): {_REMEDY}"
        raise DataError(msg) from error
    check_version(about, str(name or folder))
    return about


def check_version(about: Mapping[str, Any], name: str) -> None:
    """Refuse an export, by its ``config.json``, of a version that this code does not read.

    Raises
    ------
    DataError
        Named after the export.
    """
    version = about.get("export")
    if version in READABLE:
        return
    newer = isinstance(version, int) and version > EXPORT_VERSION
    remedy = "install a newer bhx" if newer else "export again"
    msg = f"{name} is an export of version {version}, this code reads {' and '.join(map(str, READABLE))}: {remedy}"
    raise DataError(msg)


def read_rois(folder: Path) -> RoiMetadata:
    """``rois.npz`` of an export.

    Raises
    ------
    DataError
        If there is none, or it is damaged.
    """
    try:
        return RoiMetadata.load(folder / "rois.npz")
    except OSError as error:
        msg = f"{folder} is no exported model ({error.strerror}: {error.filename}): {_REMEDY}"
        raise DataError(msg) from error


def check_rois_file(about: Mapping[str, Any], folder: Path) -> None:
    """Refuse a ``rois.npz`` that is another one than was exported; earlier exports do not state its hash.

    Raises
    ------
    DataError
        If it is, whatever differs: `check_rois` says more of what the weights hold themselves.
    """
    if isinstance(stated := about.get("rois"), dict):
        _check_hash(folder / "rois.npz", stated.get("sha256"))


def read_t1w_space(about: Mapping[str, Any], folder: Path) -> T1wSpace | None:
    """What an export states about its T1s; None where it states nothing, as exports of version 1.

    Raises
    ------
    DataError
        If the file is missing, damaged, or another one than was exported.
    """
    stated = about.get("t1w")
    if not isinstance(stated, dict):
        return None
    path = folder / t1w_space.FILE
    _check_hash(path, stated.get("sha256"))
    return T1wSpace.load(path)


def _check_hash(path: Path, sha256: Any) -> None:
    try:
        found = file_sha256(path)
    except OSError as error:
        msg = f"{path} is missing from the export ({error.strerror}): copy it again, or export again"
        raise DataError(msg) from error
    if found != sha256:
        msg = f"{path} is not the file that was exported (sha256 differs): copy it again, or export again"
        raise DataError(msg)


def chosen_stages(about: Mapping[str, Any], wanted: Sequence[str] | None, folder: Path) -> tuple[str, ...]:
    """Stages to load, in their order: those of the export, or some of them.

    Raises
    ------
    ConfigError
        If `wanted` names something else, leaves out the function encoder, or wants a fusion without its encoders.
    """
    described = about.get("stages")
    alone = isinstance(described, dict) and set(described) == {"function"}
    there = ("function",) if alone else STAGES
    if wanted is None:
        return there
    names = (
        (wanted,) if isinstance(wanted, str) else tuple(wanted) if hasattr(wanted, "__iter__") else (wanted,)
    )
    unknown = [str(name) for name in names if name not in there]
    if unknown:
        msg = f"{folder} has no stage {unknown[0]!r}: choose among {', '.join(there)}"
        raise ConfigError(msg)
    if "function" not in names:
        msg = f"stages {list(names)} are without the function encoder, which every use needs: add 'function'"
        raise ConfigError(msg)
    if "fusion" in names and "structure" not in names:
        raise ConfigError("the fusion reads tokens of both encoders: add 'structure' to the stages")
    return tuple(stage for stage in STAGES if stage in names)


def load_stages(about: Mapping[str, Any], stages: Sequence[str], folder: Path) -> dict[str, nn.Module]:
    """Build the models of some stages of an export and load their weights, on the CPU.

    Raises
    ------
    DataError
        If a stage is not described, or its file is missing, damaged or another one than was exported.
    """
    models: dict[str, nn.Module] = {}
    for stage in stages:
        try:
            described = about["stages"][stage]
            _, models[stage] = factory.model_of(described, folder / "config.json")
            sha256 = described["sha256"]
        except (KeyError, TypeError) as error:
            msg = f"{folder / 'config.json'} does not describe the {stage} stage ({error!r}): export again"
            raise DataError(msg) from error
        except ConfigError as error:
            msg = (
                f"{folder / 'config.json'} is of bhx {str(about.get('bhx'))[:20]} ({str(error)[:60]}): "
                "install that version, or export again"
            )
            raise DataError(msg) from error
        weights = folder / f"{stage}.safetensors"
        _check_hash(weights, sha256)
        checkpoint.load_weights(models[stage], weights)
    return models


def check_device(device: torch.device | str) -> torch.device:
    """Return a device that tensors can be put on.

    Raises
    ------
    SiteError
        If there is no such device here.
    """
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        why = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        msg = f"device {str(device)!r} cannot be used here ({why}): use 'cpu', or install a driver and torch for it"
        raise SiteError(msg) from error
    return found


def check_rois(function: FunctionJEPA, rois: RoiMetadata, metadata: Mapping[str, Any]) -> None:
    """Refuse `rois` that are not those of the weights: other names or order, normaliser, harmonics or gradients.

    Raises
    ------
    DataError
        If they differ.
    """
    try:
        factory.empty_rois(metadata).check_order(rois.names)
        rois.check_harmonics(metadata["modes"])
    except DataError as error:
        msg = f"the ROIs in rois.npz are not those of the weights: {error}, or use the rois.npz of the same experiment"
        raise DataError(msg) from error
    wanted = dict(FunctionJEPA(function.config, rois).named_buffers())
    for name, buffer in function.named_buffers():
        if (
            ".connectivity." in name
        ):  # taken from runs of the training, along a basis of what is compared here
            continue
        if not torch.equal(buffer.cpu(), wanted[name]):
            msg = f"{name} in the weights is not what rois.npz holds: use the rois.npz of the same experiment"
            raise DataError(msg)
