"""Methods that read hub tokens: probes on frozen ones, and fine-tuning of the fusion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from bhx_model.config import EvaluationConfig
from bhx_model.data import shard_hashes, token_index
from bhx_model.data.shards import Index
from bhx_model.device import default_device
from bhx_model.errors import DataError, SiteError
from bhx_model.evaluation.attentive import attentive_probe
from bhx_model.evaluation.finetune import finetune
from bhx_model.evaluation.hub_tokens import hub_covariance, hub_tokens, mean_hub_tokens
from bhx_model.evaluation.labelled_tokens import join
from bhx_model.evaluation.labels import Labels
from bhx_model.evaluation.methods import Method
from bhx_model.evaluation.predictions import Predictions
from bhx_model.evaluation.probe import probe
from bhx_model.training.trained import Trained, load_trained


def predict(
    method: Method,
    fusion: Path,
    files: Sequence[Path],
    labels: Labels,
    settings: EvaluationConfig,
    seed: int,
) -> Predictions:
    """Predict an endpoint by one of these methods.

    Parameters
    ----------
    method : Method
    fusion : Path
        Folder of the trained stage.
    files : sequence of Path
        ``index.json`` of the cached tokens of each of the endpoint's cohorts.
    labels : Labels
    settings : EvaluationConfig
        Of the methods with epochs.
    seed : int
        Of the methods with epochs.

    Raises
    ------
    DataError
        If labels, tokens and weights do not fit.
    SiteError
        If the memory of the GPU does not suffice.
    """
    trained = load_trained(fusion, "fusion")
    tokens = [token_index.open_tokens(file) for file in files]
    for cache in tokens:
        check_encoders(trained, cache)
        shard_hashes.verify(shard for listed in cache.shards.values() for shard in listed)
    data = join(labels, *tokens)
    device = default_device()
    if method.name == "probe":
        scores, chosen = probe(data.labels, mean_hub_tokens(data, trained, device))
    elif method.name == "hub_tokens":
        hub = hub_tokens(data, trained, device)
        scores, chosen = probe(data.labels, hub.reshape(len(hub), -1))
    elif method.name == "covariance":
        scores, chosen = probe(data.labels, hub_covariance(data, trained, device))
    elif method.name == "attentive":
        hub = hub_tokens(data, trained, device)
        scores, chosen = attentive_probe(data.labels, hub, trained.config.model.heads, settings, seed, device)
    else:
        try:
            scores, chosen = finetune(data, trained, settings, seed, device)
        except torch.OutOfMemoryError as error:
            now, most = settings.accumulate, settings.batch_size
            remedy = f"set the endpoint's finetune.accumulate, now {now}, to {min(2 * now, most)}"
            if now >= most:
                remedy = "use a GPU with more memory, or leave finetune out of the endpoint's methods"
            raise SiteError(f"the GPU's memory is full: {remedy}") from error
    synthetic = any(cache.synthetic for cache in tokens) or bool(trained.run["synthetic"])
    return Predictions(data.labels, scores, chosen, synthetic, data.excluded)


def check_encoders(trained: Trained, tokens: Index) -> None:
    """Refuse tokens of other encoders than those the fusion was trained on.

    Raises
    ------
    DataError
        If they are.
    """
    if trained.run["model_metadata"]["encoders"] != tokens.metadata["encoders"]:
        msg = f"{tokens.path} are tokens of other encoders than the fusion was trained on: make the tokens again"
        raise DataError(msg)
