"""``bhx export timeseries``: a cohort's parcel series as BIDS derivatives in XCP-D's style, for whoever wants no more.

Written per run: ``sub-01_task-rest_space-MNI152NLin2009cAsym_atlas-Schaefer17n400p_stat-mean_timeseries.tsv`` (a row
per frame, a column per parcel), ``.._stat-coverage_bold.tsv`` (a row per parcel: its name, and the share of its voxels
with signal) and a JSON for both. Delivered tables tell no space, so neither do their names.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.errors import ConfigError
from bhx_prep.config import config
from bhx_prep.io import bids_names

#: The standard has no names for parcel series yet; with this its validator accepts the folder; XCP-D writes one, too.
BIDSIGNORE = "*_stat-mean_timeseries.*\n*_stat-coverage_bold.*\n"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx export``."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    one = kinds.add_parser(
        "timeseries",
        help="parcel series as TSV files in BIDS derivatives",
        epilog="example: bhx export timeseries abide1 --out derivatives/bhx",
    )
    one.add_argument("cohort", help="name in the configuration; its features must have been made")
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
    runs, people = export_timeseries(settings.results / args.cohort / "features", args.out, space)
    print(f"{args.out}: {runs} runs of {people} people")
    return 0


def export_timeseries(features: Path, out: Path, space: str | None) -> tuple[int, int]:
    """Write the series of all batches of a cohort.

    Parameters
    ----------
    features : Path
        Folder with ``batch-*/timeseries.parquet``.
    out : Path
        Made if absent; files of the same runs are replaced, others stay.
    space : str or None
        Of the images that the series are from.

    Returns
    -------
    tuple of int
        Runs and people.

    Raises
    ------
    ValueError
        If there are no features, or they cannot be read.
    """
    tables = sorted(features.glob("batch-*/timeseries.parquet"))
    if not tables:
        msg = f"no features in {features}: make them with `snakemake features`"
        raise ConfigError(msg)
    runs, people, synthetic = 0, set(), False
    for path in tables:
        try:
            file = pq.ParquetFile(path)
            metadata = json.loads(file.schema_arrow.metadata[b"bhx"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"{path} cannot be read ({error}): extract the features of this batch again"
            raise ConfigError(msg) from error
        for group in file.iter_batches(batch_size=16):
            for row in group.to_pylist():
                _write_run(out, row, metadata, space)
                runs, synthetic = runs + 1, synthetic or row["synthetic"]
                people.add(row["subject"])
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
    (out / ".bidsignore").write_text(BIDSIGNORE)
    return runs, len(people)


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
