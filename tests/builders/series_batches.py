"""Series with the connectivity of a brain, and feature files of batches that hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.contract import canonical_json, roi_sha256
from bhx_prep.atlas import reference
from bhx_prep.atlas.atlas import hemispheres
from bhx_prep.atlas.sources import packages
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.features.fingerprint import fingerprint
from bhx_prep.features.table_columns import AS_GIVEN, QC_SCHEMA, SERIES_SCHEMA


@cache
def schaefer(networks: int, parcels: int = 100) -> tuple[AtlasSection, tuple[str, ...], reference.Reference]:
    """Section, names and reference of Schaefer's atlas."""
    section = AtlasSection.model_validate({"parcels": parcels, "networks": networks})
    atlas = packages.from_packages(section)
    return section, atlas.names, reference.measure(atlas)


@cache
def _root(networks: int, parcels: int) -> np.ndarray:
    z = schaefer(networks, parcels)[2].group.astype(np.float64)
    np.fill_diagonal(z, 5.0)
    values, vectors = np.linalg.eigh(np.tanh(z))
    return vectors * np.sqrt(np.clip(values, 0, None))


def brain_series(seed: int, networks: int, n_frames: int = 120, parcels: int = 100) -> np.ndarray:
    """Series (R, T) float32 whose rows are in this order of Schaefer's atlas: the same seed is the same brain."""
    rng = np.random.default_rng(seed)
    seven = (
        _root(7, parcels) @ rng.standard_normal((parcels, n_frames))
        + 0.3 * rng.standard_normal((parcels, n_frames))
    ).astype(np.float32)
    if networks == 7:
        return seven
    return seven[np.argsort(packages.order_7_to_17(parcels)[1:])]


def write_atlas(folder: Path, networks: int, parcels: int = 100, *, known: bool = True) -> Path:
    """A template folder of Schaefer's atlas without label files; nothing but names where not `known`."""
    section, names, measured = schaefer(networks, parcels)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {
        "label": section.label,
        "names": names,
        "hemisphere": hemispheres(names),
        "space": "MNI",
        "files": {},
    }
    (folder / "atlas.json").write_text(json.dumps(metadata))
    if not known:
        nothing = np.full_like(measured.centroids, np.nan), np.full_like(measured.group, np.nan)
        measured = reference.Reference(*nothing, measured.stated, {})
    reference.save(folder / reference.FILE, measured)
    return folder


def write_batch(
    folder: Path,
    runs: Mapping[str, np.ndarray],
    networks: int = 7,
    *,
    excluded: Sequence[tuple[str, str]] = (),
    volumes: Sequence[str] = (),
    hashes: Mapping[str, str] | None = None,
    strategy: str = AS_GIVEN,
    tr_s: float = 2.0,
) -> Path:
    """``timeseries.parquet`` and ``qc.parquet`` of a batch.

    Parameters
    ----------
    folder : Path
    runs : mapping
        Key to series (R, T).
    networks : int
        Order that they state.
    excluded : sequence of (key, reason)
    volumes : sequence of str
        Keys of T1 volumes.
    hashes : mapping, optional
        Their keys to SHA-256.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parcels = next((len(series) for series in runs.values()), 100)
    section, names, _ = schaefer(networks, parcels)
    metadata = {"atlas": section.label, "names": list(names), "roi_sha256": roi_sha256(section.label, names)}
    schema = SERIES_SCHEMA.with_metadata({b"bhx": canonical_json(metadata)})
    quality = []
    with pq.ParquetWriter(folder / "timeseries.parquet", schema, compression="none") as file:
        for key, series in runs.items():
            row = dict.fromkeys(SERIES_SCHEMA.names)
            row |= {"key": key, "subject": _subject(key), "tr_s": tr_s, "n_frames": series.shape[1]}
            row |= {
                "synthetic": True,
                "series": series.astype(np.float32).ravel(),
                "coverage": np.ones(parcels),
            }
            row["fingerprint"] = fingerprint(series)
            file.write_table(pa.Table.from_pylist([row], schema))
            quality.append({"key": key, "modality": "bold", "status": "ok", "strategy": strategy})
    quality += [
        {"key": key, "modality": "bold", "status": "excluded", "reason": why} for key, why in excluded
    ]
    quality += [
        {"key": key, "modality": "t1w", "status": "ok", "sha256": (hashes or {}).get(key)} for key in volumes
    ]
    rows = [dict.fromkeys(QC_SCHEMA.names) | {"subject": _subject(row["key"])} | row for row in quality]
    pq.write_table(pa.Table.from_pylist(rows, QC_SCHEMA), folder / "qc.parquet")
    return folder


def _subject(key: str) -> str:
    return key.split("_")[1].removeprefix("sub-")
