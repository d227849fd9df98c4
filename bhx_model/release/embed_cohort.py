"""Embed every run of a cohort's shards with exported weights, as a table: ``bhx embed``. Torch is imported when it runs.

A row is a run: who, when and how it was measured, then its features ``f0000``, ``f0001``, .. in float32. They are the mean
hub token where the weights have a fusion (runs without a T1 are left out, and counted), else the mean function token.
"""

from __future__ import annotations

import argparse
import importlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bhx_model.atomic_write import atomic_write
from bhx_model.command_line import run_command
from bhx_model.contract import canonical_json
from bhx_model.errors import ConfigError, DataError, SiteError
from bhx_model.remote.urls import Place, is_url, place

if TYPE_CHECKING:
    from bhx_model.data.shards import Index, Sample
    from bhx_model.release.embed import BrainHarmonix

logger = logging.getLogger(__name__)

#: Runs embedded at once.
BATCH: Final = 8
#: Which tokens are averaged.
REPRESENTATIONS: Final = ("hub", "function")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--weights", required=True, help="folder of an export, its URL, or org/name")
    parser.add_argument(
        "--cohort",
        type=place,
        required=True,
        help="shards: their index.json, the folder with it, a URL of either, or a cohort of results/",
    )
    parser.add_argument(
        "--tokens",
        choices=REPRESENTATIONS,
        help="tokens to average over a run (default: hub if the weights have a fusion)",
    )
    parser.add_argument("--device", help="cpu, cuda, .. (default: a GPU if there is one)")
    parser.add_argument("--out", type=Path, required=True, help="Parquet table to write, a row per run")


def command(args: argparse.Namespace) -> int:
    """Run ``bhx embed``."""
    if args.out.suffix != ".parquet":
        raise ConfigError(f"{args.out}: the table is written as Parquet, name it .parquet")
    try:
        module = importlib.import_module("bhx_model.release.embed")
    except ImportError as error:
        msg = f"embedding needs the model's packages ({error.name} is missing): pip install 'bhx[model]'"
        raise SiteError(msg) from error
    from bhx_model.device import default_device

    device = args.device or default_device()
    model = module.from_pretrained(args.weights, device=device)
    embed_cohort(model, find_index(args.cohort), args.out, tokens=args.tokens)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the rule ``embed_cohort``."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.release.embed_cohort",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments(parser)
    args = parser.parse_args(argv)
    return run_command(lambda: command(args))


def find_index(cohort: Place) -> Place:
    """``index.json`` of a cohort's shards; a URL is one.

    Raises
    ------
    DataError
        If there is none.
    """
    if is_url(cohort):
        return cohort
    cohort = Path(cohort)
    places = (
        cohort,
        cohort / "index.json",
        cohort / "shards/index.json",
        Path("results") / cohort / "shards/index.json",
    )
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        msg = f"{cohort} has no shards (no index.json): name their folder, or run `snakemake cohort_{cohort.name}`"
        raise DataError(msg)
    return found


def embed_cohort(model: BrainHarmonix, index_path: Place, out: Path, *, tokens: str | None = None) -> None:
    """Write the table.

    Parameters
    ----------
    model : BrainHarmonix
    index_path : Path or str
        ``index.json`` of the cohort's shards, or its URL.
    out : Path
    tokens : str, optional
        One of `REPRESENTATIONS`; hub tokens where the weights have them if None.

    Raises
    ------
    DataError
        If the shards are of other ROIs or another T1 grid, damaged, or hold no run that can be embedded.
    ConfigError
        If hub tokens are asked of weights that have none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bhx_model.data import shards

    kind = tokens or ("hub" if model.fusion is not None else "function")
    if kind == "hub" and model.fusion is None:
        raise ConfigError("these weights are the function encoder alone: take --tokens function")
    index = shards.open_index(index_path)
    shards.check_rois(index, model.rois)
    pairs, alone = shards.pair(index.samples["bold"], index.samples["t1w"])
    chosen: list[tuple[Sample, Sample | None]] = [*pairs]
    if kind == "function":
        chosen += [(run, None) for run in alone]
    elif alone:
        logger.warning("%s: %d runs have no T1 and no hub tokens", index.cohort, len(alone))
    if not chosen:
        msg = f"{index.path} holds no run{' with a T1' if kind == 'hub' else ''}: see why they are excluded"
        raise DataError(msg)
    rows = dict(_rows(model, index, chosen, kind))
    ordered = sorted(chosen, key=lambda pair: pair[0].key)
    values = np.stack([rows[run.key] for run, _ in ordered])
    columns: dict[str, Any] = {
        "cohort": [index.cohort] * len(ordered),
        "subject": [run.subject.split("/", 1)[-1] for run, _ in ordered],
        "key": [run.key for run, _ in ordered],
        "tr_s": [run.tr_s for run, _ in ordered],
        "n_frames": [run.n_frames for run, _ in ordered],
        "synthetic": [index.synthetic or bool(model.about.get("synthetic"))] * len(ordered),
    }
    columns |= {f"f{i:04d}": pa.array(column) for i, column in enumerate(values.T)}
    about = {
        "tokens": kind,
        "weights": {stage: of["sha256"] for stage, of in model.about["stages"].items()},
        "shards": index.sha256,
        "cohort": index.cohort,
    }
    table = pa.table(columns).replace_schema_metadata({"bhx": canonical_json(about)})
    with atomic_write(out) as part:
        pq.write_table(table, part, compression="zstd")
    logger.info("%s: %d runs, mean %s tokens of %d numbers", out, len(ordered), kind, values.shape[1])


def _rows(
    model: BrainHarmonix, index: Index, chosen: Sequence[tuple[Sample, Sample | None]], kind: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Key and features of every run, batch by batch."""
    import torch

    from bhx_model.data import shard_hashes, shards
    from bhx_model.data.batch import intensities, of_equal_bucket, plan_series, read_runs

    for modality in ("bold", "t1w") if kind == "hub" else ("bold",):
        shard_hashes.verify(index.shards[modality])
    config, volume_of = model.function.config, {run.key: t1w for run, t1w in chosen}
    runs = [run for run, _ in chosen]
    plans = {run.key: plan_series(run, config) for run in runs}
    for batch_runs in of_equal_bucket(runs, plans, BATCH):
        batch = read_runs(batch_runs, [plans[run.key] for run in batch_runs], model.rois, config)
        with torch.inference_mode():
            function = model.function.encode(batch.tensors["series"].to(model.device), batch.patch_frames)
            found = function
            if kind == "hub" and model.structure is not None:
                t1ws = [t1w for run in batch_runs if (t1w := volume_of[run.key]) is not None]
                volumes = torch.from_numpy(shards.read_t1w(t1ws, model.structure.grid)).to(model.device)
                found = model.fuse(model.encode_volume(intensities(volumes)), function, batch.n_patches)
            means = found.float().mean(dim=1).cpu().numpy()
        yield from zip(batch.keys, means, strict=True)


if __name__ == "__main__":
    import sys

    sys.exit(main())
