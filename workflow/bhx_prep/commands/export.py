"""``bhx export timeseries``: a cohort's parcel time series as BIDS derivatives in XCP-D's style, without running the model.

Written per run: ``sub-01_task-rest_space-MNI152NLin2009cAsym_atlas-Schaefer17n400p_stat-mean_timeseries.tsv`` (a row
per frame, a column per parcel), ``.._stat-coverage_bold.tsv`` (a row per parcel: its name, and the share of its voxels
with signal) and a JSON for both. Cohorts of `input: timeseries` have no known space, so it is not in their names.
"""

from __future__ import annotations

import argparse
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.errors import ConfigError, DataError
from bhx_prep.config import config
from bhx_prep.io import bids_names, overwriting

logger = logging.getLogger(__name__)

#: The standard has no names for parcel series yet; with this its validator accepts the folder; XCP-D writes one, too.
BIDSIGNORE = "*_stat-mean_timeseries.*\n*_stat-coverage_bold.*\n"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx export``."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    one = kinds.add_parser(
        "timeseries",
        help="parcel time series as TSV files in BIDS derivatives",
        epilog="example: bhx export timeseries abide1 --out derivatives/bhx",
    )
    one.add_argument(
        "cohort", metavar="COHORT", help="name in the configuration; run `snakemake features` first"
    )
    one.add_argument("--out", type=Path, required=True, help="folder of the derivatives")
    one.add_argument("--config", type=Path, default=Path("config.yaml"), help="configuration (%(default)s)")


def command(args: argparse.Namespace) -> int:
    """Run ``bhx export``."""
    settings = config.load(args.config)
    if args.cohort not in settings.cohorts:
        msg = f"no cohort {args.cohort!r} in {args.config}; there are: {', '.join(settings.cohorts)}"
        raise ConfigError(msg)
    cohort = settings.cohorts[args.cohort]
    space = None if cohort.input == "timeseries" else cohort.space
    runs, subjects = export_timeseries(settings.results / args.cohort / "features", args.out, space)
    logger.info("%s: %d runs of %d subjects", args.out, runs, subjects)
    return 0


def export_timeseries(features: Path, out: Path, space: str | None) -> tuple[int, int]:
    """Write the series of all batches of a cohort.

    Parameters
    ----------
    features : Path
        Folder with ``batch-*/timeseries.parquet``.
    out : Path
        Made if absent; in an earlier export, files of the same runs are replaced, others stay.
    space : str or None
        Of the images that the series are from.

    Returns
    -------
    tuple of int
        Runs and subjects.

    Raises
    ------
    DataError
        If there are no features, or they cannot be read.
    ConfigError
        If there are files in `out` that are not of an earlier export.
    """
    tables = sorted(features.glob("batch-*/timeseries.parquet"))
    if not tables:
        msg = f"no features in {features}: make them with `snakemake features`"
        raise DataError(msg)
    overwriting.check_dataset(out, "bhx")
    opened = [_open(path) for path in tables]
    synthetic = any(any(file.read(columns=["synthetic"])[0].to_pylist()) for file, _ in opened)
    # first: by this an export that was cut off is recognised as one
    write_json(
        out / "dataset_description.json",
        {
            "Name": f"Parcel series of {features.parent.name}" + (" (synthetic)" if synthetic else ""),
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "Synthetic": synthetic,
            "GeneratedBy": [{"Name": "bhx", "Version": version("bhx")}],
        },
    )
    with atomic_write(out / ".bidsignore") as part:
        part.write_text(BIDSIGNORE)
    runs, subjects = 0, set()
    for file, metadata in opened:
        for group in file.iter_batches(batch_size=16):
            for row in group.to_pylist():
                _write_run(out, row, metadata, space)
                runs += 1
                subjects.add(row["subject"])
    return runs, len(subjects)


def _open(path: Path) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """A batch's table, and the metadata of its atlas and denoising."""
    try:
        file = pq.ParquetFile(path)
        return file, json.loads(file.schema_arrow.metadata[b"bhx"])
    except (OSError, pa.ArrowException, json.JSONDecodeError, KeyError, TypeError) as error:
        msg = f"{path} cannot be read ({error}): extract the features of this batch again"
        raise DataError(msg) from error


def _write_run(out: Path, row: dict[str, Any], metadata: dict[str, Any], space: str | None) -> None:
    named = bids_names.parse(row["key"])
    stem = bids_names.stem(row["subject"], named)  # refuses what is no BIDS label
    stem += (f"_space-{space}" if space else "") + f"_atlas-{metadata['atlas']}"
    folder = out / f"sub-{row['subject']}"
    if "ses" in named:
        folder /= f"ses-{named['ses']}"
    names = metadata["names"]
    series = np.asarray(row["series"], np.float32).reshape(len(names), row["n_frames"])
    about = {
        "RepetitionTime": row["tr_s"],
        "Atlas": metadata["atlas"],
        "Denoising": metadata["strategy"],
        "Synthetic": row["synthetic"],
    }
    if row["segments"] is not None:  # rows of the table are not evenly spaced
        about["KeptFrames"] = row["segments"]
    _write_table(folder / "func" / f"{stem}_stat-mean_timeseries.tsv", pd.DataFrame(series.T, columns=names))
    write_json(
        folder / "func" / f"{stem}_stat-mean_timeseries.json", {**about, "Units": "as in the BOLD file"}
    )
    coverage = pd.DataFrame({"Node": names, "coverage": row["coverage"]})
    _write_table(folder / "func" / f"{stem}_stat-coverage_bold.tsv", coverage)
    write_json(
        folder / "func" / f"{stem}_stat-coverage_bold.json", {**about, "Units": "share of voxels with signal"}
    )


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic_write(path) as part:
        table.to_csv(part, sep="\t", index=False, na_rep="n/a", float_format="%.8g")
