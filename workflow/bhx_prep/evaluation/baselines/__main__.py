"""Predict an endpoint without our model: the baselines with which every result is compared.

Connectivity, morphometry and covariates are standardised on the training subjects; what a subject lacks gets their mean.
The penalty is chosen on the validation subjects and reported on the test subjects, as in the linear probe of hub tokens.

Examples
--------
::

    python -m bhx_prep.evaluation.baselines --method fc --labels results/endpoints/diagnosis/seed-0.json
        --features results/patients/connectivity/correlation.npz --out results/endpoints/diagnosis/fc_seed-0
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bhx_model.command_line import run_command
from bhx_model.evaluation import results
from bhx_model.evaluation.labels import read_labels
from bhx_model.evaluation.methods import BASELINES, METHODS, NETWORKS
from bhx_prep.evaluation.baselines.evaluate import evaluate


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a baseline on one split; 0 when evaluated, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.evaluation.baselines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = [name for name in BASELINES if name not in NETWORKS]
    parser.add_argument("--method", choices=known, required=True)
    parser.add_argument("--labels", required=True, type=Path, help="split file with labels")
    parser.add_argument(
        "--features", required=True, nargs="+", type=Path, help="what the method reads, a file per cohort"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for metrics.json and predictions")
    args = parser.parse_args(argv)
    return run_command(
        lambda: results.write(
            *evaluate(METHODS[args.method], read_labels(args.labels), args.features), args.out
        )
    )


if __name__ == "__main__":
    sys.exit(main())
