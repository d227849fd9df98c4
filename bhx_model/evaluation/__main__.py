"""Predict an endpoint from cached tokens: linear probe, attentive probe, or fine-tuning of the fusion.

What is chosen (the penalty of the linear probe, the epoch of the others) is chosen on the validation subjects and
reported on the test subjects, over the data set as a whole; with preset `reference` as the published code does. Runs
of one subject are averaged.

Examples
--------
::

    python -m bhx_model.evaluation --method probe --fusion results/experiments/demo/fusion \
        --tokens results/experiments/demo/tokens/patients/index.json \
        --labels results/endpoints/diagnosis/seed-0.json --seed 0 --experiment demo \
        --out results/experiments/demo/endpoints/diagnosis/probe_seed-0
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bhx_model import config
from bhx_model.command_line import run_command
from bhx_model.data import shards, token_index
from bhx_model.data.shards import Index
from bhx_model.errors import ConfigError, DataError
from bhx_model.evaluation import results
from bhx_model.evaluation.attentive import attentive_probe
from bhx_model.evaluation.finetune import finetune
from bhx_model.evaluation.hub_tokens import hub_tokens, mean_hub_tokens
from bhx_model.evaluation.labelled_tokens import join
from bhx_model.evaluation.labels import read_labels
from bhx_model.evaluation.probe import probe
from bhx_model.training.trained import Trained, load_trained

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when evaluated, 1 after an error of the user's."""
    arguments = _parse(argv)
    return run_command(lambda: evaluate(arguments))


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluate one method on one split, and write its results."""
    changes = {**config.preset_evaluation(arguments.preset), **arguments.set}
    settings: config.EvaluationConfig = config.from_dict(config.EvaluationConfig, changes, "--set")
    labels = read_labels(arguments.labels)
    if labels.seed != arguments.seed:
        msg = (
            f"{arguments.labels} is the split of seed {labels.seed}, not {arguments.seed}: name the other one"
        )
        raise ConfigError(msg)
    trained = load_trained(arguments.fusion, "fusion")
    tokens = token_index.open_tokens(arguments.tokens)
    check_encoders(trained, tokens)
    shards.verify(shard for listed in tokens.shards.values() for shard in listed)
    data = join(labels, tokens)
    if settings.choose_on == "test":
        data = dataclasses.replace(data, labels=data.labels.swap_val_and_test())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.method == "probe":
        scores, chosen = probe(data.labels, mean_hub_tokens(data, trained, device))
    elif arguments.method == "attentive":
        hub = hub_tokens(data, trained, device)
        scores, chosen = attentive_probe(
            data.labels, hub, trained.config.model.heads, settings, arguments.seed
        )
    else:
        scores, chosen = finetune(data, trained, settings, arguments.seed, device)
    summary, rows = results.summarise(
        data.labels, scores, batch_size=settings.batch_size if settings.scores_over == "batches" else None
    )
    summary |= {
        "experiment": arguments.experiment,
        "method": arguments.method,
        "synthetic": tokens.synthetic or bool(trained.run["synthetic"]),
        "choose_on": settings.choose_on,
        "scores_over": settings.scores_over,
        "excluded": data.excluded,
        **chosen,
    }
    results.write(summary, rows, arguments.out)
    logger.info("%s %s seed %d: %s", labels.endpoint, arguments.method, labels.seed, _line(summary))


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


def _line(summary: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g} (constant prediction {summary['constant'][name]:.3g})"
        for name, value in summary["metrics"].items()
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--method", choices=("probe", "attentive", "finetune"), required=True)
    add("--fusion", type=Path, required=True, help="folder of the trained fusion")
    add("--tokens", type=Path, required=True, help="index.json of the cohort's cached tokens")
    add("--labels", type=Path, required=True, help="split of the endpoint")
    add(
        "--seed", type=config.whole_number, required=True, help="of the split; also of everything random here"
    )
    add("--experiment", required=True, help="name for metrics.json")
    add(
        "--preset",
        choices=config.PRESETS,
        default="base",
        help="whose scoring: `reference` as the published code",
    )
    add("--out", type=Path, required=True, help="folder for metrics.json and predictions.csv")
    add(
        "--set",
        type=config.json_object,
        default={},
        metavar="JSON",
        help="changes to the training of a method, e.g. '{\"epochs\": 10}'",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
