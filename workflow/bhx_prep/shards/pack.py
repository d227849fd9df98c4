"""Pack the features of a batch into WebDataset tars.

A batch gives two tars, ``bold-BBBBB.tar`` and ``t1w-BBBBB.tar``, and a list (JSON) beside each with the place of
every array, so that a reader seeks instead of walking the tar. Samples are in the order of their subject, then of
their key, in both; a subject with one modality is in that modality's tar only, hence samples of both come in the same
order. Equal inputs give equal bytes: owner, group and times are fixed, JSON is canonical.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bhx_model import contract
from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.data import timeseries
from bhx_model.errors import DataError
from bhx_prep.features import store
from bhx_prep.io import bids_names

#: USTAR member names end at 100 characters; what stays beside the longest suffix is for the key.
LONGEST_KEY = 99 - max(
    len(name) for name in (contract.META_MEMBER, *(a[0] for a in contract.ARRAYS.values()))
)


#: Key, metadata and features of a sample that is to be packed.
_Packed = tuple[str, dict[str, Any], store.Sample]


def pack(cohort: str, batch: int, features: Path, out: Path) -> tuple[Path, Path]:
    """Pack the two feature files of a batch into its two tars.

    Features hold arrays in the form that shards carry; packing checks, copies and hashes them. Series are decoded for
    the hash by which one scan under two ids is found.

    Parameters
    ----------
    cohort : str
    batch : int
        Number of the batch, becomes part of the file names.
    features : Path
        Folder with ``bold.arrow`` and ``t1w.arrow``.
    out : Path
        Folder of the shards; made if absent.

    Returns
    -------
    tuple of Path
        The BOLD tar and the T1 tar; the list of each is beside it.

    Raises
    ------
    DataError
        If the features break the contract or cannot be read.
    """
    bids_names.check_cohort(cohort)
    t1w, about_t1w = _t1w_samples(cohort, features / "t1w.arrow")
    bold, about_bold = _bold_samples(cohort, features / "bold.arrow", {key for key, _, _ in t1w})
    t1w_tar = _write_shard(out, "t1w", batch, t1w, about_t1w)
    return _write_shard(out, "bold", batch, bold, about_bold), t1w_tar


def _bold_samples(cohort: str, path: Path, anats: set[str]) -> tuple[list[_Packed], dict]:
    metadata, stored_samples = store.read(path)
    if contract.roi_sha256(metadata["atlas"], metadata["names"]) != metadata["roi_sha256"]:
        msg = f"{path}: ROI names and their hash disagree: extract the features of this batch again"
        raise DataError(msg)
    samples = []
    for sample in stored_samples:
        row = sample.row
        key = _checked_key(cohort, row["key"], row["subject"])
        if not row["tr_s"] > 0:
            raise DataError(
                f"{key}: repetition time {row['tr_s']} s: give the cohort its `tr_s` in the config"
            )
        # a T1w image that failed leaves a BOLD run without one
        anat = row["anat"] if row["anat"] in anats else None
        meta = {
            "cohort": cohort,
            "atlas": metadata["atlas"],
            "roi_sha256": metadata["roi_sha256"],
            "anat": anat,
        }
        meta |= {name: row[name] for name in contract.BOLD_META if name not in meta}
        samples.append((key, meta, sample))
    about = {"atlas": metadata["atlas"], "roi_names": metadata["names"], "roi_sha256": metadata["roi_sha256"]}
    return _sorted(samples), about | _common(cohort, samples)


def _t1w_samples(cohort: str, path: Path) -> tuple[list[_Packed], dict]:
    _, stored_samples = store.read(path)
    samples = []
    for sample in stored_samples:
        row = sample.row
        meta = {"cohort": cohort} | {name: row[name] for name in contract.T1W_META if name != "cohort"}
        samples.append((_checked_key(cohort, row["key"], row["subject"]), meta, sample))
    about: dict[str, Any] = {}
    for name in ("shape", "zooms_mm"):
        found = sorted({tuple(sample.row[name]) for sample in stored_samples})
        if len(found) > 1:
            msg = f"T1 volumes of several grids ({name} {found}) in one batch: extract its features again"
            raise DataError(msg)
        about[f"t1w_{name}"] = list(found[0]) if found else None
    return _sorted(samples), about | _common(cohort, samples)


def _sorted(samples: list[_Packed]) -> list[_Packed]:
    return sorted(samples, key=lambda sample: (sample[1]["subject"], sample[0]))


def _common(cohort: str, samples: Iterable[_Packed]) -> dict[str, Any]:
    return {"cohort": cohort, "synthetic": any(meta["synthetic"] for _, meta, _ in samples)}


def _checked_key(cohort: str, key: str, subject: str) -> str:
    contract.check_key(key)
    if key.split("_")[:2] != [cohort, f"sub-{subject}"]:
        msg = f"{key!r} is not a key of cohort {cohort}, subject {subject}: extract the features of this batch again"
        raise DataError(msg)
    if len(key) > LONGEST_KEY:
        msg = f"key {key!r} has {len(key)} characters, a tar takes {LONGEST_KEY}: shorten its entities"
        raise DataError(msg)
    return key


def _write_shard(folder: Path, modality: str, batch: int, samples: Iterable[_Packed], about: dict) -> Path:
    path = folder / f"{modality}-{batch:05d}.tar"
    member = contract.ARRAYS[modality][0]
    listed: dict[str, Any] = {name: [] for name in contract.LIST_COLUMNS[modality]}
    with atomic_write(path) as part:
        with part.open("wb") as file:
            tar = _Tar(file)
            for key, meta, sample in samples:
                if key in listed["key"]:
                    raise DataError(f"{key} is twice in batch {batch}: two scans have the same entities")
                sample.check()  # here, beside the hashing of the one before
                parts = {member: sample.content, contract.META_MEMBER: contract.canonical_json(meta)}
                places = {name: tar.add(f"{key}.{name}", parts[name]) for name in sorted(parts)}
                row = meta | {"key": key, "content_sha256": _content_sha256(modality, key, sample)}
                row["offset"], row["size"] = places[member]
                row["meta_offset"], row["meta_size"] = places[contract.META_MEMBER]
                for name in contract.LIST_COLUMNS[modality]:
                    listed[name].append(row[name])
            sha256, size = tar.close()
        listed["about"] = about | {"sha256": sha256, "bytes": size}
        # the list goes last: where it is, its tar is complete
        path.with_suffix(".json").unlink(missing_ok=True)
    write_json(path.with_suffix(".json"), listed, canonical=True)
    return path


def _content_sha256(modality: str, key: str, sample: store.Sample) -> str:
    """Hash of what a sample holds, whatever it is called."""
    if modality == "t1w":
        return hashlib.sha256(sample.content).hexdigest()
    try:
        return timeseries.content_sha256(timeseries.decode(np.frombuffer(sample.content, np.uint8)))
    except DataError as error:
        raise DataError(f"{key}: {error}: extract the features of this batch again") from error


class _Tar:
    """A tar as webdataset's TarWriter writes it; a thread hashes its bytes while they are written.

    The writer itself is not used: importing webdataset imports torch, which is more work than packing a batch; and
    reading the finished file once more to hash it takes as long as writing it. A test compares our bytes with its.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self._size = file, hashlib.sha256(), 0
        self._hasher, self._hashed = ThreadPoolExecutor(max_workers=1), []

    def add(self, name: str, content: bytes | memoryview) -> tuple[int, int]:
        """Append a member; the place of its content from the tar's start, and its length."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime, info.uname, info.gname = len(content), 0o444, 0, "bhx", "bhx"
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        place = self._size
        self._write(content)
        self._write(bytes(-len(content) % tarfile.BLOCKSIZE))
        return place, len(content)

    def close(self) -> tuple[str, int]:
        """End the archive; its SHA-256 and length."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self._size % tarfile.RECORDSIZE))
        for done in self._hashed:
            done.result()
        self._hasher.shutdown()
        return self._hash.hexdigest(), self._size

    def _write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self._hashed.append(self._hasher.submit(self._hash.update, content))
        self._size += len(content)
