"""Cache the tokens of both frozen encoders for every BOLD run of a cohort that has a T1.

Batches that are already cached with the same encoders, shards and versions are left as they are, so a stopped job
resumes where it was.

Examples
--------
::

    python -m bhx_model.training.tokens --structure results/experiments/demo/structure \
        --function results/experiments/demo/function --shards results/pretraining/shards/index.json \
        --rois results/experiments/demo/subjects/rois.npz --out results/experiments/demo/tokens/pretraining
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
import logging
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bhx_model import contract
from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.command_line import run_command, whole_number
from bhx_model.data import loader, shards, token_index
from bhx_model.data.augment import SeriesPlan
from bhx_model.data.batch import Batch, intensities, of_equal_bucket, plan_series
from bhx_model.data.memory import Memory
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.shards import Index, Sample
from bhx_model.device import default_device
from bhx_model.strict_fields import to_dict
from bhx_model.training.encoders import Encoders
from bhx_model.training.runlog import duration

logger = logging.getLogger(__name__)

#: Arrays encoded at once, and threads that read the next ones meanwhile.
BATCH, READERS = 16, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the cache is complete, 1 on an error."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.training.tokens",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--structure", type=Path, required=True, help="folder of the trained structure stage")
    parser.add_argument("--function", type=Path, required=True, help="folder of the trained function stage")
    parser.add_argument("--shards", type=Path, required=True, help="index.json of the cohort's shards")
    parser.add_argument("--rois", type=Path, required=True, help="rois.npz of the experiment")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cache")
    parser.add_argument(
        "--step-version",
        type=whole_number,
        default=0,
        metavar="N",
        help="version of the step that embeds: a cache of another one is made anew",
    )
    a = parser.parse_args(argv)

    def command() -> None:
        write_cache(a.structure, a.function, a.shards, a.rois, a.out, a.step_version)

    return run_command(command)


def write_cache(
    structure: Path, function: Path, shard_index: Path, rois: Path, out: Path, step_version: int = 0
) -> Path:
    """Encode all pairs of a cohort and write the cache; its ``index.json`` last.

    Parameters
    ----------
    structure, function : Path
        Folders of the trained encoders.
    shard_index : Path
        Index of the cohort.
    rois : Path
        The experiment's ``rois.npz``.
    out : Path
        Folder of the cache, made if absent.
    step_version : int
        Version of the step that asks for the cache: batches of another version are encoded anew.

    Returns
    -------
    Path
        The index.

    Raises
    ------
    DataError
        If encoders, shards and ROIs do not fit.
    """
    device = default_device()
    encoders = Encoders.open(structure, function).to(device)
    index = shards.open_index(shard_index)
    encoders.check([index])
    metadata = RoiMetadata.load(rois)
    shards.check_rois(index, metadata)
    metadata.check_harmonics(encoders.metadata["modes"])
    pairs, alone = shards.pair(index.samples["bold"], index.samples["t1w"])
    if not pairs:
        logger.warning(
            "tokens of %s: no subject has both a BOLD run and a T1, the fusion learns nothing from this cohort",
            index.cohort,
        )
    out.mkdir(parents=True, exist_ok=True)
    shards.verify(s for m in ("bold", "t1w") for s in index.shards[m])
    logger.info("tokens of %s: %d runs, %d batches", index.cohort, len(pairs), len(index.shards["bold"]))
    began = time.monotonic()
    entries: dict[str, list[dict[str, Any]]] = {"function": [], "structure": []}
    by_shard: dict[Path, list[tuple[Sample, Sample]]] = {}
    for pair in pairs:
        by_shard.setdefault(pair[0].shard, []).append(pair)
    for number, shard in enumerate(index.shards["bold"]):
        here = by_shard.get(shard.path)
        if here is None:
            continue
        batch = shard.path.stem.removeprefix("bold-")
        for modality, entry in _write_batch(encoders, index, here, out, batch, device, step_version).items():
            entries[modality].append(entry)
        taken = time.monotonic() - began
        left = taken / (number + 1) * (len(index.shards["bold"]) - number - 1)
        logger.info("tokens of %s: batch %s done, %s to go", index.cohort, batch, duration(left))
    metadata = {
        "tokens": token_index.TOKENS_VERSION,
        "cohort": index.cohort,
        "atlas": index.metadata["atlas"],
        "roi_sha256": index.metadata["roi_sha256"],
        "synthetic": index.synthetic,
        "encoders": dict(encoders.hashes),
        "inputs": to_dict(encoders.fusion_inputs()),
        "source": index.sha256,
        "excluded": _excluded(index, alone),
        "shards": entries,
    }
    write_json(out / "index.json", metadata)
    return out / "index.json"


def _excluded(index: Index, alone: Sequence[Sample]) -> list[dict[str, str]]:
    """What is not in the cache and why: runs without a T1, and T1s of subjects without a run."""
    runs = [{"subject": s.subject.split("/")[1], "key": s.key, "reason": "the run has no T1"} for s in alone]
    with_run = {sample.subject for sample in index.samples["bold"]}
    volumes = [
        {"subject": s.subject.split("/")[1], "key": s.key, "reason": "the T1 has no BOLD run"}
        for s in index.samples["t1w"]
        if s.subject not in with_run
    ]
    return runs + volumes


def _write_batch(
    encoders: Encoders,
    index: Index,
    pairs: Sequence[tuple[Sample, Sample]],
    out: Path,
    batch: str,
    device: torch.device,
    step_version: int,
) -> dict[str, dict[str, Any]]:
    """Write both tars of a batch, unless they are there already, and return their entries of the index."""
    sources = {sample.shard for pair in pairs for sample in pair}
    hashes = sorted(s.sha256 for m in ("bold", "t1w") for s in index.shards[m] if s.path in sources)
    versions = [step_version, token_index.TOKENS_VERSION]
    made_of = hashlib.sha256(contract.canonical_json([versions, dict(encoders.hashes), hashes])).hexdigest()
    volumes = list({volume.key: volume for _, volume in pairs}.values())
    work: dict[str, Callable[[], Iterator[tuple[dict[str, Any], Tensor]]]] = {
        "structure": lambda: _structure_tokens(encoders, volumes, device),
        "function": lambda: _function_tokens(encoders, [run for run, _ in pairs], device),
    }
    entries = {}
    for modality, encode in work.items():
        tar, listed = out / f"{modality}-{batch}.tar", out / f"{modality}-{batch}.json"
        if not _is_made_of(listed, tar, made_of):
            _write_tar(tar, listed, modality, made_of, encode())
        rows = listed.read_bytes()
        about = json.loads(rows)
        entries[modality] = {
            "file": tar.name,
            "sha256": about["sha256"],
            "bytes": about["bytes"],
            "n": len(about["key"]),
            "list": listed.name,
            "list_sha256": hashlib.sha256(rows).hexdigest(),
        }
    return entries


def _is_made_of(listed: Path, tar: Path, made_of: str) -> bool:
    """Whether a batch is in the cache, whole, and made of these encoders and shards."""
    if not (listed.exists() and tar.exists()):
        return False
    about = json.loads(listed.read_bytes())
    return about["made_of"] == made_of and shards.file_sha256(tar) == about["sha256"]


def _write_tar(
    tar: Path,
    listed: Path,
    modality: str,
    made_of: str,
    rows: Iterator[tuple[dict[str, Any], Tensor]],
) -> None:
    columns: dict[str, Any] = {name: [] for name in token_index.LIST_COLUMNS[modality]}
    with atomic_write(tar) as part:
        with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as archive:
            for row, tokens in rows:
                buffer = io.BytesIO()
                array = tokens.contiguous().cpu().view(torch.uint16).numpy()
                np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
                places = {}
                for member, prefix, content in (
                    (token_index.MEMBER, "", buffer.getvalue()),
                    (contract.META_MEMBER, "meta_", contract.canonical_json(row)),
                ):
                    info = tarfile.TarInfo(f"{row['key']}.{member}")
                    info.size = len(content)
                    # USTAR: one block of header, then the content
                    places |= {
                        f"{prefix}offset": archive.offset + tarfile.BLOCKSIZE,
                        f"{prefix}size": len(content),
                    }
                    archive.addfile(info, io.BytesIO(content))
                for name, column in columns.items():
                    column.append({**row, **places}[name])
        columns |= {
            "made_of": made_of,
            "sha256": shards.file_sha256(part),
            "bytes": part.stat().st_size,
        }
        # the list goes last: where it is, its tar is complete
        listed.unlink(missing_ok=True)
    with atomic_write(listed) as part:
        part.write_bytes(contract.canonical_json(columns))


@torch.no_grad()
def _structure_tokens(
    encoders: Encoders, volumes: Sequence[Sample], device: torch.device
) -> Iterator[tuple[dict[str, Any], Tensor]]:
    batches = [volumes[start : start + BATCH] for start in range(0, len(volumes), BATCH)]
    reads = (functools.partial(_read_volumes, encoders, chosen) for chosen in batches)
    ahead = loader.in_order(reads, workers=READERS, ahead=READERS)
    for chosen, batch in zip(batches, ahead, strict=True):
        with encoders.autocast(device, "structure"):
            volume = intensities(batch.to(device).tensors["volume"])
            tokens = encoders.structure.encode(volume).bfloat16()
        for sample, one in zip(chosen, tokens, strict=True):
            yield {"key": sample.key, "subject": sample.subject.split("/")[1], "n_tokens": len(one)}, one


def _read_volumes(encoders: Encoders, chosen: Sequence[Sample]) -> Batch:
    steps = shards.read_t1w(chosen, encoders.structure.grid)
    return Batch([sample.key for sample in chosen], {"volume": torch.from_numpy(steps)}).pin()


@torch.no_grad()
def _function_tokens(
    encoders: Encoders, runs: Sequence[Sample], device: torch.device
) -> Iterator[tuple[dict[str, Any], Tensor]]:
    config = encoders.function.config
    plans = {run.key: plan_series(run, config) for run in runs}
    # runs are written in their order, but those of equal bucket are encoded together
    windows = [runs[start : start + 4 * BATCH] for start in range(0, len(runs), 4 * BATCH)]
    batches = [of_equal_bucket(window, plans, BATCH) for window in windows]
    reads = (
        functools.partial(_read_runs, encoders, chosen, plans) for listed in batches for chosen in listed
    )
    ahead = loader.in_order(reads, workers=READERS, ahead=READERS)
    for window, listed in zip(windows, batches, strict=True):
        done: dict[str, tuple[dict[str, Any], Tensor]] = {}
        for chosen in listed:
            batch = next(ahead).to(device)
            series = batch.tensors["series"]
            with encoders.autocast(device, "function"):
                tokens = encoders.function.encode(series, batch.patch_frames).bfloat16()
            weights = encoders.function.token_weights(series, batch.patch_frames)
            weights = weights.unflatten(1, (encoders.function.n_rois, -1))
            for run, one, weight in zip(chosen, tokens, weights, strict=True):
                done[run.key] = (_function_row(run, plans[run.key], one, weight.cpu()), one)
        for run in window:
            yield done.pop(run.key)


def _read_runs(encoders: Encoders, chosen: Sequence[Sample], plans: Mapping[str, SeriesPlan]) -> Batch:
    return encoders.draft_runs(chosen, [plans[run.key] for run in chosen], Memory()).read().pin()


def _function_row(run: Sample, plan: SeriesPlan, tokens: Tensor, weight_RN: Tensor) -> dict[str, Any]:
    absent = torch.nonzero(weight_RN[:, 0] == 0).flatten().tolist()
    return {
        "key": run.key,
        "anat": run.anat,
        "subject": run.subject.split("/")[1],
        "tr_s": plan.tr_s,
        "n_frames": plan.n_frames,
        "n_tokens": len(tokens),
        "last_share": float(weight_RN[:, -1].max()),
        "absent": absent,
    }


if __name__ == "__main__":
    sys.exit(main())
