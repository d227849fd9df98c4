"""Encode every BOLD run of a cohort with a trained function encoder, and with untrained weights as the control.

It writes readouts of the tokens to one .npz: their mean, 16 regions, the covariance of components, and the
tokens of every ROI averaged over time. Runs need no T1.

Examples
--------
::

    python -m bhx_model.evaluation.function_tokens --function results/experiments/demo/function \
        --shards results/patients/shards/index.json --out results/experiments/demo/function_tokens/patients.npz
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from bhx_model.data import loader, npz, shard_hashes, shards
from bhx_model.data.augment import SeriesPlan
from bhx_model.data.batch import Batch, of_equal_bucket, plan_series, read_runs
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.shards import Index, Sample
from bhx_model.device import default_device
from bhx_model.errors import DataError
from bhx_model.evaluation import encoder_command, readouts
from bhx_model.evaluation.methods import UNTRAINED
from bhx_model.evaluation.token_readout_file import VERSION
from bhx_model.nets.factory import empty_rois
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.vit import hold_in_bfloat16
from bhx_model.remote.urls import Place
from bhx_model.training.runlog import duration
from bhx_model.training.trained import load_trained
from bhx_model.training.untrained import untrained_function

logger = logging.getLogger(__name__)

#: Runs encoded at once, threads that read the next ones meanwhile, and seconds between reports.
BATCH, READERS, REPORT_S = 16, 2, 30


@dataclasses.dataclass(frozen=True)
class FunctionEncoders:
    """A trained function encoder and its untrained weights."""

    trained: FunctionJEPA
    untrained: FunctionJEPA
    rois: RoiMetadata
    """Names only."""
    components_RM: Tensor
    """Of `readouts.covariance`, the same for both."""
    amp: str
    """Precision of the training."""
    sha256: str
    """Of the trained weights."""
    synthetic: bool
    """Whether any of the data of the training were made, not measured."""

    @classmethod
    def open(cls, folder: Path, device: torch.device) -> FunctionEncoders:
        """Load them from the folder of the trained function stage."""
        stage = load_trained(folder, "function")
        trained, untrained = cast(FunctionJEPA, stage.model), untrained_function(stage)
        amp = stage.config.train.amp
        for model in (trained, untrained):
            if amp == "bf16":
                hold_in_bfloat16(model)
            model.to(device)
        rois = empty_rois(stage.run["model_metadata"])
        components_RM = readouts.components_of(trained)
        return cls(trained, untrained, rois, components_RM, amp, stage.sha256, bool(stage.run["synthetic"]))

    @torch.no_grad()
    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Readouts of runs of one bucket, by the names of the file's arrays; a row per run."""
        series, found = batch.tensors["series"], {}
        for suffix, model in (("", self.trained), (UNTRAINED, self.untrained)):
            with torch.autocast(series.device.type, torch.bfloat16, enabled=self.amp == "bf16"):
                tokens_BFD = model.encode(series, batch.patch_frames).float()
            tokens_BRND = tokens_BFD.unflatten(1, (model.n_rois, -1))
            found |= {
                f"mean{suffix}": readouts.mean(tokens_BRND),
                f"regions{suffix}": readouts.regions(tokens_BRND),
                f"covariance{suffix}": readouts.covariance(tokens_BRND, self.components_RM),
                f"rois{suffix}": readouts.rois(tokens_BRND).half(),
            }
        return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the file is written, 1 on an error."""
    return encoder_command.run("function", __doc__, write, argv)


def write(function: Path, shard_index: Place, out: Path) -> None:
    """Encode all BOLD runs of a cohort and write the file.

    Parameters
    ----------
    function : Path
        Folder of the trained stage.
    shard_index : Path or str
        Index of the cohort, or its URL.
    out : Path
        File, see `token_readout_file`.

    Raises
    ------
    DataError
        If the shards hold no BOLD run, ROIs that the encoder does not know, or a run that it cannot embed.
    """
    device = default_device()
    encoders = FunctionEncoders.open(function, device)
    index = shards.open_index(shard_index)
    shards.check_rois(index, encoders.rois)
    runs = index.samples["bold"]
    if not runs:
        msg = f"{index.path} holds no BOLD run to encode: see why the cohort's runs are excluded"
        raise DataError(msg)
    shard_hashes.verify(index.shards["bold"])
    about = {
        "version": VERSION,
        "cohort": index.cohort,
        "synthetic": index.synthetic or encoders.synthetic,
        "function": encoders.sha256,
        "shards": index.sha256,
        "heads": encoders.trained.config.heads,
    }
    # what a killed process left is made anew
    scratch = out.with_name(f".arrays.{out.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        _encode_all(encoders, index, device, scratch)
        np.save(scratch / "keys.npy", np.array([run.key for run in runs]))
        np.save(scratch / "subjects.npy", np.array([run.subject.split("/")[1] for run in runs]))
        np.save(scratch / "about.npy", np.array(json.dumps(about, sort_keys=True)))
        npz.join(sorted(scratch.glob("*.npy")), out)
    finally:
        shutil.rmtree(scratch)
    logger.info("function tokens of %s: %d runs in %s", index.cohort, len(runs), out)


def _encode_all(encoders: FunctionEncoders, index: Index, device: torch.device, scratch: Path) -> None:
    """Write an .npy for every array, batch by batch, so that memory holds a batch only."""
    runs, began = index.samples["bold"], time.monotonic()
    place = {run.key: number for number, run in enumerate(runs)}
    arrays: dict[str, np.ndarray] = {}
    done, reported = 0, began
    for batch in _batches(encoders, runs):
        rows = [place[key] for key in batch.keys]
        for name, found in encoders.encode(batch.to(device)).items():
            values = found.cpu().numpy()
            if name not in arrays:
                file, shape = scratch / f"{name}.npy", (len(runs), *values.shape[1:])
                arrays[name] = np.lib.format.open_memmap(file, "w+", dtype=values.dtype, shape=shape)
            arrays[name][rows] = values
        done += len(rows)
        if (now := time.monotonic()) - reported > REPORT_S:
            left = (now - began) / done * (len(runs) - done)
            logger.info(
                "function tokens of %s: %d of %d runs, %s to go",
                index.cohort,
                done,
                len(runs),
                duration(left),
            )
            reported = now


def _batches(encoders: FunctionEncoders, runs: Sequence[Sample]) -> Iterator[Batch]:
    """Batches of runs of equal bucket, in the order of the shards."""
    config = encoders.trained.config
    plans: Mapping[str, SeriesPlan] = {run.key: plan_series(run, config) for run in runs}
    windows = (runs[start : start + 8 * BATCH] for start in range(0, len(runs), 8 * BATCH))
    chosen = (batch for window in windows for batch in of_equal_bucket(window, plans, BATCH))

    def load(batch: Sequence[Sample]) -> Batch:
        return read_runs(batch, [plans[run.key] for run in batch], encoders.rois, config).pin()

    return loader.in_order((functools.partial(load, b) for b in chosen), workers=READERS, ahead=READERS)


if __name__ == "__main__":
    sys.exit(main())
