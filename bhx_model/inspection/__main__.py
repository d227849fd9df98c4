"""Inspect a trained model: attention of hub tokens, saliency of ROIs, reconstructions, and subjects in feature space.

``endpoint`` reads an endpoint's subjects: the attention of the hub tokens by modality beside that of untrained weights,
the saliency of ROIs (gradient times input of the readout, along the direction in which the training subjects' labels
differ), and the plane in which subjects differ most. Without a fusion it reads regions of function tokens, which have no
hub tokens. ``structure`` reads held-out T1 volumes and writes what the masked autoencoder fills in, as means over subjects.
Both write a small .npz.

Examples
--------
::

    python -m bhx_model.inspection endpoint --labels results/endpoints/diagnosis/seed-0.json \
        --function results/experiments/demo/function --shards results/patients/shards/index.json \
        --fusion results/experiments/demo/fusion --tokens results/experiments/demo/tokens/patients/index.json \
        --out results/experiments/demo/inspection/diagnosis.npz
    python -m bhx_model.inspection structure --structure results/experiments/demo/structure \
        --split results/experiments/demo/pretrain.json --shards results/pretraining/shards/index.json \
        --out results/experiments/demo/inspection/structure.npz
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bhx_model.atomic_write import atomic_write
from bhx_model.command_line import run_command
from bhx_model.evaluation.labels import read_labels
from bhx_model.remote.urls import place

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the file is written, 1 on an error."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.inspection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    endpoint = commands.add_parser("endpoint", help="attention, saliency and plane of an endpoint's subjects")
    add = endpoint.add_argument
    add("--labels", type=Path, required=True, help="split of the endpoint")
    add("--function", type=Path, required=True, help="folder of the trained function stage")
    add("--shards", type=place, required=True, help="index.json of the endpoint's cohort, or its URL")
    add("--fusion", type=Path, help="folder of the trained fusion")
    add("--tokens", type=place, help="index.json of the cohort's cached tokens, with --fusion")
    add(
        "--function-tokens", type=Path, metavar="FILE", help="function tokens of the cohort, without a fusion"
    )
    add("--out", type=Path, required=True, help=".npz to write")
    structure = commands.add_parser("structure", help="reconstructions of held-out T1 volumes")
    add = structure.add_argument
    add("--structure", type=Path, required=True, help="folder of the trained structure stage")
    add("--split", type=Path, required=True, help="pretrain.json of the experiment")
    add("--shards", type=place, required=True, nargs="+", help="index.json of its cohorts, or URLs")
    add("--out", type=Path, required=True, help=".npz to write")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    # slow to import, which --help need not wait for
    from bhx_model.inspection import endpoint, structure

    if arguments.what == "structure":
        about, arrays = structure.inspect(arguments.structure, arguments.split, arguments.shards)
    else:
        about, arrays = endpoint.inspect(
            read_labels(arguments.labels),
            arguments.function,
            arguments.shards,
            fusion=arguments.fusion,
            tokens=arguments.tokens,
            function_tokens=arguments.function_tokens,
        )
    write(arguments.out, about, arrays)
    logger.info("wrote %s: %d subjects", arguments.out, about["n"])


def write(path: Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, and ``about`` as JSON among them; equal ones give equal bytes."""
    named: dict[str, Any] = {**arrays, "about": np.array(json.dumps(about, sort_keys=True))}
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **named)


if __name__ == "__main__":
    sys.exit(main())
