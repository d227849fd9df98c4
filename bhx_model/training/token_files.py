"""Encode and write the two files of a batch of cached tokens."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from bhx_model import contract
from bhx_model.atomic_write import atomic_write, read_json
from bhx_model.data import token_index
from bhx_model.data.augment import SeriesPlan
from bhx_model.data.batch import Batch, Draft, draft_volumes, intensities, of_equal_bucket, plan_series
from bhx_model.data.memory import Memory
from bhx_model.data.reader import Reader
from bhx_model.data.shards import Sample
from bhx_model.errors import DataError
from bhx_model.file_hash import file_sha256
from bhx_model.training.encoders import Encoders
from bhx_model.training.writer import Writer

logger = logging.getLogger(__name__)

#: Arrays encoded at once.
BATCH: Final = 16


@dataclass(frozen=True)
class TokenFile:
    """A tar of tokens and its list.

    `samples` are the runs or T1s whose tokens it holds, in this order; `made_of` is a hash of what decides its content.
    """

    modality: str
    batch: str
    folder: Path
    samples: Sequence[Sample]
    made_of: str

    @property
    def tar(self) -> Path:
        """Where the tokens are."""
        return self.folder / f"{self.modality}-{self.batch}.tar"

    @property
    def listed(self) -> Path:
        """Where the list is, which is written last."""
        return self.folder / f"{self.modality}-{self.batch}.json"

    def is_there(self) -> bool:
        """Whether it is in the cache, whole, and made of these encoders and shards."""
        if not (self.listed.exists() and self.tar.exists()):
            return False
        try:
            about = read_json(self.listed, "its tokens are encoded again")
        except DataError as error:  # as a disk may leave it that lost its power
            logger.warning("%s", error)
            return False
        if about.pop("made_of", None) != self.made_of:
            return False
        if about.pop("sha256", None) != file_sha256(self.tar):
            return False
        try:
            whole = _list_again(self.tar, self.modality)
        except (tarfile.TarError, ValueError):
            return False
        return about == {**whole, "bytes": self.tar.stat().st_size}

    def entry(self) -> dict[str, Any]:
        """What the index says of it."""
        rows = self.listed.read_bytes()
        about = json.loads(rows)
        return {
            "file": self.tar.name,
            "sha256": about["sha256"],
            "bytes": about["bytes"],
            "n": len(about["key"]),
            "list": self.listed.name,
            "list_sha256": hashlib.sha256(rows).hexdigest(),
        }


def write_files(
    encoders: Encoders,
    files: Sequence[TokenFile],
    device: torch.device,
    workers: int,
    written: Callable[[TokenFile], None],
) -> None:
    """Encode what the files hold and write them; reading, encoding and writing go on at once.

    Parameters
    ----------
    encoders : Encoders
        On the device.
    files : sequence of TokenFile
    device : torch.device
    workers : int
        Reading threads.
    written : callable
        Called with every file that is complete, in the thread that writes.

    Raises
    ------
    DataError
        If a sample cannot be read.
    OSError
        If a file cannot be written.
    """
    works = [_Function(encoders, f) if f.modality == "function" else _Structure(encoders, f) for f in files]
    drafts = (functools.partial(work.draft, chosen) for work in works for chosen in work.batches)
    batches = Reader(workers, device).batches(drafts)
    try:
        with Writer() as writer:
            for file, work in zip(files, works, strict=True):
                writer.begin(functools.partial(_write_file, file, work, written))
                for _ in work.batches:
                    writer.give(_Encoded.of(work.encode(next(batches), device)))
                writer.end()
    finally:
        batches.close()


def _write_file(
    file: TokenFile,
    work: _Structure | _Function,
    written: Callable[[TokenFile], None],
    encoded: Iterator[_Encoded],
) -> None:
    _write_tar(
        file.tar, file.listed, file.modality, file.made_of, work.rows(one.arrived() for one in encoded)
    )
    written(file)


@dataclass
class _Encoded:
    """Tensors on their way from the device to the host."""

    tensors: Sequence[Tensor]
    there: torch.cuda.Event | None

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> _Encoded:
        """Begin to copy them, behind the work that makes them."""
        if tensors[0].device.type != "cuda":
            return cls([tensor.cpu() for tensor in tensors], None)
        hosts = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors]
        for host, tensor in zip(hosts, tensors, strict=True):
            host.copy_(tensor, non_blocking=True)
        there = torch.cuda.Event()
        there.record()
        return cls(hosts, there)

    def arrived(self) -> Sequence[Tensor]:
        """Wait until they are on the host."""
        if self.there is not None:
            self.there.synchronize()
        return self.tensors


class _Structure:
    """Tokens of T1 volumes."""

    def __init__(self, encoders: Encoders, file: TokenFile):
        self._encoders, samples = encoders, file.samples
        self.batches = [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]

    def draft(self, chosen: Sequence[Sample], memory: Memory) -> Draft:
        return draft_volumes(chosen, self._encoders.structure.grid, memory)

    @torch.no_grad()
    def encode(self, batch: Batch, device: torch.device) -> list[Tensor]:
        with self._encoders.autocast(device, "structure"):
            return [self._encoders.structure.encode(intensities(batch.tensors["volume"])).bfloat16()]

    def rows(self, encoded: Iterable[Sequence[Tensor]]) -> Iterator[tuple[dict[str, Any], Tensor]]:
        for chosen, (tokens,) in zip(self.batches, encoded, strict=True):
            for sample, one in zip(chosen, tokens, strict=True):
                yield {"key": sample.key, "subject": sample.subject.split("/")[1], "n_tokens": len(one)}, one


class _Function:
    """Tokens of BOLD runs: written in their order, but those of equal bucket are encoded together."""

    def __init__(self, encoders: Encoders, file: TokenFile):
        self._encoders, runs = encoders, file.samples
        self._plans = {run.key: plan_series(run, encoders.function.config) for run in runs}
        self._windows = [runs[start : start + 4 * BATCH] for start in range(0, len(runs), 4 * BATCH)]
        self._listed = [of_equal_bucket(window, self._plans, BATCH) for window in self._windows]
        self.batches = [chosen for listed in self._listed for chosen in listed]

    def draft(self, chosen: Sequence[Sample], memory: Memory) -> Draft:
        return self._encoders.draft_runs(chosen, [self._plans[run.key] for run in chosen], memory)

    @torch.no_grad()
    def encode(self, batch: Batch, device: torch.device) -> list[Tensor]:
        series, function = batch.tensors["series"], self._encoders.function
        with self._encoders.autocast(device, "function"):
            tokens = function.encode(series, batch.patch_frames).bfloat16()
        weights = function.token_weights(series, batch.patch_frames)
        return [tokens, weights.unflatten(1, (function.n_rois, -1))]

    def rows(self, encoded: Iterable[Sequence[Tensor]]) -> Iterator[tuple[dict[str, Any], Tensor]]:
        arrived = iter(encoded)
        for window, listed in zip(self._windows, self._listed, strict=True):
            done: dict[str, tuple[dict[str, Any], Tensor]] = {}
            for chosen in listed:
                tokens, weights = next(arrived)
                for run, one, weight in zip(chosen, tokens, weights, strict=True):
                    done[run.key] = (_function_row(run, self._plans[run.key], one, weight), one)
            for run in window:
                yield done.pop(run.key)
        for _ in arrived:  # takes the mark of the end
            raise AssertionError("more was encoded than the file holds")


def _function_row(run: Sample, plan: SeriesPlan, tokens: Tensor, weight_RN: Tensor) -> dict[str, Any]:
    absent = torch.nonzero(weight_RN[:, 0] == 0).flatten().tolist()
    return {
        "key": run.key,
        "anat": run.anat,
        "subject": run.subject.split("/")[1],
        "tr_s": plan.tr_s,
        "n_frames": plan.n_frames,
        "n_tokens": len(tokens),
        "last_share": float(weight_RN[:, -1].max()),
        "absent": absent,
    }


def _list_again(tar: Path, modality: str) -> dict[str, list[Any]]:
    """Columns of the list of a complete tar, read from the tar itself."""
    columns: dict[str, list[Any]] = {name: [] for name in token_index.LIST_COLUMNS[modality]}
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
        for array, meta in zip(members[::2], members[1::2], strict=True):
            content = archive.extractfile(meta)
            row = {} if content is None else json.load(content)
            row |= {"offset": array.offset_data, "size": array.size}
            row |= {"meta_offset": meta.offset_data, "meta_size": meta.size}
            for name, column in columns.items():
                column.append(row.get(name))
    return columns


def _write_tar(
    tar: Path,
    listed: Path,
    modality: str,
    made_of: str,
    rows: Iterator[tuple[dict[str, Any], Tensor]],
) -> None:
    columns: dict[str, Any] = {name: [] for name in token_index.LIST_COLUMNS[modality]}
    with atomic_write(tar) as part:
        with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as archive:
            for row, tokens in rows:
                buffer = io.BytesIO()
                array = tokens.contiguous().cpu().view(torch.uint16).numpy()
                np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
                places = {}
                for member, prefix, content in (
                    (token_index.MEMBER, "", buffer.getvalue()),
                    (contract.META_MEMBER, "meta_", contract.canonical_json(row)),
                ):
                    info = tarfile.TarInfo(f"{row['key']}.{member}")
                    info.size = len(content)
                    # USTAR: one block of header, then the content
                    places |= {
                        f"{prefix}offset": archive.offset + tarfile.BLOCKSIZE,
                        f"{prefix}size": len(content),
                    }
                    archive.addfile(info, io.BytesIO(content))
                for name, column in columns.items():
                    column.append({**row, **places}[name])
        columns |= {
            "made_of": made_of,
            "sha256": file_sha256(part),
            "bytes": part.stat().st_size,
        }
        # the list goes last: where it is, its tar is complete
        listed.unlink(missing_ok=True)
    with atomic_write(listed) as part:
        part.write_bytes(contract.canonical_json(columns))
