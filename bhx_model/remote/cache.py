"""Files from elsewhere, kept on this machine: downloaded once, checked, and then read like all others.

A file lies under the hash of its content, ``<cache>/files/<hash>/<name>``, so that it never changes, several addresses
may share it, and whoever finds it finds it whole. What is received so far lies beside it as ``.part.<name>`` and is resumed.
A lock lets one process at a time write a file; the others take another one meanwhile, or wait.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bhx_model import home_folder
from bhx_model.atomic_write import atomic_write
from bhx_model.errors import DataError, SiteError
from bhx_model.remote import transfer
from bhx_model.remote.urls import shown

logger = logging.getLogger(__name__)

#: Files that a process downloads at once.
THREADS: Final = 4
#: Variable that names the cache.
VARIABLE: Final = "BHX_CACHE"

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file that is elsewhere, and its place in the cache.

    Attributes
    ----------
    url : str
    path : Path
        Where it is once it was downloaded.
    sha256 : str, optional
        Hash of its content, where that is known.
    n_bytes : int, optional
        Its length, where that is known.
    """

    url: str
    path: Path
    sha256: str | None = None
    n_bytes: int | None = None

    @property
    def part(self) -> Path:
        """Where what is received so far is."""
        return self.path.with_name(f".part.{self.path.name}")

    def is_here(self) -> bool:
        """Whether it was downloaded; its content was checked then."""
        try:
            found = self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return False
        return self.n_bytes in (None, found)


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder in which downloads are kept.

    Attributes
    ----------
    root : Path
    """

    root: Path

    def file(self, url: str, name: str, sha256: str, n_bytes: int | None = None) -> CachedFile:
        """A file whose hash is known.

        Raises
        ------
        DataError
            If that is no hash, or the name leads elsewhere: both come from files of others.
        """
        if (
            not isinstance(sha256, str)
            or not _SHA256.fullmatch(sha256)
            or Path(name).name != name
            or name == ".."
        ):
            msg = f"what names {shown(url)} has no hash of it: make it again"
            raise DataError(msg)
        return CachedFile(url, self.root / "files" / sha256[:32] / name, sha256, n_bytes)

    def read_names(self, url: str) -> bytes:
        """A JSON file that names others, such as an index: as it is now, or was last where its server is out of reach.

        Raises
        ------
        DataError
            If there is none, or it is no JSON.
        SiteError
            If it cannot be had, and was not before.
        """
        copy = self.root / "names" / f"{hashlib.sha256(url.encode()).hexdigest()}.json"
        try:
            content = transfer.read(url)
        except transfer.UnreachableError as error:
            if not copy.is_file():
                raise
            logger.warning("%s; going on with what it was the last time", error)
            return copy.read_bytes()
        try:
            json.loads(content)
        except ValueError as error:
            page = content.lstrip()[:1] == b"<"
            why = "a web page (a login?)" if page else f"{len(content)} bytes that are no whole JSON"
            msg = f"{shown(url)} answers with {why}: check the address, or upload it again"
            raise DataError(msg) from error
        if not copy.is_file() or copy.read_bytes() != content:
            self.write(copy, content)
        return content

    def write(self, path: Path, content: bytes) -> None:
        """Write a file of the cache.

        Raises
        ------
        SiteError
            If the disk cannot take it.
        """
        with self._as_sentences(), atomic_write(path, shared=True) as part:
            part.write_bytes(content)

    def fetch(self, files: Iterable[CachedFile]) -> list[CachedFile]:
        """Download what is not in the cache yet; other processes may do so at the same time.

        Returns
        -------
        list of CachedFile
            Those that were not here.

        Raises
        ------
        DataError
            If a file is not there, or not the one whose hash is known.
        SiteError
            If a server cannot be reached, or the disk cannot take it. What has come stays, and the next call goes on there.
        """
        missing = list({file.path: file for file in files if not file.is_here()}.values())
        if not missing:
            return []
        self._check_room(missing)
        total = sum(file.n_bytes or 0 for file in missing)
        if total:
            logger.info("downloading %d files, %.2f GB, to %s", len(missing), total / 1e9, self.root)
        began, stop = time.monotonic(), threading.Event()
        with ThreadPoolExecutor(min(THREADS, len(missing)), "download") as pool:
            try:
                taken = list(pool.map(lambda file: self._get(file, stop, wait=False), missing))
                busy = [file for file, done in zip(missing, taken, strict=True) if not done]
                list(pool.map(lambda file: self._get(file, stop, wait=True), busy))
            finally:
                stop.set()  # after an error the others end with the piece that they are at
        if total:
            logger.info("downloaded in %.0f s", time.monotonic() - began)
        return missing

    def _get(self, file: CachedFile, stop: threading.Event, *, wait: bool) -> bool:
        """Download one file; False where another process is at it and is not waited for."""
        with self._as_sentences():
            file.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(file.path.with_name(f".lock.{file.path.name}"), wait=wait) as is_ours:
                if is_ours and not file.is_here():
                    _download(file, stop)
                return is_ours

    def _check_room(self, files: Sequence[CachedFile]) -> None:
        """Refuse before the first byte what the disk has no room for."""
        there = next((place for place in (self.root, *self.root.parents) if place.is_dir()), Path("/"))
        free = shutil.disk_usage(there).free
        begun = sum(file.part.stat().st_size for file in files if file.part.exists())
        wanted = sum(file.n_bytes or 0 for file in files) - begun
        if wanted > free:
            msg = (
                f"{wanted / 1e9:.2f} GB are to be downloaded, the disk of {_brief(self.root)} has {free / 1e9:.2f} GB"
                f" free: free some space, or set {VARIABLE} to a folder of another disk"
            )
            raise SiteError(msg)

    @contextmanager
    def _as_sentences(self) -> Iterator[None]:
        """Turn errors of the disk into sentences."""
        try:
            yield
        except OSError as error:
            root = _brief(self.root)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                msg = f"the disk of {root} is full: free some space, or set {VARIABLE} to a folder of another disk"
            elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
                msg = f"downloads cannot be kept in {root} ({error.strerror}): set {VARIABLE} to a folder of yours"
            elif error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                msg = f"the disk of {root} knows no locks: set {VARIABLE} to a folder of a local disk"
            else:
                raise
            raise SiteError(msg) from error


def here(environment: Mapping[str, str] = os.environ) -> Cache:
    """The cache of this machine: ``$BHX_CACHE``, else a job's own disk (``$SLURM_TMPDIR``), else ``~/.cache/bhx``.

    Raises
    ------
    ConfigError
        If ``$BHX_CACHE`` is below a home folder that does not exist.
    SiteError
        If no place is named and the user has no home folder, as in some containers.
    """
    if chosen := environment.get(VARIABLE):
        return Cache(home_folder.expanded(chosen))
    if of_job := environment.get("SLURM_TMPDIR"):
        return Cache(Path(of_job) / "bhx")
    if of_user := environment.get("XDG_CACHE_HOME"):
        return Cache(Path(of_user) / "bhx")
    try:
        return Cache(Path.home() / ".cache/bhx")
    except RuntimeError as error:
        raise SiteError(
            f"there is no home folder to keep downloads in: set {VARIABLE} to a folder"
        ) from error


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    with path.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _download(file: CachedFile, stop: threading.Event) -> None:
    if file.sha256 is None:  # two versions of it that were joined would not be noticed: in one answer
        file.part.write_bytes(transfer.read(file.url))
        file.part.replace(file.path)
        return
    for _ in range(2):  # bytes that were altered on their way may come right the second time
        found = _receive(file, stop)
        if file.sha256 == found:
            file.part.replace(file.path)
            return
        file.part.unlink()
    msg = f"{shown(file.url)} is not the file that was named (sha256 differs): upload it again, with what names it"
    raise DataError(msg)


def _receive(file: CachedFile, stop: threading.Event) -> str:
    """Append to the part of a file what it lacks; the hash of all."""
    with file.part.open("a+b") as out:
        begun = out.tell()
        end = transfer.size(file.url) if file.n_bytes is None and begun else file.n_bytes
        if begun and (end is None or begun > end):
            out.truncate(0)
        out.seek(0)
        digest = hashlib.file_digest(out, "sha256")  # pyright: ignore[reportArgumentType]
        with closing(transfer.receive(file.url, out.tell(), end, stop)) as chunks:
            for chunk in chunks:
                digest.update(chunk)
                out.write(chunk)
    return digest.hexdigest()


def _brief(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 60 else f"..{text[-58:]}"
