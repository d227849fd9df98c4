"""``bhx export timeseries``: a cohort's parcel time series as BIDS derivatives in XCP-D's style, without running the model.

Written per run: ``sub-01_task-rest_space-MNI152NLin2009cAsym_atlas-Schaefer17n400p_stat-mean_timeseries.tsv`` (a row
per frame, a column per parcel), ``.._stat-coverage_bold.tsv`` (a row per parcel: its name, and the share of its voxels
with signal) and a JSON for both. Cohorts of `input: timeseries` have no known space, so it is not in their names.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model import __version__
from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.errors import ConfigError, DataError
from bhx_prep.config import config
from bhx_prep.features.confounds import load_strategy
from bhx_prep.features.scans import scans_of
from bhx_prep.io import bids_names, overwriting
from bhx_prep.preproc.dataset_description import configuration_hash, location

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
    origin = _origin(settings, args.cohort)
    runs, subjects = export_timeseries(settings.results / args.cohort / "features", args.out, space, origin)
    logger.info("%s: %d runs of %d subjects", args.out, runs, subjects)
    return 0


@dataclass(frozen=True)
class Origin:
    """What a cohort's series were made of.

    Attributes
    ----------
    dataset : str
        Name by which URIs refer to it.
    root : Path
        Its folder, as the configuration has it.
    files : mapping
        Files of a run, by its key; empty where the index is gone.
    settings : mapping
        Settings that alter series.
    """

    dataset: str
    root: Path
    files: Mapping[str, list[Path]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def uris(self, key: str) -> list[str]:
        """BIDS URIs of a run's files."""
        root = self.root.absolute()
        paths = [path for path in self.files.get(key, ()) if path.is_relative_to(root)]
        return [f"bids:{self.dataset}:{path.relative_to(root).as_posix()}" for path in paths]


def _origin(settings: config.Config, name: str) -> Origin:
    cohort, results = settings.cohorts[name], settings.results
    preproc = results / name / "preproc" if cohort.input == "bids" else None
    features = settings.features
    kept = {
        key: getattr(features, key) for key in ("min_coverage", "min_rois", "max_mean_fd_mm", "min_seconds")
    }
    strategy = load_strategy(cohort.strategy or features.strategy).model_dump(
        mode="json", exclude={"prose", "citation"}
    )
    asked = {**kept, "strategy": strategy, "space": None if cohort.input == "timeseries" else cohort.space}
    index_file, files = results / name / "index.parquet", {}
    if index_file.is_file():
        subjects = sorted(set(pq.read_table(index_file, columns=["subject"])["subject"].to_pylist()))
        mm = features.t1w_resolution_mm
        rows = scans_of(index_file, name, subjects, derivatives=preproc, space=cohort.space, t1w_mm=mm)
        for row in rows:
            if row["modality"] == "bold":
                paths = (row["path"], row["path_right"], row["mask"], row["confounds"])
                files[row["key"]] = [Path(path).absolute() for path in paths if path]
    return Origin(name, preproc or cohort.root, files, asked)


def export_timeseries(
    features: Path, out: Path, space: str | None, origin: Origin | None = None
) -> tuple[int, int]:
    """Write the series of all batches of a cohort.

    Parameters
    ----------
    features : Path
        Folder with ``batch-*/timeseries.parquet``.
    out : Path
        Made if absent; in an earlier export, files of the same runs are replaced, others stay.
    space : str or None
        Of the images that the series are from.
    origin : Origin, optional
        What the series were made of, for ``SourceDatasets`` and ``Sources``.

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
    _describe(features.parent.name, out, opened, origin)
    strategies = _strategies(tables)
    runs, subjects = 0, set()
    for file, metadata in opened:
        for group in file.iter_batches(batch_size=16):
            for row in group.to_pylist():
                about: dict[str, Any] = {"Denoising": strategies.get(row["key"], metadata["strategy"])}
                if origin and (uris := origin.uris(row["key"])):
                    about["Sources"] = uris
                _write_run(out, row, metadata, space, about)
                runs += 1
                subjects.add(row["subject"])
    return runs, len(subjects)


def _describe(
    cohort: str, out: Path, opened: Sequence[tuple[Any, dict[str, Any]]], origin: Origin | None
) -> None:
    """Write what makes the folder a dataset, before anything else: by this an export that was cut off is one."""
    synthetic = any(any(file.read(columns=["synthetic"])[0].to_pylist()) for file, _ in opened)
    write_json(
        out / "dataset_description.json",
        {
            "Name": f"Parcel series of {cohort}" + (" (synthetic)" if synthetic else ""),
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "Synthetic": synthetic,
            "GeneratedBy": [{"Name": "bhx", "Version": __version__}],
            **(_links(origin, out, opened) if origin else {}),
        },
    )
    with atomic_write(out / ".bidsignore") as part:
        part.write_text(BIDSIGNORE)


def _links(origin: Origin, out: Path, opened: Sequence[tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    url = location(origin.root, out)
    atlases = sorted({(found["atlas"], str(found.get("roi_sha256"))) for _, found in opened})
    return {
        "SourceDatasets": [{"URL": url}],
        "DatasetLinks": {origin.dataset: url},
        "ConfigurationHash": configuration_hash({**origin.settings, "atlas": atlases}),
    }


def _strategies(tables: Sequence[Path]) -> dict[str, str]:
    """How each run was denoised: tables that are used as given differ from what was asked for."""
    found: dict[str, str] = {}
    for path in tables:
        quality = path.with_name("qc.parquet")
        if quality.is_file():
            rows = pq.read_table(quality, columns=["key", "strategy"]).to_pylist()
            found |= {row["key"]: row["strategy"] for row in rows if row["strategy"]}
    return found


def _open(path: Path) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """A batch's table, and the metadata of its atlas and denoising."""
    try:
        file = pq.ParquetFile(path)
        return file, json.loads(file.schema_arrow.metadata[b"bhx"])
    except (OSError, pa.ArrowException, json.JSONDecodeError, KeyError, TypeError) as error:
        msg = f"{path} cannot be read ({error}): extract the features of this batch again"
        raise DataError(msg) from error


def _write_run(
    out: Path, row: dict[str, Any], metadata: dict[str, Any], space: str | None, more: Mapping[str, Any]
) -> None:
    named = bids_names.parse(row["key"])
    stem = bids_names.stem(row["subject"], named)  # refuses what is no BIDS label
    if space:
        stem += f"_space-{space.replace(':', '_')}"  # an age group is an entity of its own: cohort-3
    stem += f"_atlas-{metadata['atlas']}"
    folder = out / f"sub-{row['subject']}"
    if "ses" in named:
        folder /= f"ses-{named['ses']}"
    names = metadata["names"]
    series = np.asarray(row["series"], np.float32).reshape(len(names), row["n_frames"])
    about = {
        "RepetitionTime": row["tr_s"],
        "Atlas": metadata["atlas"],
        "Synthetic": row["synthetic"],
        **more,
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
