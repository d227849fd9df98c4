"""Inspect a trained model on the subjects of an endpoint: attention, saliency of ROIs, and feature space."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor

from bhx_model.config import FusionConfig
from bhx_model.data import shard_hashes, shards, token_index
from bhx_model.data.batch import plan_series, read_runs
from bhx_model.data.rois import RoiMetadata
from bhx_model.device import default_device
from bhx_model.errors import DataError
from bhx_model.evaluation import readouts, token_readout_file
from bhx_model.evaluation.from_hub_tokens import check_encoders
from bhx_model.evaluation.hub_tokens import mean_hub_tokens
from bhx_model.evaluation.labelled_tokens import LabelledTokens, fusion_arguments, join
from bhx_model.evaluation.labels import Labels
from bhx_model.inspection.attention import Arguments, attention_shares, even_share
from bhx_model.inspection.directions import label_direction, principal_plane
from bhx_model.inspection.saliency import roi_saliency
from bhx_model.nets.factory import build_model, empty_rois
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.remote.urls import Place
from bhx_model.training.trained import Trained, load_trained

logger = logging.getLogger(__name__)

#: Test subjects whose attention and gradients are averaged, one run each.
MOST_SUBJECTS: Final = 32


@dataclasses.dataclass(frozen=True)
class Readout:
    """What is read of a run, and the features of all subjects with a label."""

    name: str
    labels: Labels
    features: np.ndarray
    """(n, P) float64."""
    of_run: Callable[[str, Tensor, int], Tensor]
    """Of the key of a run, its function tokens (1, R * patches, D) and the number of its patches: features (1, P)."""
    attention: dict[str, np.ndarray]
    """Arrays about the attention of hub tokens; empty without a fusion."""
    runs: dict[str, str]
    """Key of one run of each subject, by label."""
    hub_start: bool = False
    """Whether hub tokens start from means of tokens."""


def inspect(
    labels: Labels,
    function: Path,
    shard_index: Place,
    *,
    fusion: Path | None = None,
    tokens: Place | None = None,
    function_tokens: Path | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Look inside a model, by the subjects of an endpoint.

    Parameters
    ----------
    labels : Labels
        The split; its training subjects decide the direction, its test subjects are looked at.
    function : Path
        Folder of the trained function stage.
    shard_index : Path
        Of the endpoint's cohort.
    fusion, tokens : Path, optional
        Folder of the trained fusion and index of the cohort's cached tokens: hub tokens are read.
    function_tokens : Path, optional
        File of the cohort's function tokens: their regions are read, where there is no fusion.

    Returns
    -------
    about : dict
        ``endpoint``, ``cohort``, ``classes``, ``readout``, ``hub_start`` (whether hub tokens start from means of tokens),
        ``n`` (subjects looked at), ``synthetic``.
    arrays : dict of ndarray
        ``subjects``, ``target`` (n,), ``plane`` (n, 2), ``explained`` (2,), ``saliency`` (R,) mean absolute share of each
        ROI, ``signed`` (R,) mean, ``roi_names``; with a fusion ``attention`` and ``untrained`` (layers, hub tokens, 3) and
        ``even`` (share of function tokens with even attention).

    Raises
    ------
    DataError
        If labels, tokens, shards and weights do not fit.
    """
    device = default_device()
    stage = load_trained(function, "function")
    model = cast(FunctionJEPA, stage.model).to(device)
    index = shards.open_index(shard_index)
    rois = empty_rois(stage.run["model_metadata"])
    shards.check_rois(index, rois)
    shard_hashes.verify(index.shards["bold"])
    if fusion is not None and tokens is not None:
        read = _of_hub_tokens(labels, fusion, tokens, device)
    elif function_tokens is not None:
        read = _of_function_tokens(labels, function_tokens, index, stage)
    else:
        raise DataError("nothing to read: name --fusion with --tokens, or --function-tokens")
    looked_at = _chosen(read)
    arrays = {
        **_plane(read),
        **_saliency(_saliencies(read, looked_at, model, index, rois, device)),
        "roi_names": np.array(rois.names),
        **read.attention,
    }
    about = {
        "endpoint": labels.endpoint,
        "cohort": labels.cohort,
        "classes": labels.classes,
        "readout": read.name,
        "hub_start": read.hub_start,
        "n": len(looked_at),
        "synthetic": index.synthetic or bool(stage.run["synthetic"]),
    }
    return about, arrays


def _plane(read: Readout) -> dict[str, np.ndarray]:
    """Positions of subjects in the plane of two components, and their labels."""
    plane, explained = principal_plane(read.features)
    return {
        "subjects": np.array(read.labels.subjects),
        "target": read.labels.target,
        "plane": plane,
        "explained": explained,
    }


def _saliency(signed_NR: np.ndarray) -> dict[str, np.ndarray]:
    """Means over subjects: share of each ROI, and signed."""
    per_run = np.abs(signed_NR) / np.maximum(np.abs(signed_NR).sum(axis=1, keepdims=True), 1e-30)
    return {
        "saliency": per_run.mean(axis=0).astype(np.float32),
        "signed": signed_NR.mean(axis=0).astype(np.float32),
    }


def _chosen(read: Readout) -> list[str]:
    """The test subjects to inspect, as in the split file."""
    test = [s for s, split in zip(read.labels.subjects, read.labels.split, strict=True) if split == "test"]
    return [subject for subject in test if subject in read.runs][:MOST_SUBJECTS]


def _saliencies(
    read: Readout,
    looked_at: list[str],
    model: FunctionJEPA,
    index: shards.Index,
    rois: RoiMetadata,
    device: torch.device,
) -> np.ndarray:
    """Signed saliency of each ROI, one run a subject: (n, R)."""
    samples = {sample.key: sample for sample in index.samples["bold"]}
    direction_P = torch.from_numpy(label_direction(read.features, read.labels))
    found = []
    for subject in looked_at:
        key = read.runs[subject]
        if key not in samples:
            raise DataError(
                f"{index.path} has no run {key}, of which there are tokens: make the tokens again"
            )
        plan = plan_series(samples[key], model.config)
        run = read_runs([samples[key]], [plan], rois, model.config).to(device)

        def of_run(tokens_BFD: Tensor, n_patches: int, key: str = key) -> Tensor:
            return read.of_run(key, tokens_BFD, n_patches)

        found.append(roi_saliency(model, run, of_run, direction_P))
    return np.stack(found)


def _of_function_tokens(labels: Labels, file: Path, index: shards.Index, stage: Trained) -> Readout:
    """Regions of function tokens."""
    tokens = token_readout_file.read([file], "regions")
    if tokens.about["function"] != stage.sha256:
        raise DataError(
            f"{file} are tokens of other weights than those of the function stage: make them again"
        )
    kept, features, _ = tokens.by_subject(labels)
    runs: dict[str, str] = {}
    for sample in index.samples["bold"]:
        runs.setdefault(sample.subject.split("/")[1], sample.key)
    n_rois = len(index.metadata["roi_names"])

    def of_run(_key: str, tokens_BFD: Tensor, _n_patches: int) -> Tensor:
        return readouts.regions(tokens_BFD.unflatten(1, (n_rois, -1)))

    return Readout("regions of function tokens", kept, features, of_run, {}, runs)


def _of_hub_tokens(labels: Labels, folder: Path, token_file: Place, device: torch.device) -> Readout:
    """Mean hub token, and the attention of all hub tokens."""
    trained = load_trained(folder, "fusion")
    tokens = token_index.open_tokens(token_file)
    check_encoders(trained, tokens)
    shard_hashes.verify(shard for listed in tokens.shards.values() for shard in listed)
    data = join(labels, tokens)
    features = mean_hub_tokens(data, trained, device)
    fusion = cast(FusionModel, trained.model).to(device).float()
    one_run: dict[int, int] = {}
    for run, subject in enumerate(data.subject.tolist()):
        one_run.setdefault(subject, run)
    subjects = data.labels.subjects
    runs = {subjects[subject]: data.runs[run][0].key for subject, run in one_run.items()}
    place = {key: run for run, (function, _) in enumerate(data.runs) for key in (function.key,)}

    def of_run(key: str, tokens_BFD: Tensor, n_patches: int) -> Tensor:
        structure_BSD, _, _ = next(_samples(data, [place[key]], device))
        return fusion.encode(structure_BSD, tokens_BFD, n_patches).mean(dim=1)

    read = Readout("mean hub token", data.labels, features, of_run, {}, runs)
    looked_at = [place[runs[subject]] for subject in _chosen(read)]
    attention = {
        "attention": attention_shares(fusion, _samples(data, looked_at, device)),
        "untrained": attention_shares(_untrained(trained).to(device), _samples(data, looked_at, device)),
        "even": np.array(even_share(fusion, _samples(data, looked_at, device))),
    }
    return dataclasses.replace(read, attention=attention, hub_start=fusion.hub_start is not None)


def _samples(data: LabelledTokens, runs: list[int], device: torch.device) -> Iterator[Arguments]:
    """What the fusion's encoder takes, run by run."""
    for ((_, batch),) in data.read([[[run]] for run in runs]):
        yield fusion_arguments(batch, device)


def _untrained(trained: Trained) -> FusionModel:
    """The fusion as a training of its seed begins; seed 0 where that is not known."""
    seed = trained.run.get("seed")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed if isinstance(seed, int) else 0)
        model = build_model(cast(FusionConfig, trained.config.model), trained.run["model_metadata"])
    buffers = dict(trained.model.named_buffers())
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return cast(FusionModel, model.eval().requires_grad_(False))
