"""Check shards byte by byte, and show what is in them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bhx_model import contract
from bhx_model.data import segments, timeseries, volumes
from bhx_model.errors import DataError
from bhx_prep.shards.read import PackedCohort, read_index, shard_list


def verify(folder: Path) -> list[str]:
    """Hash and read every byte of a cohort's shards and cross-check the modalities.

    Returns
    -------
    list of str
        One sentence per error; empty without any.
    """
    try:
        cohort = read_index(folder / "index.json")
    except DataError as error:
        return [str(error)]
    errors: list[str] = []
    samples: dict[str, dict[str, dict]] = {}
    for modality in contract.MODALITIES:
        samples[modality] = {}
        for shard in cohort.index["shards"][modality]:
            try:
                found = _read_shard(cohort, modality, shard)
            except (DataError, OSError) as error:
                errors.append(f"{shard['file']}: {error}")
                continue
            errors += [f"{key} is in two shards" for key in found.keys() & samples[modality].keys()]
            samples[modality] |= found
    for key, meta in samples["bold"].items():
        if meta["anat"] is not None and meta["anat"] not in samples["t1w"]:
            errors.append(f"{key}: its T1 {meta['anat']} is in no shard")
        elif meta["anat"] is not None and samples["t1w"][meta["anat"]]["subject"] != meta["subject"]:
            errors.append(f"{key}: its T1 {meta['anat']} is another subject's")
        elif meta["anat"] is not None and samples["t1w"][meta["anat"]]["batch"] != meta["batch"]:
            errors.append(f"{key}: its T1 {meta['anat']} is in another batch")
    return errors


def _read_shard(cohort: PackedCohort, modality: str, shard: dict[str, Any]) -> dict[str, dict]:
    """All samples of a shard by key: meta, and the shard's batch; raises `DataError` at the first error."""
    member, dtype, _ = contract.ARRAYS[modality]
    fields = contract.BOLD_META if modality == "bold" else contract.T1W_META
    listed = shard_list(cohort, shard)
    raw = (cohort.folder / shard["file"]).read_bytes()
    if hashlib.sha256(raw).hexdigest() != shard["sha256"]:
        raise DataError("its bytes are not those that index.json hashes: pack this batch again")
    try:
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            places = {info.name: (info.offset_data, info.size) for info in archive}
    except tarfile.TarError as error:
        raise DataError(f"it is not a tar ({error}): pack this batch again") from error
    n = len(listed["key"])
    if len(places) != 2 * n or shard["n"] != n:
        msg = f"{len(places)} members, {n} samples listed, {shard['n']} indexed"
        raise DataError(msg)
    samples: dict[str, dict] = {}
    for row in _rows(listed, modality):
        key = contract.check_key(row["key"])
        if places.get(f"{key}.{member}") != (row["offset"], row["size"]):
            raise DataError(f"{key}: the list names another place for its array")
        if places.get(f"{key}.{contract.META_MEMBER}") != (row["meta_offset"], row["meta_size"]):
            raise DataError(f"{key}: the list names another place for its JSON")
        meta = _meta(key, _part(raw, row["meta_offset"], row["meta_size"]))
        array = _array(modality, key, _part(raw, row["offset"], row["size"]))
        if set(meta) != set(fields) or meta["cohort"] != cohort.name or meta["subject"] != row["subject"]:
            raise DataError(f"{key}: its JSON does not fit the list or the contract")
        expected = (
            (len(cohort.index["roi_names"]), meta["n_frames"])
            if modality == "bold"
            else tuple(cohort.index["t1w_shape"])
        )
        if array.dtype != dtype or array.shape != expected:
            msg = f"{key}: array of {array.dtype} {array.shape}, expected {dtype} {expected}"
            raise DataError(msg)
        if modality == "bold" and segments.checked(meta["segments"], meta["n_frames"]) != segments.checked(
            row["segments"], row["n_frames"]
        ):
            raise DataError(f"{key}: its segments are not those that the list names")
        if modality == "bold" and meta["roi_sha256"] != cohort.index["roi_sha256"]:
            raise DataError(f"{key}: its ROI order is not that of the index")
        if modality == "bold" and np.isinf(array).any():
            raise DataError(f"{key}: the series has infinite values")
        samples[key] = meta | {"batch": shard["file"].split("-")[1]}
    order = [(meta["subject"], key) for key, meta in samples.items()]
    if order != sorted(order):
        raise DataError("its samples are not sorted by subject and key")
    return samples


def _meta(key: str, content: bytes) -> dict[str, Any]:
    """JSON of a sample."""
    try:
        meta = json.loads(content)
    except ValueError as error:
        raise DataError(f"{key}: its JSON cannot be read ({error}): pack this batch again") from error
    if not isinstance(meta, dict):
        raise DataError(f"{key}: its JSON is not an object: pack this batch again")
    return meta


def _array(modality: str, key: str, content: bytes) -> np.ndarray:
    """Array of a member."""
    try:
        return timeseries.decode(content) if modality == "bold" else volumes.decode(content)
    except DataError as error:
        raise DataError(f"{key}: {error}: extract and pack this batch again") from error


def _part(raw: bytes, offset: int, size: int) -> bytes:
    return raw[offset : offset + size]


def _rows(listed: dict[str, list], modality: str) -> Iterator[dict[str, Any]]:
    names = contract.LIST_COLUMNS[modality]
    if missing := sorted(set(names) - listed.keys()):
        raise DataError(f"its list has no {', '.join(missing)}: pack this batch again")
    for values in zip(*(listed[name] for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def listing(folder: Path) -> Iterator[str]:
    """One line per sample: shard, key, and for BOLD the frames and the repetition time."""
    cohort = read_index(folder / "index.json")
    for modality in contract.MODALITIES:
        for shard in cohort.index["shards"][modality]:
            for row in _rows(shard_list(cohort, shard), modality):
                more = (
                    f"\t{row['n_frames']} x {row['tr_s']:g} s\t{row['anat'] or '-'}"
                    if modality == "bold"
                    else ""
                )
                yield f"{shard['file']}\t{row['key']}{more}"


def describe(folder: Path, key: str) -> Iterator[str]:
    """The JSON of every sample called `key` and a summary of its array.

    Raises
    ------
    DataError
        If no shard holds it.
    """
    cohort = read_index(folder / "index.json")
    found = False
    for modality in contract.MODALITIES:
        for shard in cohort.index["shards"][modality]:
            for row in _rows(shard_list(cohort, shard), modality):
                if row["key"] != key:
                    continue
                found = True
                with (folder / shard["file"]).open("rb") as tar:
                    tar.seek(row["meta_offset"])
                    meta = _meta(key, tar.read(row["meta_size"]))
                    tar.seek(row["offset"])
                    array = _array(modality, key, tar.read(row["size"]))
                    array = volumes.to_float32(array) if modality == "t1w" else array
                shape = f"{' x '.join(contract.ARRAYS[modality][2])}: {' x '.join(map(str, array.shape))}"
                finite = array[np.isfinite(array)].astype("f4")
                span = (
                    f"{finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}"
                    if finite.size
                    else "-"
                )
                yield f"{shard['file']}\t{shape}\t{span}\t{1 - finite.size / array.size:.1%} NaN"
                yield json.dumps(meta, indent=2)
    if not found:
        raise DataError(f"no shard of {folder} holds {key!r}: `bhx shards ls {folder}` lists the keys")
