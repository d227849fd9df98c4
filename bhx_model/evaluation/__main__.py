"""Predict an endpoint from frozen tokens, by a linear or an attentive probe, or from hub tokens by fine-tuning the fusion.

Hub tokens come from a trained fusion and cached tokens (--fusion, --tokens). Tokens of one encoder alone come from a file
of `python -m bhx_model.evaluation.function_tokens` or `.structure_tokens` (--function-tokens, --structure-tokens). Methods
whose name ends in `_untrained` read the same from untrained weights: the difference is what the training adds.

Validation subjects decide the penalty of the linear probe and the epoch of the other methods. Scores are those of the test
subjects, over the data set as a whole. Preset `reference` does both as the published code does. Runs of one subject are
averaged.

Examples
--------
::

    python -m bhx_model.evaluation --method probe --fusion results/experiments/demo/fusion \
        --tokens results/experiments/demo/tokens/patients/index.json \
        --labels results/endpoints/diagnosis/seed-0.json --seed 0 --experiment demo \
        --out results/experiments/demo/endpoints/diagnosis/probe_seed-0
    python -m bhx_model.evaluation --method function_regions \
        --function-tokens results/experiments/demo/function_tokens/patients.npz \
        --labels results/endpoints/diagnosis/seed-0.json --seed 0 --experiment demo \
        --out results/experiments/demo/endpoints/diagnosis/function_regions_seed-0
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bhx_model import config, strict_fields
from bhx_model.atomic_write import read_json
from bhx_model.command_line import json_object, run_command, seed_number
from bhx_model.errors import ConfigError, DataError
from bhx_model.evaluation import from_token_readouts, results
from bhx_model.evaluation.labels import Labels, read_labels
from bhx_model.evaluation.methods import METHODS
from bhx_model.evaluation.predictions import Predictions
from bhx_model.file_hash import file_sha256
from bhx_model.remote.urls import place

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when evaluated, 1 after an error of the user's."""
    arguments = _parse(argv)
    return run_command(lambda: evaluate(arguments))


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluate one method on one split, and write its results.

    Raises
    ------
    ConfigError
        If settings are wrong, or the labels are those of another split.
    DataError
        If labels, tokens and weights do not fit.
    """
    changes = {**config.preset_evaluation(arguments.preset), **arguments.set}
    settings: config.EvaluationConfig = strict_fields.from_dict(config.EvaluationConfig, changes, "--set")
    labels = read_labels(arguments.labels)
    if labels.seed != arguments.seed:
        msg = (
            f"{arguments.labels} is the split of seed {labels.seed}, not {arguments.seed}: name the other one"
        )
        raise ConfigError(msg)
    if settings.choose_on == "test":
        labels = labels.swap_val_and_test()
    found = _predict(arguments, labels, settings)
    summary, rows = results.summarise(
        found.labels,
        found.scores,
        batch_size=settings.batch_size if settings.scores_over == "batches" else None,
    )
    summary |= {
        "experiment": arguments.experiment,
        "method": arguments.method,
        "synthetic": found.synthetic,
        "choose_on": settings.choose_on,
        "scores_over": settings.scores_over,
        "excluded": found.excluded,
        "weights": _weights(arguments),
        **_overlap(arguments, labels.seed, settings.choose_on),
        **found.chosen,
    }
    results.write(summary, rows, arguments.out)
    logger.info("%s %s seed %d: %s", labels.endpoint, arguments.method, labels.seed, _line(summary))


def _overlap(arguments: argparse.Namespace, seed: int, choose_on: str) -> dict[str, Any]:
    """Scored subjects in the pretraining, if they were compared; empty for untrained weights."""
    file = arguments.overlap
    if file is None or METHODS[arguments.method].is_untrained:
        return {}
    found = read_json(file, "make it again")
    seeds = found.get("seeds" if choose_on == "val" else "seeds_of_validation", {})
    if str(seed) not in seeds:
        scored = "test" if choose_on == "val" else "validation"
        msg = f"{file} does not say which {scored} subjects of seed {seed} are in the pretraining: make it again"
        raise DataError(msg)
    return {"pretraining_overlap": {"known": found["known"], **seeds[str(seed)]}}


def _predict(arguments: argparse.Namespace, labels: Labels, settings: config.EvaluationConfig) -> Predictions:
    method = METHODS[arguments.method]
    files = {"function": arguments.function_tokens, "structure": arguments.structure_tokens}
    if method.stage in files:
        if files[method.stage] is None:
            msg = f"{method.name} reads {method.reads}: name their file with --{method.stage}-tokens"
            raise ConfigError(msg)
        weights = arguments.function if method.stage == "function" else arguments.structure
        return from_token_readouts.predict(
            method, files[method.stage], labels, settings, arguments.seed, weights=weights
        )
    if arguments.fusion is None or arguments.tokens is None:
        msg = f"{method.name} reads hub tokens: name the trained fusion with --fusion and cached tokens with --tokens"
        raise ConfigError(msg)
    # slow to import, and linear models of function tokens need no torch
    from bhx_model.evaluation import from_hub_tokens

    return from_hub_tokens.predict(
        method, arguments.fusion, arguments.tokens, labels, settings, arguments.seed
    )


def _weights(arguments: argparse.Namespace) -> dict[str, str]:
    """SHA-256 of the weights of the stages that were read."""
    folders = {stage: getattr(arguments, stage) for stage in ("fusion", "structure", "function")}
    return {
        stage: file_sha256(folder / "model.safetensors")
        for stage, folder in folders.items()
        if folder is not None
    }


def _line(summary: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {_number(value)} (constant prediction {_number(summary['constant'][name])})"
        for name, value in summary["metrics"].items()
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    known = [name for name, method in METHODS.items() if method.needs_experiment]
    add("--method", choices=known, required=True)
    add("--fusion", type=Path, help="folder of the trained fusion, for methods of hub tokens")
    of = "index.json of the cached tokens, a file per cohort, for methods of hub tokens"
    add("--tokens", type=place, nargs="+", metavar="FILE", help=of)
    for stage in ("function", "structure"):
        of = f"{stage} tokens, a file per cohort, for `{stage}*`"
        add(f"--{stage}-tokens", type=Path, nargs="+", metavar="FILE", help=of)
        add(
            f"--{stage}",
            type=Path,
            help=f"folder of the trained {stage} stage: refuse tokens of other weights",
        )
    add("--labels", type=Path, required=True, help="split of the endpoint")
    add("--seed", type=seed_number, required=True, help="of the split; also of everything random here")
    add("--experiment", required=True, help="name for metrics.json")
    add(
        "--overlap",
        type=Path,
        metavar="FILE",
        help="which scored subjects are in the pretraining, for metrics.json",
    )
    add(
        "--preset",
        choices=config.PRESETS,
        default="base",
        help="whose scoring: `reference` as the published code",
    )
    add("--out", type=Path, required=True, help="folder for metrics.json and predictions.parquet")
    add(
        "--set",
        type=json_object,
        default={},
        metavar="JSON",
        help="changes to the training of a method, e.g. '{\"epochs\": 10}'",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
