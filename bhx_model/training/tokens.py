"""Cache the tokens of both frozen encoders for every BOLD run of a cohort that has a T1.

Files that are already cached with the same encoders, shards and versions are left as they are, so a stopped job
resumes where it was. Several processes, as torchrun starts them, write some of the files each.

Examples
--------
::

    python -m bhx_model.training.tokens --structure results/experiments/demo/structure \
        --function results/experiments/demo/function --shards results/pretraining/shards/index.json \
        --rois results/experiments/demo/subjects/rois.npz --out results/experiments/demo/tokens/pretraining
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bhx_model import contract
from bhx_model.atomic_write import write_json
from bhx_model.command_line import run_command, whole_number
from bhx_model.data import shard_hashes, shards, token_index
from bhx_model.data.reader import threads_per_process
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.shards import Index, Sample
from bhx_model.device import default_device
from bhx_model.errors import BhxError, format_error
from bhx_model.remote.urls import Place, place
from bhx_model.strict_fields import to_dict
from bhx_model.training import distributed
from bhx_model.training.board import Board
from bhx_model.training.distributed import Processes
from bhx_model.training.encoders import Encoders
from bhx_model.training.runlog import duration
from bhx_model.training.token_files import TokenFile, write_files

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the cache is complete, 1 on an error."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.training.tokens",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--structure", type=Path, required=True, help="folder of the trained structure stage")
    parser.add_argument("--function", type=Path, required=True, help="folder of the trained function stage")
    parser.add_argument(
        "--shards", type=place, required=True, help="index.json of the cohort's shards, or its URL"
    )
    parser.add_argument("--rois", type=Path, required=True, help="rois.npz of the experiment")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cache")
    parser.add_argument(
        "--step-version",
        type=whole_number,
        default=0,
        metavar="N",
        help="version of the step that embeds: a cache of another one is made anew",
    )
    parser.add_argument(
        "--cores",
        type=whole_number,
        metavar="N",
        help="cores of the job, over all its nodes; by default those that this process may use are divided among the node's",
    )
    a = parser.parse_args(argv)

    def command() -> None:
        device = default_device()
        write_cache(
            a.structure,
            a.function,
            a.shards,
            a.rois,
            a.out,
            a.step_version,
            processes=distributed.this_process(None if device.type == "cuda" else device),
            workers=threads_per_process(a.cores),
        )

    return run_command(command)


def write_cache(
    structure: Path,
    function: Path,
    shard_index: Place,
    rois: Path,
    out: Path,
    step_version: int = 0,
    *,
    processes: Processes | None = None,
    workers: int = 2,
) -> Path:
    """Encode all pairs of a cohort and write the cache; its ``index.json`` last.

    Parameters
    ----------
    structure, function : Path
        Folders of the trained encoders.
    shard_index : Path or str
        Index of the cohort, or its URL.
    rois : Path
        The experiment's ``rois.npz``.
    out : Path
        Folder of the cache, made if absent.
    step_version : int
        Version of the step that asks for the cache: batches of another version are encoded anew.
    processes : Processes, optional
        This process and the others that write the cache, each some of its files; alone without it. Any number of them
        writes the same bytes.
    workers : int
        Reading threads of this process.

    Returns
    -------
    Path
        The index; only the first process waits until it is there.

    Raises
    ------
    DataError
        If encoders, shards and ROIs do not fit.
    """
    processes = processes or Processes(0, 1, default_device())
    encoders = Encoders.open(structure, function).to(processes.device)
    index = shards.open_index(shard_index)
    encoders.check([index])
    metadata = RoiMetadata.load(rois)
    shards.check_rois(index, metadata)
    metadata.check_harmonics(encoders.metadata["modes"])
    pairs, alone = shards.pair(index.samples["bold"], index.samples["t1w"])
    if not pairs and processes.first:
        logger.warning(
            "tokens of %s: no subject has both a BOLD run and a T1, the fusion learns nothing from this cohort",
            index.cohort,
        )
    out.mkdir(parents=True, exist_ok=True)
    files = _files(encoders, index, pairs, out, step_version)
    board = Board(processes)
    try:
        _write_share(encoders, index, files, processes, workers)
    except (BhxError, OSError) as error:
        board.say(format_error(error))
        raise
    board.say()
    if processes.first:
        board.wait()
        write_json(out / "index.json", _describe(encoders, index, files, alone))
    return out / "index.json"


def _files(
    encoders: Encoders, index: Index, pairs: Sequence[tuple[Sample, Sample]], out: Path, step_version: int
) -> list[TokenFile]:
    """Files of the cache, those of runs first: processes that divide them evenly divide the work evenly."""
    by_shard: dict[Path, list[tuple[Sample, Sample]]] = {}
    for pair in pairs:
        by_shard.setdefault(pair[0].shard, []).append(pair)
    versions = [step_version, token_index.TOKENS_VERSION]
    hashes = {shard.path: shard.sha256 for m in ("bold", "t1w") for shard in index.shards[m]}
    function, structure = [], []
    for shard in index.shards["bold"]:
        here = by_shard.get(shard.path, [])
        if not here:
            continue
        batch = shard.path.stem.removeprefix("bold-")
        sources = sorted(hashes[path] for path in {sample.shard for pair in here for sample in pair})
        described = contract.canonical_json(
            [versions, dict(encoders.hashes), dict(encoders.settings), sources]
        )
        made_of = hashlib.sha256(described).hexdigest()
        volumes = list({volume.key: volume for _, volume in here}.values())
        function.append(TokenFile("function", batch, out, [run for run, _ in here], made_of))
        structure.append(TokenFile("structure", batch, out, volumes, made_of))
    return [*function, *structure]


def _write_share(
    encoders: Encoders, index: Index, files: Sequence[TokenFile], processes: Processes, workers: int
) -> None:
    """Check what this process' share of the files is made of, and write those that are not there."""
    mine = files[processes.rank :: processes.world]
    sources = {sample.shard for file in mine for sample in file.samples}
    if processes.first:  # and what no file is made of
        read = {sample.shard for file in files for sample in file.samples}
        sources |= {shard.path for m in ("bold", "t1w") for shard in index.shards[m]} - read
    shard_hashes.verify(shard for m in ("bold", "t1w") for shard in index.shards[m] if shard.path in sources)
    left = [file for file in mine if not file.is_there()]
    if processes.first:
        logger.info(
            "tokens of %s: %d files, %d of them by this process, which has %d of these",
            index.cohort,
            len(files),
            len(mine),
            len(mine) - len(left),
        )
    began, done = time.monotonic(), itertools.count(1)

    def written(file: TokenFile) -> None:
        number = next(done)
        to_go = (time.monotonic() - began) / number * (len(left) - number)
        if processes.first:
            logger.info("tokens of %s: %s done, %s to go", index.cohort, file.tar.stem, duration(to_go))

    write_files(encoders, left, processes.device, workers, written)


def _describe(
    encoders: Encoders, index: Index, files: Sequence[TokenFile], alone: Sequence[Sample]
) -> dict[str, Any]:
    """What ``index.json`` states about a whole cache; `alone` are the runs without a T1."""
    return {
        "tokens": token_index.TOKENS_VERSION,
        "cohort": index.cohort,
        "atlas": index.metadata["atlas"],
        "roi_sha256": index.metadata["roi_sha256"],
        "synthetic": index.synthetic,
        "encoders": dict(encoders.hashes),
        "inputs": to_dict(encoders.fusion_inputs()),
        "source": index.sha256,
        "excluded": _excluded(index, alone),
        "shards": {
            modality: [file.entry() for file in files if file.modality == modality]
            for modality in ("function", "structure")
        },
    }


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


if __name__ == "__main__":
    sys.exit(main())
