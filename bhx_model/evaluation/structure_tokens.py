"""Encode every T1 of a cohort with a trained structure encoder.

What is written are readouts of the tokens, in one .npz: their mean, and their means over blocks of neighbouring patches.
T1s need no BOLD run.

Examples
--------
::

    python -m bhx_model.evaluation.structure_tokens --structure results/experiments/demo/structure \
        --shards results/patients/shards/index.json --out results/experiments/demo/structure_tokens/patients.npz
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch

from bhx_model.atomic_write import atomic_write
from bhx_model.data import loader, shard_hashes, shards
from bhx_model.data.batch import Batch, intensities
from bhx_model.data.shards import Index, Sample
from bhx_model.device import default_device
from bhx_model.errors import DataError
from bhx_model.evaluation import encoder_command, readouts
from bhx_model.evaluation.token_readout_file import VERSION
from bhx_model.nets.mae import StructureMAE
from bhx_model.nets.vit import hold_in_bfloat16
from bhx_model.remote.urls import Place
from bhx_model.training.trained import load_trained

logger = logging.getLogger(__name__)

#: T1s encoded at once, and threads that read the next ones meanwhile.
BATCH, READERS = 8, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the file is written, 1 on an error."""
    return encoder_command.run("structure", __doc__, write, argv)


def write(structure: Path, shard_index: Place, out: Path) -> None:
    """Encode all T1s of a cohort and write the file.

    Parameters
    ----------
    structure : Path
        Folder of the trained stage.
    shard_index : Path or str
        Index of the cohort, or its URL.
    out : Path
        File, see `token_readout_file`.

    Raises
    ------
    DataError
        If the shards hold no T1, or T1s of another grid than the encoder's.
    """
    device = default_device()
    stage = load_trained(structure, "structure")
    model, amp = cast(StructureMAE, stage.model), stage.config.train.amp == "bf16"
    index = shards.open_index(shard_index)
    _check(index, model)
    if amp:
        hold_in_bfloat16(model)
    model.to(device)
    volumes = index.samples["t1w"]
    shard_hashes.verify(index.shards["t1w"])
    mean, blocks = _encode(model, volumes, device, amp=amp)
    about = {
        "version": VERSION,
        "cohort": index.cohort,
        "synthetic": index.synthetic or bool(stage.run["synthetic"]),
        "structure": stage.sha256,
        "shards": index.sha256,
        "heads": model.config.heads,
    }
    with atomic_write(out) as part, part.open("wb") as file:
        np.savez(
            file,
            about=np.array(json.dumps(about, sort_keys=True)),
            keys=np.array([volume.key for volume in volumes]),
            subjects=np.array([volume.subject.split("/")[1] for volume in volumes]),
            mean=mean,
            blocks=blocks,
        )
    logger.info("structure tokens of %s: %d T1s in %s", index.cohort, len(volumes), out)


def _check(index: Index, model: StructureMAE) -> None:
    if not index.samples["t1w"]:
        msg = f"{index.path} holds no T1 to encode: see why the cohort's T1s are excluded"
        raise DataError(msg)
    shape = tuple(index.metadata["t1w_shape"])
    if shape != model.grid:
        msg = f"{index.path}: T1s on a grid of {shape} voxels, the structure encoder was trained on {model.grid}"
        raise DataError(msg)


@torch.no_grad()
def _encode(
    model: StructureMAE, volumes: Sequence[Sample], device: torch.device, *, amp: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Readouts of all T1s: (n, D) float32 and (n, blocks, D) float16."""
    patches = [size // model.config.patch for size in model.grid]
    batches = [volumes[start : start + BATCH] for start in range(0, len(volumes), BATCH)]
    reads = (functools.partial(_read, model, chosen) for chosen in batches)
    mean, blocks = [], []
    for batch in loader.in_order(reads, workers=READERS, ahead=READERS):
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            tokens_BND = model.encode(intensities(batch.to(device).tensors["volume"])).float()
        mean.append(tokens_BND.mean(dim=1).cpu().numpy())
        blocks.append(readouts.blocks(tokens_BND, patches).half().cpu().numpy())
    return np.concatenate(mean), np.concatenate(blocks)


def _read(model: StructureMAE, chosen: Sequence[Sample]) -> Batch:
    steps = shards.read_t1w(chosen, model.grid)
    return Batch([sample.key for sample in chosen], {"volume": torch.from_numpy(steps)}).pin()


if __name__ == "__main__":
    sys.exit(main())
