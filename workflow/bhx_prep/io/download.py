"""Files from a web server: resumed where a download was cut, checked, and never written over a file that is there.

What is received so far lies beside the file as ``.part-<state>.<name>``; the state is a hash of what the server says of
its file, so that two versions of a file are never joined. The whole file takes its name at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import logging
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bhx_model.atomic_write import sync
from bhx_model.errors import DataError, SiteError
from bhx_model.remote.patience import ATTEMPTS, TIMEOUT_S, Patience, StoppedError, asked_pause, may_pass

logger = logging.getLogger(__name__)

#: Seconds between lines of progress.
PROGRESS_S = 10.0

_CHUNK = 1 << 18
#: So many failures before any success end it all.
_HOPELESS = 20
_MD5 = re.compile(r'"([0-9a-f]{32})"')


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Attributes
    ----------
    url : str
    path : Path
        Where it belongs.
    size : int, optional
        Bytes, where a listing states it.
    """

    url: str
    path: Path
    size: int | None = None


@dataclass
class Summary:
    """What came of a list of files.

    Attributes
    ----------
    downloaded, present : list of RemoteFile
        `present` were there already, with the size that the server states.
    failed : list of (RemoteFile, str)
        With the reason.
    received : int
        Bytes.
    """

    downloaded: list[RemoteFile] = field(default_factory=list)
    present: list[RemoteFile] = field(default_factory=list)
    failed: list[tuple[RemoteFile, str]] = field(default_factory=list)
    received: int = 0


@dataclass(frozen=True)
class _State:
    """What a server says of its file: which version it is, and of how many bytes."""

    size: int | None
    etag: str | None
    modified: str | None

    @classmethod
    def of(cls, headers: http.client.HTTPMessage) -> _State:
        return cls(_length(headers), headers.get("ETag"), headers.get("Last-Modified"))

    def part(self, path: Path) -> Path:
        tag = hashlib.sha256(f"{self.size} {self.etag or self.modified}".encode()).hexdigest()[:12]
        return path.with_name(f".part-{tag}.{path.name}")

    @property
    def md5(self) -> str | None:
        """Hash of the content, where the server's tag is one (S3, unless it was uploaded in parts)."""
        found = _MD5.fullmatch(self.etag or "")
        return found[1] if found else None


class _Passing(Exception):
    """An attempt failed; another may not."""

    def __init__(self, reason: str, *, after_s: float = 0.0, unreachable: bool = False):
        super().__init__(reason)
        self.after_s, self.unreachable = after_s, unreachable


class _NoSuchPart(_Passing):
    """What is here is no beginning of the server's file."""


class Downloads:
    """Downloads from one server; several threads share it.

    Parameters
    ----------
    attempts : int
        Attempts in a row that bring nothing, before a file is given up.
    """

    def __init__(self, attempts: int = ATTEMPTS):
        self.attempts = attempts
        self.received = 0
        self.answered = False
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(self, files: Sequence[RemoteFile], jobs: int) -> Summary:
        """Download files.

        Parameters
        ----------
        files : sequence of RemoteFile
            Of several with one path, the first counts.
        jobs : int
            How many at a time.

        Returns
        -------
        Summary
            In the order of `files`. A file that fails stops no other.

        Raises
        ------
        SiteError
            If the server cannot be reached at all.
        OSError
            If this machine cannot write, e.g. for want of space. What was received stays, for the next time.
        """
        files = list({file.path: file for file in reversed(files)}.values())[::-1]
        summary, began = Summary(), time.monotonic()
        with ThreadPoolExecutor(jobs, thread_name_prefix="download") as pool:
            futures: dict[Future[bool], RemoteFile] = {pool.submit(self.get, f): f for f in files}
            try:
                self._watch(futures, began)
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for future, file in futures.items():
            error = future.exception()
            if error is not None:
                summary.failed.append((file, str(error)))
            else:
                (summary.downloaded if future.result() else summary.present).append(file)
        summary.received = self.received
        return summary

    def _watch(self, futures: dict[Future[bool], RemoteFile], began: float) -> None:
        """Log progress until all is done; raise what is no file's fault."""
        waiting, logged, failed = set(futures), began, 0
        while waiting:
            done, waiting = wait(waiting, timeout=PROGRESS_S, return_when=FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                if error is not None and not isinstance(error, DataError):
                    raise error
                failed = failed + 1 if error is not None and failed >= 0 else -1
                if failed == _HOPELESS:
                    raise SiteError(
                        f"the first {failed} files could not be had, the last of them since {error}"
                    )
            now = time.monotonic()
            if waiting and now - logged >= PROGRESS_S:
                logged = now
                n, speed = len(futures) - len(waiting), self.received / (now - began)
                logger.info(
                    "%d of %d files, %s, %s/s", n, len(futures), in_words(self.received), in_words(speed)
                )

    def get(self, file: RemoteFile) -> bool:
        """Download one file, with as many attempts as bring something.

        Returns
        -------
        bool
            False if it was there already.

        Raises
        ------
        DataError
            If the server does not have it or gives another file than it states, or another file is in its place.
        SiteError, OSError
            As `run`.
        """
        if file.path.exists() or file.path.is_symlink():
            self._compare(file)
            return False
        file.path.parent.mkdir(parents=True, exist_ok=True)
        self._patiently(lambda: self._attempt(file), lambda: max(map(_size, _parts(file.path)), default=0))
        return True

    def read(self, url: str) -> bytes:
        """The answer to one request, such as a listing.

        Raises
        ------
        DataError
            If the server does not have it.
        SiteError
            If the server cannot be reached.
        """
        received: list[bytes] = []

        def attempt() -> None:
            received.clear()
            with self._open(urllib.request.Request(url)) as response:
                received.extend(self._chunks(response))
                _refuse_compressed(response.headers)
                stated = _length(response.headers)
            if stated not in (None, sum(map(len, received))):
                raise _Passing("the connection was cut")

        self._patiently(attempt)
        return b"".join(received)

    def _patiently(self, attempt: Callable[[], Any], have: Callable[[], int] = lambda: 0) -> None:
        """Call `attempt` until it succeeds or fails for good; `have` says how many bytes earlier ones left."""
        patience, most = Patience(self.attempts, self._stop), have()
        while True:
            try:
                attempt()
                return
            except _Passing as error:
                if (now := have()) > most:
                    patience.renew()
                    most = now
                logger.debug("%s", error)
                if patience.is_left(error.after_s):
                    continue
                reason = f"{error} ({patience.failures} attempts)"
                if error.unreachable and not self.answered:
                    msg = f"{reason}: is this machine connected? `--from` names another address"
                    raise SiteError(msg) from error
                raise DataError(reason) from error

    def _attempt(self, file: RemoteFile) -> None:
        state = part = None
        if any(_parts(file.path)) and (state := self._state(file)) is not None:
            part = state.part(file.path)
        begin = _size(part) if part is not None else 0
        if state is None or part is None or begin != state.size:
            try:
                state, part = self._receive(file, state if begin else None, begin)
            except _NoSuchPart:
                if part is not None:
                    part.unlink(missing_ok=True)
                raise
        sync(part)
        _check(file, state, part)
        if file.path.exists():
            raise DataError(f"{file.path} appeared meanwhile: it is not overwritten")
        part.rename(file.path)
        for other in _parts(file.path):
            other.unlink(missing_ok=True)

    def _receive(self, file: RemoteFile, known: _State | None, begin: int) -> tuple[_State, Path]:
        """Receive all of a file, or what is missing after `begin` bytes of the `known` one."""
        request = urllib.request.Request(file.url)
        if known is not None:
            request.add_header("Range", f"bytes={begin}-")
            if known.etag and not known.etag.startswith("W/"):
                request.add_header("If-Range", known.etag)
        with self._open(request) as response:
            headers = response.headers
            if headers.get_content_type() == "text/html" and file.path.suffix not in (".html", ".htm"):
                raise DataError("the server answers with a web page in place of the file (a login?)")
            if file.path.suffix != ".gz":  # some stores say so of what was packed before
                _refuse_compressed(headers)
            if known is not None and response.status == 206:
                total = _total(headers, begin)
                if total is None or total != known.size:
                    raise _NoSuchPart("the server sent another part than the one asked for")
                state = known
            else:  # all of it, whatever was asked for
                state, begin = _State.of(headers), 0
                have = _size(state.part(file.path))
                # a server that does not answer to HEAD
                rest = (
                    known is None and 0 < have < (state.size or 0) and headers.get("Accept-Ranges") == "bytes"
                )
                if rest:
                    response.close()
                    return self._receive(file, state, have)
            if file.size is not None and state.size not in (None, file.size):
                raise DataError(f"the server lists {file.size} bytes and sends a file of {state.size}")
            part = state.part(file.path)
            with part.open("ab") as out:
                _lock(out, file.path)
                if _size(part) < begin:
                    raise _Passing("what was here has gone")
                out.truncate(begin)
                for chunk in self._chunks(response):
                    out.write(chunk)
        return state, part

    def _chunks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """What arrives; a lost connection is a failed attempt, and the caller's own errors are not."""
        while True:
            if self._stop.is_set():
                raise StoppedError
            try:
                chunk = response.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _Passing(f"the connection was cut ({_why(error)})") from error
            if not chunk:
                return
            with self._lock:
                self.received += len(chunk)
            yield chunk

    def _compare(self, file: RemoteFile) -> None:
        """Check that an existing file is the server's, by its size."""
        if not file.path.is_file():
            raise DataError(f"{file.path} is there and is no file: it is not overwritten, move it away")
        size = file.size
        if size is None:
            states: list[_State | None] = []
            self._patiently(lambda: states.append(self._state(file)))
            size = states[-1].size if states[-1] else None
        here = file.path.stat().st_size
        if size is not None and here != size:
            msg = f"there is another file of {here} bytes, the source's has {size}: it is not overwritten, move it away"
            raise DataError(msg)

    def _state(self, file: RemoteFile) -> _State | None:
        """What the server says of a file without sending it; None where it cannot say."""
        try:
            with self._open(urllib.request.Request(file.url, method="HEAD"), _PASSING_HEAD) as response:
                return _State.of(response.headers)
        except _NoHeadError:
            return None

    @contextmanager
    def _open(
        self, request: urllib.request.Request, unsupported: Sequence[int] = ()
    ) -> Iterator[http.client.HTTPResponse]:
        request.add_header("Accept-Encoding", "identity")
        request.add_header("User-Agent", "bhx")
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            self.answered = True
            if error.code in unsupported:
                raise _NoHeadError from error
            raise _refusal(error) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                msg = (
                    f"the certificate of {request.host} is not trusted ({reason.verify_message}): SSL_CERT_FILE names the"
                    " certificates to trust"
                )
                raise SiteError(msg) from error
            raise _Passing(f"{request.host} gives no answer ({_why(reason)})", unreachable=True) from error
        self.answered = True
        with response:
            if response.length is None and not response.chunked:
                raise _Passing("the server does not say where the answer ends, or its header was cut")
            yield response


class _NoHeadError(Exception):
    """The server does not answer to HEAD."""


_PASSING_HEAD = (405, 501)


def _refusal(error: urllib.error.HTTPError) -> Exception:
    """The exception for an answer that is no file."""
    if may_pass(error.code):
        after_s = asked_pause(error.headers.get("Retry-After"))
        return _Passing(f"the server fails with {error.code} {error.reason}", after_s=after_s)
    if 300 <= error.code < 400:
        return DataError(f"the source sends elsewhere, and nowhere to the file ({error.code})")
    if error.code in (404, 410):
        return DataError(f"the source has no such file ({error.code})")
    if error.code in (401, 403):
        return DataError(f"the source refuses it ({error.code}): it is not there, or not public")
    if error.code == 416:  # what is here is no beginning of the file: the next attempt sees another state
        return _NoSuchPart("the server has no such part")
    return DataError(f"the source refuses it ({error.code} {error.reason})")


def _length(headers: http.client.HTTPMessage) -> int | None:
    stated = headers.get("Content-Length", "")
    return int(stated) if stated.isdecimal() else None


def _refuse_compressed(headers: http.client.HTTPMessage) -> None:
    if (coding := headers.get("Content-Encoding", "identity")) != "identity":
        raise DataError(f"the server packs it ({coding[:20]}), though asked for its bytes as they are")


def _why(error: object) -> str:
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text if len(text) < 80 else type(error).__name__


def _total(headers: http.client.HTTPMessage, begin: int) -> int | None:
    """Size of the whole file, if what is sent begins where it should."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    return int(found[2]) if found and int(found[1]) == begin else None


def _parts(path: Path) -> list[Path]:
    return [p for p in path.parent.glob(".part-*") if p.name[len(".part-") :].partition(".")[2] == path.name]


def _check(file: RemoteFile, state: _State, part: Path) -> None:
    """Refuse what is not the server's file, whole."""
    size = part.stat().st_size
    if state.size is not None and size < state.size:
        raise _Passing(f"the connection was cut after {size} of {state.size} bytes")
    if state.size is not None and size > state.size:
        part.unlink()
        raise _Passing(f"there are {size} bytes, the server's file has {state.size}")
    if file.size is not None and size != file.size:
        part.unlink()
        raise _Passing(f"the server lists {file.size} bytes, {size} came")
    if state.md5 is not None:
        with part.open("rb") as content:
            found = hashlib.file_digest(content, "md5").hexdigest()
        if found != state.md5:
            part.unlink()
            raise _Passing("its checksum is not the one that the server states")


def _lock(file: Any, path: Path) -> None:
    """Refuse to write what another process writes; where a file system has no locks, there is none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DataError(f"another `bhx fetch` is writing {path.name}") from None
    except OSError:
        logger.debug("%s: no lock on this file system", path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def in_words(n_bytes: float) -> str:
    """Bytes as people say them: ``1.5 MB``."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"
