"""Predict an endpoint with published networks: BrainNetCNN and the Brain Network Transformer.

They read the matrix of correlations of a subject, a mean over its runs. The networks are those of the package ml4fmri
(`pip install 'bhx[networks]'`), with its learning rate and weight decay; the loop is ours, so that they are trained on the
training subjects of our splits alone, and the epoch that is best on the validation subjects predicts.

Kawahara et al. 2017, doi:10.1016/j.neuroimage.2016.09.046; Kan et al. 2022, arXiv 2210.06681.

Examples
--------
::

    python -m bhx_model.evaluation.networks --method brainnetcnn --labels results/endpoints/diagnosis/seed-0.json \
        --features results/patients/connectivity/correlation.npz --seed 0 \
        --out results/endpoints/diagnosis/brainnetcnn_seed-0
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from bhx_model.command_line import json_object, run_command, seed_number
from bhx_model.device import default_device
from bhx_model.errors import ConfigError, SiteError
from bhx_model.evaluation import feature_table, metrics, results
from bhx_model.evaluation.epochs import scaled_target
from bhx_model.evaluation.labels import Labels, read_labels
from bhx_model.evaluation.methods import NETWORKS
from bhx_model.nets.heads import endpoint_loss, n_outputs

logger = logging.getLogger(__name__)

#: As the package trains: most epochs, epochs without gain after which it stops, and subjects of a step.
EPOCHS, PATIENCE, BATCH_SIZE = 200, 30, 64
#: Passes whose mean predicts: dropout of the package's BrainNetCNN stays on when it predicts.
PASSES: Final = {"brainnetcnn": 8, "brainnettf": 1}
#: What of the changes to the training a network takes.
CHANGES: Final = ("epochs", "batch_size")


def correlations(table: feature_table.FeatureTable, labels: Labels) -> np.ndarray:
    """Matrices of correlations of the subjects: (N, R, R) float32.

    A pair that a subject lacks has the mean of the subjects that the model is fitted to, or 0 where none has it.

    Parameters
    ----------
    table : FeatureTable
        Fisher-z correlations, upper triangles.
    labels : Labels

    Raises
    ------
    DataError
        If a subject has none, or the table is of other cohorts.
    """
    labels.check_cohorts(table.cohorts, "features")
    r = np.tanh(table.rows(labels.people, "run in the shards"))
    own = r[labels.of("train")]
    known = np.isfinite(own).sum(axis=0)
    mean = np.divide(np.nansum(own, axis=0), known, out=np.zeros(r.shape[1], np.float32), where=known > 0)
    r = np.where(np.isfinite(r), r, mean)
    n_rois = len(table.columns)
    row, column = np.triu_indices(n_rois, k=1)
    matrices = np.tile(np.eye(n_rois, dtype=np.float32), (len(r), 1, 1))
    matrices[:, row, column] = r
    matrices[:, column, row] = r
    return matrices


def build(method: str, n_rois: int, outputs: int) -> nn.Module:
    """Build a network of the package, with new random weights.

    Raises
    ------
    SiteError
        If the package is not installed.
    """
    try:
        from ml4fmri.models.BNT import BNT
        from ml4fmri.models.BrainNetCNN import BrainNetCNN
    except ImportError as error:
        msg = f"{method} needs the package ml4fmri: pip install 'bhx[networks]', or leave the method out ({error})"
        raise SiteError(msg[:200]) from error
    return {"brainnetcnn": BrainNetCNN, "brainnettf": BNT}[method](n_rois, outputs)


def fit(
    method: str,
    labels: Labels,
    matrices_NRR: np.ndarray,
    seed: int,
    *,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Train on the training subjects; the epoch that is best on the validation subjects predicts.

    Parameters
    ----------
    method : str
    labels : Labels
    matrices_NRR : ndarray, (N, R, R)
    seed : int
    epochs, batch_size : int
        It stops earlier where `PATIENCE` epochs bring no gain.

    Returns
    -------
    scores : ndarray, (N, classes) probabilities or (N, 1) predictions
    chosen : dict
        ``epoch``, counted from 1, and the settings.
    """
    torch.manual_seed(seed)
    device = default_device()
    model: Any = build(method, matrices_NRR.shape[1], n_outputs(labels.kind, labels.n_classes)).to(device)
    x, (target, scale, centre) = torch.from_numpy(matrices_NRR).float(), scaled_target(labels)
    optimizer = model.get_optimizer()
    train, val = np.flatnonzero(labels.of("train")), labels.of("val")
    best: tuple[float, int, dict[str, Tensor]] | None = None
    for epoch in range(epochs):
        model.train()
        order = np.random.default_rng([seed, epoch]).permutation(train)
        for batch in np.array_split(order, -(-len(order) // batch_size)):
            output, _ = model(x[batch].to(device))
            loss = endpoint_loss(output, target[batch].to(device), labels.kind, 0.0)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        scores = _predict(model, x[val], labels, device, batch_size, PASSES[method]) * scale + centre
        found = metrics.selection_loss(labels.target[val], scores, labels.n_classes)
        if best is None or found < best[0]:
            best = (found, epoch + 1, {name: value.clone() for name, value in model.state_dict().items()})
        logger.info(
            "epoch %d of %d: validation loss %.4f, best in epoch %d", epoch + 1, epochs, found, best[1]
        )
        if epoch + 1 - best[1] >= PATIENCE:
            break
    assert best is not None
    model.load_state_dict(best[2])
    scores = _predict(model, x, labels, device, batch_size, PASSES[method]) * scale + centre
    return scores, {"epoch": best[1], "settings": {"epochs": epochs, "batch_size": batch_size}}


@torch.no_grad()
def _predict(
    model: nn.Module, x: Tensor, labels: Labels, device: torch.device, batch_size: int, n_passes: int
) -> np.ndarray:
    """Mean over passes of what is predicted; the same whenever it is called for equal weights."""
    model.eval()
    state = torch.random.get_rng_state()
    torch.manual_seed(labels.seed)
    passes = []
    for _ in range(n_passes):
        output = torch.cat([model(part.to(device))[0].cpu() for part in x.split(batch_size)])
        passes.append((output.softmax(dim=-1) if labels.n_classes else output).double().numpy())
    torch.random.set_rng_state(state)
    return np.mean(passes, axis=0)


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a network on one split; 0 when evaluated, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.evaluation.networks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--method", choices=NETWORKS, required=True)
    add("--labels", type=Path, required=True, help="split of the endpoint")
    add("--features", type=Path, nargs="+", required=True, help="correlations, a file per cohort")
    add("--seed", type=seed_number, required=True, help="of the split; also of everything random here")
    add("--set", type=json_object, default={}, metavar="JSON", help="`epochs` and `batch_size`")
    add("--out", type=Path, required=True, help="folder for metrics.json and predictions.parquet")
    args = parser.parse_args(argv)

    def run() -> None:
        labels = read_labels(args.labels)
        if labels.seed != args.seed:
            msg = f"{args.labels} is the split of seed {labels.seed}, not {args.seed}: name the other one"
            raise ConfigError(msg)
        labels.check_splits("a label")
        table = feature_table.join([feature_table.read(file) for file in args.features])
        changes = {key: value for key, value in args.set.items() if key in CHANGES}
        scores, chosen = fit(args.method, labels, correlations(table, labels), args.seed, **changes)
        summary, rows = results.summarise(labels, scores)
        summary |= {"experiment": None, "method": args.method, "synthetic": table.synthetic, **chosen}
        results.write(summary, rows, args.out)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
