"""Methods that read the tokens of one trained or untrained encoder. The linear ones need no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bhx_model.config import EvaluationConfig
from bhx_model.errors import DataError
from bhx_model.evaluation import token_readout_file
from bhx_model.evaluation.labels import Labels
from bhx_model.evaluation.methods import Method
from bhx_model.evaluation.predictions import Predictions
from bhx_model.evaluation.probe import probe
from bhx_model.file_hash import file_sha256


def predict(
    method: Method,
    files: Sequence[Path],
    labels: Labels,
    settings: EvaluationConfig,
    seed: int,
    *,
    weights: Path | None = None,
) -> Predictions:
    """Predict an endpoint by one of these methods.

    Parameters
    ----------
    method : Method
    files : sequence of Path
        Tokens of the endpoint's cohort, and of those that it is tested on besides.
    labels : Labels
    settings : EvaluationConfig
        Of the attentive probe.
    seed : int
        Of the attentive probe.
    weights : Path, optional
        Folder of the trained stage whose tokens these have to be.

    Raises
    ------
    DataError
        If labels, tokens and weights do not fit.
    """
    assert method.stage is not None
    tokens = token_readout_file.read(files, method.array, method.stage)
    if weights is not None:
        _check_weights(tokens, weights)
    kept, features, excluded = tokens.by_subject(labels)
    if method.has_epochs:
        from bhx_model.device import default_device
        from bhx_model.evaluation.attentive import attentive_probe

        device = default_device()
        scores, chosen = attentive_probe(kept, features, tokens.about["heads"], settings, seed, device)
    else:
        scores, chosen = probe(kept, features)
    return Predictions(kept, scores, chosen, bool(tokens.about["synthetic"]), excluded)


def _check_weights(tokens: token_readout_file.TokenReadouts, folder: Path) -> None:
    weights = folder / "model.safetensors"
    if not weights.exists():
        msg = f"there are no weights at {weights}: train the stage first"
        raise DataError(msg)
    if file_sha256(weights) != tokens.about[tokens.stage]:
        msg = f"{tokens.paths[0]} are tokens of other weights than {weights}: make them again"
        raise DataError(msg)
