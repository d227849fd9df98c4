"""Methods that read function tokens, of trained or of untrained weights. The linear ones need no torch."""

from __future__ import annotations

from pathlib import Path

from bhx_model.config import EvaluationConfig
from bhx_model.errors import DataError
from bhx_model.evaluation import function_token_file
from bhx_model.evaluation.labels import Labels
from bhx_model.evaluation.methods import Method
from bhx_model.evaluation.predictions import Predictions
from bhx_model.evaluation.probe import probe


def predict(
    method: Method,
    file: Path,
    labels: Labels,
    settings: EvaluationConfig,
    seed: int,
    *,
    function: Path | None = None,
) -> Predictions:
    """Predict an endpoint by one of these methods.

    Parameters
    ----------
    method : Method
    file : Path
        Function tokens of the endpoint's cohort.
    labels : Labels
    settings : EvaluationConfig
        Of the attentive probe.
    seed : int
        Of the attentive probe.
    function : Path, optional
        Folder of the trained function stage whose tokens these have to be.

    Raises
    ------
    DataError
        If labels, tokens and weights do not fit.
    """
    tokens = function_token_file.read(file, method.array)
    if function is not None:
        _check_weights(tokens, function)
    kept, features, excluded = tokens.by_subject(labels)
    if method.has_epochs:
        import torch

        from bhx_model.evaluation.attentive import attentive_probe

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        scores, chosen = attentive_probe(kept, features, tokens.about["heads"], settings, seed, device)
    else:
        scores, chosen = probe(kept, features)
    return Predictions(kept, scores, chosen, bool(tokens.about["synthetic"]), excluded)


def _check_weights(tokens: function_token_file.FunctionTokens, function: Path) -> None:
    from bhx_model.data.shards import file_sha256

    weights = function / "model.safetensors"
    if not weights.exists():
        msg = f"there are no weights at {weights}: train the stage first"
        raise DataError(msg)
    if file_sha256(weights) != tokens.about["function"]:
        msg = f"{tokens.path} are tokens of other weights than {weights}: make them again"
        raise DataError(msg)
