"""Read shards: their lists of samples, and the arrays.

The lists beside the tars hold the offset of every array, so a sample is one positioned read, and any order is as fast as
any other (`bhx_model.data.loader`). Of remote shards (`bhx_model.remote`) the lists are downloaded when the
index is opened, and the tars when they are verified (`bhx_model.data.shard_hashes`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bhx_model import contract
from bhx_model.data import frames, timeseries, volumes
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.segments import Segments, checked
from bhx_model.errors import DataError
from bhx_model.remote.cache import CachedFile, here
from bhx_model.remote.urls import Place, beside, inside, is_url, shown

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar and what the index says of it."""

    path: Path
    sha256: str
    n_bytes: int
    remote: CachedFile | None = None
    """Its URL if it is remote; `path` is then in the cache."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One array in a shard.

    `subject` is ``cohort/label``; `anat` (the T1 that goes with a BOLD run), `tr_s` (s), `n_frames` and `segments` (of a
    run from which frames were cut, see `bhx_model.data.segments`) are empty for a T1. Of cached function tokens,
    `n_tokens` is their number, `last_share` how much of the last patch holds data, and `absent` are the ROIs without
    coverage.
    """

    key: str
    subject: str
    shard: Path
    offset: int
    size: int
    anat: str | None = None
    tr_s: float = 0.0
    n_frames: int = 0
    n_tokens: int = 0
    last_share: float = 1.0
    absent: tuple[int, ...] = ()
    segments: Segments | None = None


@dataclass(frozen=True)
class Index:
    """An ``index.json``, read and checked: the metadata in it, the shards and the samples of every modality."""

    path: str
    sha256: str
    metadata: Mapping[str, Any]
    shards: Mapping[str, tuple[Shard, ...]]
    samples: Mapping[str, tuple[Sample, ...]]

    @property
    def cohort(self) -> str:
        """Name of the cohort."""
        return self.metadata["cohort"]

    @property
    def synthetic(self) -> bool:
        """Whether any of the data were made, not measured."""
        return bool(self.metadata["synthetic"])


def open_index(path: Place) -> Index:
    """Read an index of shards and the lists it names; the tars must be there and have the right length.

    `bhx_model.data.shard_hashes.verify` checks their content, and downloads remote ones.

    Parameters
    ----------
    path : Path or str
        ``index.json``; as text also a URL, of it or of the folder that it is in.

    Raises
    ------
    DataError
        Named after the file that is gone, cut short, altered, or of another version.
    SiteError
        If it is remote and cannot be downloaded.
    """
    return _open_index(
        path, contract.check_index, contract.MODALITIES, once=contract.MODALITIES, rule="index_shards"
    )


def open_token_index(path: Place, check: Callable[[Mapping[str, Any]], None]) -> Index:
    """Read an index of cached tokens: it has the form of one of shards; `check` refuses foreign ones."""
    # a T1 whose runs lie in several shards is encoded with each
    return _open_index(path, check, ("function", "structure"), once=("function",), rule="embed_tokens")


def _open_index(
    place: Place,
    check: Callable[[Mapping[str, Any]], None],
    modalities: Sequence[str],
    *,
    once: Sequence[str],
    rule: str,
) -> Index:
    place = inside(place, "index.json") if is_url(place) else Path(place)
    path = shown(place)
    try:
        content = place.read_bytes() if isinstance(place, Path) else here().read_names(place)
    except OSError as error:
        msg = f"cannot read the index {path} ({error.strerror}): make it with the rule {rule}"
        raise DataError(msg) from error
    try:
        metadata = json.loads(content)
        check(metadata)
        index = _index(place, hashlib.sha256(content).hexdigest(), metadata, modalities)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not JSON ({error}): make it again"
        raise DataError(msg) from error
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"{path} is no index, or not a whole one ({error!r}): make it again"
        raise DataError(msg) from error
    for modality in once:
        (key, n), *_ = Counter(sample.key for sample in index.samples[modality]).most_common(1) or [("", 0)]
        if n > 1:
            msg = f"{path} names {key} twice, which would count twice: make it again"
            raise DataError(msg)
    return index


def _index(place: Place, sha256: str, metadata: Mapping[str, Any], modalities: Sequence[str]) -> Index:
    path = shown(place)
    shards: dict[str, tuple[Shard, ...]] = {}
    samples: dict[str, tuple[Sample, ...]] = {}
    for modality in modalities:
        entries = metadata["shards"][modality]
        there = [_shard(place, entry) for entry in entries]
        lists = _lists(place, entries)
        shards[modality] = tuple(there)
        samples[modality] = tuple(
            sample
            for shard, rows in zip(there, lists, strict=True)
            for sample in _samples(shard, rows, metadata["cohort"])
        )
        counted = sum(entry["n"] for entry in entries)
        if counted != len(samples[modality]):
            msg = f"{path}: says {counted} {modality} samples, its lists {len(samples[modality])}: rebuild it"
            raise DataError(msg)
    return Index(path, sha256, metadata, shards, samples)


def _shard(index: Place, entry: Mapping[str, Any]) -> Shard:
    if not isinstance(index, Path):
        remote = _remote(index, entry["file"], entry["sha256"], int(entry["bytes"]))
        return Shard(remote.path, entry["sha256"], entry["bytes"], remote)
    path = index.parent / _bare(entry["file"])
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        msg = f"the shard {path} is gone, though the index beside it names it: pack it again"
        raise DataError(msg) from error
    if size != entry["bytes"]:
        msg = f"the shard {path} has {size} bytes, not {entry['bytes']}: it was cut or altered, pack it again"
        raise DataError(msg)
    return Shard(path, entry["sha256"], size)


def _lists(index: Place, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, list[Any]]]:
    if isinstance(index, Path):
        paths = [index.parent / _bare(entry["list"]) for entry in entries]
    else:
        remote = [_remote(index, entry["list"], entry["list_sha256"]) for entry in entries]
        here().fetch(remote)
        paths = [file.path for file in remote]
    return [_list(path, entry) for path, entry in zip(paths, entries, strict=True)]


def _remote(index: str, name: str, sha256: str, n_bytes: int | None = None) -> CachedFile:
    return here().file(beside(index, _bare(name)), name, sha256, n_bytes)


def _list(path: Path, entry: Mapping[str, Any]) -> dict[str, list[Any]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        msg = f"{path}, the list of the shard {entry['file']}, is gone: pack the shard again"
        raise DataError(msg) from error
    if hashlib.sha256(content).hexdigest() != entry["list_sha256"]:
        msg = f"{path}, the list of the shard {entry['file']}, was altered: pack the shard again"
        raise DataError(msg)
    return json.loads(content)


def _bare(name: str) -> str:
    """Name of a file beside an index; a path to another folder is refused."""
    if Path(name).name != name:
        msg = f"an index names {name!r}, which is not beside it: make the index again"
        raise DataError(msg)
    return name


def _samples(shard: Shard, rows: Mapping[str, list[Any]], cohort: str) -> Iterator[Sample]:
    columns = {name: rows[name] for name in _LISTED if name in rows}
    if not columns.keys() >= _NEEDED or len({len(column) for column in columns.values()}) > 1:
        msg = f"what stands beside {shard.path} is no list of samples, or lacks some: pack the shard again"
        raise DataError(msg)
    for values in zip(*columns.values(), strict=True):
        known = dict(zip(columns, values, strict=True))
        contract.check_key(known["key"])
        if not 0 <= known["offset"] <= known["offset"] + known["size"] <= shard.n_bytes:
            msg = f"{shard.path}: {known['key']} would lie outside of the shard: pack it again"
            raise DataError(msg)
        if "absent" in known:
            known["absent"] = tuple(known["absent"])
        if "tr_s" in known:
            known["segments"] = _timing(known, shard)
        yield Sample(shard=shard.path, **{**known, "subject": f"{cohort}/{known['subject']}"})


def _timing(row: Mapping[str, Any], shard: Shard) -> Segments | None:
    """Segments of a run, if its repetition time and frames can be."""
    try:
        contract.check_timing(row["tr_s"], row["n_frames"])
        return None if row.get("segments") is None else checked(row["segments"], row["n_frames"])
    except DataError as error:
        msg = f"{shard.path}: {row['key']}: {error}: pack it again"
        raise DataError(msg) from error


#: Columns that a list may have, and those that it must have.
_LISTED = tuple(field.name for field in fields(Sample) if field.name != "shard")
_NEEDED = {"key", "subject", "offset", "size"}


class _Scratch(threading.local):
    """Memory that a thread reads compressed samples into, kept from one to the next."""

    memory = np.empty(0, np.uint8)

    def bytes(self, n: int) -> np.ndarray:
        if self.memory.size < n:
            self.memory = np.empty(n, np.uint8)
        return self.memory[:n]


_scratch = _Scratch()


def _content(sample: Sample) -> np.ndarray:
    """Bytes of a sample's array in the shard, (N,) uint8; the thread's next call overwrites them."""
    content = _scratch.bytes(sample.size)
    _read(sample, [content.data])
    return content


def _read(sample: Sample, places: Sequence[memoryview]) -> None:
    """Fill memory, one piece after the other, with the bytes of a sample, all of them."""
    try:
        descriptor = os.open(sample.shard, os.O_RDONLY)
        try:
            done, left = 0, list(places)
            while left:
                got = os.preadv(descriptor, left, sample.offset + done)
                if got == 0:
                    msg = f"{sample.shard} ends inside {sample.key}: it was cut, pack it again"
                    raise DataError(msg)
                done += got
                while left and got >= len(left[0]):
                    got -= len(left.pop(0))
                if left:
                    left[0] = left[0][got:]
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        msg = f"the shard {sample.shard} is gone, though its index names it: pack or download it again"
        raise DataError(msg) from error
    except OSError as error:
        msg = (
            f"cannot read {sample.key} in {sample.shard} ({error.strerror}): check the disk, or pack it again"
        )
        raise DataError(msg) from error


def read_array(sample: Sample) -> np.ndarray:
    """Array of a sample, read into memory of its own (writable, C order).

    Raises
    ------
    DataError
        If what stands there is no plain array.
    """
    content = np.empty(sample.size, np.uint8)
    _read(sample, [content.data])
    try:
        return frames.plain_array(content)
    except DataError as error:
        raise _no_array(sample) from error


def read_array_into(sample: Sample, out: np.ndarray) -> None:
    """Read a sample's array into its place, C order; nothing is copied.

    Raises
    ------
    DataError
        If what stands there is no plain array of the type and shape of `out`.
    """
    n_head = sample.size - out.nbytes
    if n_head <= 0:
        raise _no_array(sample)
    head = np.empty(n_head, np.uint8)
    _read(sample, [head.data, out.reshape(-1).view(np.uint8).data])
    try:
        found = frames.npy_header(head)
    except DataError as error:
        raise _no_array(sample) from error
    if found != (out.shape, out.dtype, n_head):
        shape, dtype, _ = found
        msg = f"{sample.shard}: {sample.key} is {dtype} {shape}, not {out.dtype} {out.shape} as listed: make it again"
        raise DataError(msg)


def _no_array(sample: Sample) -> DataError:
    return DataError(
        f"{sample.shard}: {sample.key} is no .npy array at the place the list names: pack it again"
    )


def read_bold(sample: Sample, n_rois: int) -> np.ndarray:
    """Series of a BOLD sample, (R, T) float32; rows of NaN are ROIs without coverage.

    Raises
    ------
    DataError
        If its shape is not what the list and the contract say.
    """
    with _stored(sample) as content:
        series = timeseries.decode(content)
    if series.shape != (n_rois, sample.n_frames):
        msg = (
            f"{sample.key} in {sample.shard} has {series.shape} ROIs and frames, "
            f"expected ({n_rois}, {sample.n_frames}): pack the shard again"
        )
        raise DataError(msg)
    return series


def read_t1w(samples: Sequence[Sample], shape: Sequence[int]) -> np.ndarray:
    """Volumes of T1 samples, int16 of (B, *shape), in steps; divided by `volumes.STEPS_PER_SD` they are the model's input.

    Each is decoded into its place: a batch costs no copy.

    Raises
    ------
    DataError
        If one is no stored volume, or one of another grid.
    """
    batch = np.empty((len(samples), *shape), np.int16)
    for sample, place in zip(samples, batch, strict=True):
        read_t1w_into(sample, place)
    return batch


def read_t1w_into(sample: Sample, out: np.ndarray) -> None:
    """Decode a volume into its place, (X, Y, Z) int16 in C order; see `read_t1w`.

    Raises
    ------
    DataError
        If it is no stored volume, or one of another grid.
    """
    with _stored(sample) as content:
        volumes.decode(content, out)


def decompress_t1w(sample: Sample, shape: tuple[int, ...], out: np.ndarray) -> volumes.Box:
    """Decompress the differences of a volume into (N,) uint16; see `bhx_model.data.volumes.decompress`.

    Raises
    ------
    DataError
        If it is no stored volume, or one of another grid.
    """
    with _stored(sample) as content:
        return volumes.decompress(content, shape, out)


@contextlib.contextmanager
def _stored(sample: Sample) -> Iterator[np.ndarray]:
    """Bytes of a sample's array, see `_content`; errors of decoding them name the sample and its shard."""
    content = _content(sample)
    try:
        yield content
    except DataError as error:
        msg = f"{sample.key} in {sample.shard}: {error}: pack the shard again"
        raise DataError(msg) from error


def pair(bold: Iterable[Sample], t1w: Iterable[Sample]) -> tuple[list[tuple[Sample, Sample]], list[Sample]]:
    """Join BOLD runs with their T1 by the key in `anat`.

    Returns
    -------
    pairs : list[tuple[Sample, Sample]]
        BOLD and T1, in the order of `bold`.
    alone : list[Sample]
        Runs that name no T1, or one that is not there.
    """
    volumes = {sample.key: sample for sample in t1w}
    pairs, alone = [], []
    for run in bold:
        volume = volumes.get(run.anat) if run.anat else None
        if volume is None:
            alone.append(run)
        else:
            pairs.append((run, volume))
    return pairs, alone


def check_rois(index: Index, rois: RoiMetadata) -> None:
    """Refuse data whose ROIs are not these, in this order.

    Raises
    ------
    DataError
        If they are not, with the first that differs.
    """
    if index.metadata["roi_sha256"] != rois.roi_sha256:
        try:
            rois.check_order(index.metadata.get("roi_names", rois.names))
        except DataError as error:
            msg = f"{index.path}: {error}"
            raise DataError(msg) from error
        msg = f"{index.path} is of atlas {index.metadata['atlas']}, the ROI metadata of {rois.atlas}: use one atlas"
        raise DataError(msg)
