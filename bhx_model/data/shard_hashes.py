"""Compare shards with the hashes in their index; remote shards are downloaded first."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bhx_model.atomic_write import read_json, write_json
from bhx_model.data.shards import Shard
from bhx_model.errors import DataError, SiteError
from bhx_model.file_hash import file_sha256
from bhx_model.remote.cache import here

logger = logging.getLogger(__name__)

#: Time between two records of what `verify` has read, s.
RECORD_S: Final = 30.0


def verify(
    shards: Iterable[Shard], *, record: Path | None = None, rank_share: tuple[int, int] = (0, 1)
) -> int:
    """Compare every shard's bytes with its hash; remote ones are downloaded first.

    Parameters
    ----------
    shards : Iterable[Shard]
    record : Path, optional
        JSON file that remembers shards found whole by length and time of change, so that a resumed run need
        not read hundreds of gigabytes again.
    rank_share : tuple[int, int]
        (rank, processes): each process checks every n-th shard; with a record, each its own. Every process sees to it
        that all are downloaded, since its node may be another one.

    Returns
    -------
    int
        Shards read.

    Raises
    ------
    DataError
        Named after the altered shard.
    SiteError
        If shards cannot be downloaded.
    """
    ordered = sorted(shards, key=lambda s: s.path)
    fresh = {f.path for f in here().fetch(s.remote for s in ordered if s.remote is not None)}
    rank, world = rank_share
    known: dict[str, list[Any]] = {}
    if record is not None and record.exists():
        try:
            known = read_json(record, "checking all shards again")
        except DataError as error:  # it only saves time
            logger.warning("%s", error)
    read, noted = 0, time.monotonic()
    for shard in ordered[rank::world]:
        stat = shard.path.stat()
        state = [shard.sha256, stat.st_size, stat.st_mtime_ns]
        if known.get(str(shard.path)) == state:
            continue
        if shard.path not in fresh and file_sha256(shard.path) != shard.sha256:
            if shard.remote is not None:
                msg = f"{shard.path} was altered on this disk (sha256 differs): remove it, and start again"
                raise SiteError(msg)
            msg = (
                f"the shard {shard.path} is not the one the index was made of (sha256 differs): pack it again"
            )
            raise DataError(msg)
        known[str(shard.path)] = state
        read += 1
        # a job that is killed here goes on from there
        if record is not None and time.monotonic() - noted > RECORD_S:
            write_json(record, known)
            noted = time.monotonic()
    if record is not None and read:
        write_json(record, known)
    return read
