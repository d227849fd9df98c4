"""Pack features into WebDataset tars, index them, check them and look inside.

A batch gives two tars, ``bold-BBBBB.tar`` and ``t1w-BBBBB.tar``, and a list (JSON) beside each with the place of
every array, so that a reader seeks instead of walking the tar. Samples stand in the order of their subject, then
of their key, in both; a person who has one modality only stands in that modality's tar only, hence what both hold
comes in the same order. Equal inputs give equal bytes: owner, group and times are fixed, JSON is canonical.

Examples
--------
::

    python -m bhx_prep.shards.pack pack --cohort patients --batch 3 --features F --out results/patients/shards
    python -m bhx_prep.shards.pack index --cohort patients --shards results/patients/shards --batches B.json --out I.json
    bhx shards verify results/patients/shards
    bhx shards ls results/patients/shards
    bhx shards cat results/patients/shards clinic_sub-001_task-rest
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bhx_model import contract
from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.command_line import json_file
from bhx_model.data import timeseries, volumes
from bhx_model.errors import DataError
from bhx_prep.features import store
from bhx_prep.io import bids_names
from bhx_prep.shards.read import Cohort, read_index, shard_list

#: USTAR member names end at 100 characters; what stays beside the longest suffix is for the key.
LONGEST_KEY = 99 - max(
    len(name) for name in (contract.META_MEMBER, *(a[0] for a in contract.ARRAYS.values()))
)


#: Key, metadata and features of a sample that is to be packed.
_Packed = tuple[str, dict[str, Any], store.Sample]

# --- pack ----------------------------------------------------------------------------------------------------


def pack(cohort: str, batch: int, features: Path, out: Path) -> tuple[Path, Path]:
    """Pack the two feature files of a batch into its two tars.

    Features hold arrays in the form that shards carry; packing checks, copies and hashes them, and decodes nothing.

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
        The BOLD tar and the T1 tar; the list of each stands beside it.

    Raises
    ------
    ValueError
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
        # a T1 that failed leaves a BOLD run that stands alone
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
                    raise DataError(f"{key} stands twice in batch {batch}: two scans have the same entities")
                sample.check()  # here, beside the hashing of the one before
                parts = {member: sample.content, contract.META_MEMBER: contract.canonical_json(meta)}
                places = {name: tar.add(f"{key}.{name}", parts[name]) for name in sorted(parts)}
                row = meta | {"key": key}
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


class _Tar:
    """A tar written as webdataset's TarWriter does, its bytes hashed beside the writing, by a thread of its own.

    The writer itself is not used: importing webdataset imports torch, which is more work than packing a batch; and
    reading the finished file once more to hash it takes as long as writing it. A test holds our bytes against its.
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


# --- index ---------------------------------------------------------------------------------------------------


def index(cohort: str, folder: Path, batches: Sequence[int]) -> dict[str, Any]:
    """Collect the shards of a cohort into the value of its ``index.json``.

    Only lists are read, and the sizes of the tars held against them; `verify` reads everything.

    Parameters
    ----------
    cohort : str
    folder : Path
        Where the tars and their lists stand.
    batches : sequence of int
        Batches of the cohort's plan that hold anybody: all of them have to be there.

    Raises
    ------
    ValueError
        If a batch is missing or batches differ in atlas, ROI order or T1 grid.
    """
    shards: dict[str, list[dict]] = {}
    abouts: dict[str, list[tuple[str, dict]]] = {}
    for modality in contract.MODALITIES:
        for batch in sorted(batches):
            tar = folder / f"{modality}-{batch:05d}.tar"
            entry, about = _entry(tar)
            if about["cohort"] != cohort:
                msg = f"{tar} is of cohort {about['cohort']}, not {cohort}: shards of two cohorts share a folder"
                raise DataError(msg)
            shards.setdefault(modality, []).append(entry)
            abouts.setdefault(modality, []).append((entry["list"], about))
    return {
        "contract": contract.CONTRACT_VERSION,
        "cohort": cohort,
        **{name: _agreed(name, abouts["bold"]) for name in ("atlas", "roi_names", "roi_sha256")},
        **{name: _agreed(name, abouts["t1w"]) for name in ("t1w_shape", "t1w_zooms_mm")},
        "synthetic": any(about["synthetic"] for both in abouts.values() for _, about in both),
        "shards": shards,
    }


def _entry(tar: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    path = tar.with_suffix(".json")
    try:
        raw, size = path.read_bytes(), tar.stat().st_size
        listed = json.loads(raw)
    except OSError as error:
        msg = f"{error.filename} is missing ({error.strerror}): pack this batch first"
        raise DataError(msg) from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON ({error}): pack this batch again") from error
    about = listed["about"]
    if size != about["bytes"]:
        msg = f"{tar} has {size} bytes, its list says {about['bytes']}: pack this batch again"
        raise DataError(msg)
    entry = {"file": tar.name, "sha256": about["sha256"], "bytes": size, "n": len(listed["key"])}
    return entry | {"list": path.name, "list_sha256": hashlib.sha256(raw).hexdigest()}, about


def _agreed(name: str, abouts: Sequence[tuple[str, dict]]) -> Any:
    found = [(file, about[name]) for file, about in abouts if about[name] is not None]
    for file, value in found:
        if value != found[0][1]:
            msg = f"{found[0][0]} and {file} differ in {name}: extract and pack the batches of this cohort again"
            raise DataError(msg)
    return found[0][1] if found else None


# --- verify --------------------------------------------------------------------------------------------------


def verify(folder: Path) -> list[str]:
    """Hash and read every byte of a cohort's shards and hold the modalities against each other.

    Returns
    -------
    list of str
        One sentence per fault; empty when all is well.
    """
    try:
        cohort = read_index(folder / "index.json")
    except ValueError as error:
        return [str(error)]
    faults: list[str] = []
    samples: dict[str, dict[str, dict]] = {}
    for modality in contract.MODALITIES:
        samples[modality] = {}
        for shard in cohort.index["shards"][modality]:
            try:
                found = _read_shard(cohort, modality, shard)
            except (ValueError, OSError, KeyError, tarfile.TarError) as error:
                faults.append(f"{shard['file']}: {error}")
                continue
            faults += [f"{key} stands in two shards" for key in found.keys() & samples[modality].keys()]
            samples[modality] |= found
    for key, meta in samples["bold"].items():
        if meta["anat"] is not None and meta["anat"] not in samples["t1w"]:
            faults.append(f"{key}: its T1 {meta['anat']} is in no shard")
        elif meta["anat"] is not None and samples["t1w"][meta["anat"]]["subject"] != meta["subject"]:
            faults.append(f"{key}: its T1 {meta['anat']} is another person's")
        elif meta["anat"] is not None and samples["t1w"][meta["anat"]]["batch"] != meta["batch"]:
            faults.append(f"{key}: its T1 {meta['anat']} stands in another batch")
    return faults


def _read_shard(cohort: Cohort, modality: str, shard: dict[str, Any]) -> dict[str, dict]:
    """All samples of a shard by key: meta, and the shard's batch; raises on the first fault."""
    member, dtype, _ = contract.ARRAYS[modality]
    fields = contract.BOLD_META if modality == "bold" else contract.T1W_META
    listed = shard_list(cohort, shard)
    raw = (cohort.folder / shard["file"]).read_bytes()
    if hashlib.sha256(raw).hexdigest() != shard["sha256"]:
        raise DataError("its bytes are not those that index.json hashes: pack this batch again")
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        places = {info.name: (info.offset_data, info.size) for info in archive}
    n = len(listed["key"])
    if len(places) != 2 * n or shard["n"] != n:
        msg = f"{len(places)} members, {n} samples listed, {shard['n']} indexed"
        raise DataError(msg)
    samples: dict[str, dict] = {}
    for row in _rows(listed, modality):
        key = contract.check_key(row["key"])
        if places[f"{key}.{member}"] != (row["offset"], row["size"]):
            raise DataError(f"{key}: the list names another place for its array")
        if places[f"{key}.{contract.META_MEMBER}"] != (row["meta_offset"], row["meta_size"]):
            raise DataError(f"{key}: the list names another place for its JSON")
        meta = json.loads(_part(raw, row["meta_offset"], row["meta_size"]))
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
        if modality == "bold" and meta["roi_sha256"] != cohort.index["roi_sha256"]:
            raise DataError(f"{key}: its ROI order is not that of the index")
        if modality == "bold" and np.isinf(array).any():
            raise DataError(f"{key}: the series holds infinite values")
        samples[key] = meta | {"batch": shard["file"].split("-")[1]}
    order = [(meta["subject"], key) for key, meta in samples.items()]
    if order != sorted(order):
        raise DataError("its samples are not sorted by subject and key")
    return samples


def _array(modality: str, key: str, content: bytes) -> np.ndarray:
    """Array of a member."""
    try:
        return timeseries.decode(content) if modality == "bold" else volumes.decode(content)
    except ValueError as error:
        raise DataError(f"{key}: {error}: extract and pack this batch again") from error


def _part(raw: bytes, offset: int, size: int) -> bytes:
    return raw[offset : offset + size]


def _rows(listed: dict[str, list], modality: str) -> Iterator[dict[str, Any]]:
    names = contract.LIST_COLUMNS[modality]
    for values in zip(*(listed[name] for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


# --- look inside ---------------------------------------------------------------------------------------------


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
    ValueError
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
                    meta = json.loads(tar.read(row["meta_size"]))
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


# --- command line --------------------------------------------------------------------------------------------


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands of ``bhx shards``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    commands = parser.add_subparsers(dest="action", required=True, metavar="pack|index|verify|ls|cat")

    one = commands.add_parser(
        "pack",
        help="features of one batch -> two tars",
        epilog="example: bhx shards pack --cohort patients --batch 0 --features results/patients/features/batch-00000"
        " --out results/patients/shards",
    )
    one.add_argument("--cohort", required=True)
    one.add_argument("--batch", required=True, type=int, help="number of the batch")
    one.add_argument("--features", required=True, type=Path, help="folder with bold.arrow and t1w.arrow")
    one.add_argument("--out", required=True, type=Path, help="folder of the shards")

    one = commands.add_parser(
        "index",
        help="all shards of a cohort -> index.json",
        epilog="example: bhx shards index --cohort patients --shards results/patients/shards --batches batches.json"
        " --out results/patients/shards/index.json",
    )
    one.add_argument("--cohort", required=True)
    one.add_argument("--shards", required=True, type=Path, help="folder of the shards")
    one.add_argument(
        "--batches", required=True, type=json_file, metavar="FILE", help="JSON list of the cohort's batches"
    )
    one.add_argument("--out", required=True, type=Path, help="index.json, in the folder of the shards")

    for action, what, key in (
        ("verify", "hash and read everything, hold the modalities against each other", ""),
        ("ls", "list the samples", ""),
        ("cat", "show one sample", " clinic_sub-001_task-rest"),
    ):
        example = f"example: bhx shards {action} results/patients/shards{key}"
        one = commands.add_parser(action, help=what, epilog=example)
        one.add_argument("folder", type=Path, help="folder of the shards, e.g. results/patients/shards")
        if action == "cat":
            one.add_argument("key", help="e.g. clinic_sub-001_task-rest")


def command(args: argparse.Namespace) -> int:
    """Run one sub-command; 1 if `verify` found a fault."""
    if args.action == "pack":
        pack(args.cohort, args.batch, args.features, args.out)
    elif args.action == "index":
        if args.out.resolve().parent != args.shards.resolve():
            raise DataError(f"index.json has to stand beside its shards: --out {args.shards / 'index.json'}")
        batches = [int(batch) for batch in args.batches]
        write_json(args.out, index(args.cohort, args.shards, batches), canonical=True)
    elif args.action == "verify":
        faults = verify(args.folder)
        for fault in faults:
            print(fault, file=sys.stderr)
        print(f"{args.folder}: {f'{len(faults)} faults' if faults else 'ok'}")
        return int(bool(faults))
    else:
        for line in listing(args.folder) if args.action == "ls" else describe(args.folder, args.key):
            print(line)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line: see the module's text for examples."""
    parser = argparse.ArgumentParser(prog="python -m bhx_prep.shards.pack")
    arguments(parser)
    try:
        return command(parser.parse_args(argv))
    except (ValueError, OSError) as error:
        print(f"shards: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
