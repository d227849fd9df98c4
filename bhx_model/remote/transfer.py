"""Bytes of what is elsewhere, through fsspec: with patience where another attempt may help, and a sentence where not."""

from __future__ import annotations

import importlib
import logging
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, Final, TypeVar

from bhx_model.errors import BhxError, ConfigError, DataError, SiteError
from bhx_model.remote.patience import ATTEMPTS, TIMEOUT_S, Patience, asked_pause, may_pass
from bhx_model.remote.urls import HTTP, NAMED, scheme_of, shown

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Bytes of an answer that wait to be read; with aiohttp's own 64 KiB the socket is stopped after every receipt.
BUFFER: Final = 1 << 22
#: Bytes that are taken at once: of an answer that is still coming, and where a store sends pieces alone.
CHUNK: Final = 1 << 20
PIECE = 1 << 24

#: Bytes as they are stored.
_HEADERS: Final = {"Accept-Encoding": "identity"}
#: Protocols whose packages the extra `remote` brings.
_BROUGHT: Final = NAMED
#: Bases of the errors of libraries that fsspec speaks through; those that are no `OSError`.
_LIBRARIES: Final = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
    ("httpx2", "HTTPError"),
    ("httpx", "HTTPError"),
)
#: Libraries that log a traceback of what is a sentence here; without a handler Python prints it.
_CHATTY: Final = ("gcsfs", "google.auth")
_LOG_IN: Final = "NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"


class UnreachableError(SiteError):
    """A server that gave no answer, or not the file, however often it was asked."""


class _CutError(OSError):
    """Less has come than was asked for."""


class _AnswerError(OSError):
    """An answer that is no file, and no error either, such as one that sends elsewhere and does not say where."""

    def __init__(self, status: int):
        super().__init__(f"answer {status}")
        self.status = status


def read(url: str) -> bytes:
    """A whole file, a small one.

    Raises
    ------
    DataError
        If there is no such file.
    SiteError
        If it may not be read, the server cannot be reached (`UnreachableError`), or a package is missing.
    ConfigError
        If it is no address that fsspec knows.
    """
    return _patiently(url, lambda system, path: bytes(system.cat_file(path)))


def size(url: str) -> int | None:
    """Bytes of a file; None where the server does not say. Raises as `read`."""
    return _patiently(url, lambda system, path: system.info(path).get("size"))


def receive(
    url: str, begin: int = 0, end: int | None = None, stop: threading.Event | None = None
) -> Generator[bytes, None, None]:
    """Bytes of a file as they come; after a failure it goes on where it was.

    Parameters
    ----------
    url : str
    begin : int
        Bytes that are here already.
    end : int, optional
        Length of the file, where it is known.
    stop : threading.Event, optional
        Ends it.

    Raises
    ------
    DataError
        If there is no such file, or it is shorter.
    StoppedError
        If it was stopped.
    SiteError, ConfigError
        As `read`.
    """
    system, path = _file_system(url)
    if end is None and not _streams(url):
        end = size(url)
    patience = _patience(url, stop)
    while end is None or begin < end:
        try:
            with closing(_chunks(system, path, begin, end)) as chunks:
                for chunk in chunks:
                    patience.check()
                    wanted = chunk if end is None else chunk[: end - begin]
                    begin += len(wanted)
                    patience.renew()
                    yield wanted
                    if begin == end:
                        return
            if end is None:
                return
            msg = f"{begin} of {end} bytes came"
            raise _CutError(msg)
        except _failures() as error:
            _wait(error, url, patience)


def _patience(url: str, stop: threading.Event | None = None) -> Patience:
    # gcsfs makes six attempts each time
    return Patience(2 if scheme_of(url) in ("gs", "gcs") else ATTEMPTS, stop)


def _streams(url: str) -> bool:
    return scheme_of(url) in HTTP


def _chunks(system: Any, path: str, begin: int, end: int | None) -> Generator[bytes, None, None]:
    """One attempt at what a file has from `begin` on."""
    if not _streams(path):
        while end is None or begin < end:
            upto = None if end is None else min(begin + PIECE, end)
            content = bytes(system.cat_file(path, start=begin, end=upto))
            yield content
            begin += len(content)
            if begin != upto:
                return
        return
    headers = {**_HEADERS, "Range": f"bytes={begin}-"} if begin else _HEADERS
    # a stream, by its block size; without a size fsspec would ask for it first
    with system.open(path, "rb", block_size=0, size=1, headers=headers) as stream:
        if (status := stream.r.status) not in (200, 206):
            raise _AnswerError(status)
        known = begin if status == 200 else 0  # the server knows no ranges, and sends all
        while chunk := stream.read(CHUNK):
            if known < len(chunk):
                yield chunk[known:]
            known = max(known - len(chunk), 0)


def _patiently(url: str, attempt: Callable[[Any, str], Result]) -> Result:
    """Attempt until it succeeds, or fails in a way that no other attempt would change."""
    system, path = _file_system(url)
    patience = _patience(url)
    while True:
        try:
            return attempt(system, path)
        except _failures() as error:
            _wait(error, url, patience)


def _wait(error: Exception, url: str, patience: Patience) -> None:
    """Wait for the next attempt; raise the sentence of an error after which there is none."""
    if (refusal := _refusal(error, url)) is not None:
        raise refusal from error
    after_s = asked_pause((getattr(error, "headers", None) or {}).get("Retry-After"))
    # no more of the error than its type: its text may hold the whole URL
    logger.debug("%s: %s (%s)", shown(url), type(error).__name__, _status(error))
    if not patience.is_left(after_s):
        raise _unreachable(error, url, patience.failures) from error


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of fsspec for a URL, and the path in it."""
    scheme = scheme_of(url)
    for library in map(logging.getLogger, _CHATTY):
        if not library.handlers:
            library.addHandler(logging.NullHandler())
    try:
        core = importlib.import_module("fsspec.core")
        return core.url_to_fs(url, **_options(scheme))
    except ImportError as error:
        if scheme in _BROUGHT or (error.name or "").startswith("fsspec"):
            msg = f"reading {shown(url)} needs a package that is not installed: pip install 'bhx[remote]'"
        else:
            msg = f"reading {scheme}:// needs a package that BHX does not bring: {str(error)[:100]}"
        raise SiteError(msg) from error
    except OSError as error:  # of those that log in at once, such as ftp
        raise _unreachable(error, url, 1) from error
    except (
        ValueError,
        TypeError,
        AttributeError,
    ) as error:  # the last two of those that need more than an address
        msg = f"{shown(url)} is no address that fsspec knows ({str(error)[:50]}): write https://, s3:// or gs://"
        raise ConfigError(msg) from error


def _options(scheme: str) -> dict[str, Any]:
    if scheme not in HTTP:
        return {}
    aiohttp = importlib.import_module("aiohttp")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
    # proxies and .netrc as every other program of the machine
    return {
        "headers": _HEADERS,
        "client_kwargs": {"timeout": timeout, "trust_env": True, "read_bufsize": BUFFER},
    }


def _failures() -> tuple[type[Exception], ...]:
    """Errors of a transfer; looked up when there is one, as only then all libraries are imported."""
    found = (getattr(sys.modules.get(module), base, None) for module, base in _LIBRARIES)
    # an attempt is a call of a library alone: its `ValueError` is an address or an answer that it does not take
    return (OSError, ValueError, *(error for error in found if error is not None))


def _refusal(error: Exception, url: str) -> BhxError | None:
    """The sentence for an error that another attempt would not change; None for one that it may."""
    status = _status(error)
    name = shown(url)
    # of fsspec's question for the size every failure is a file that is not found, for some cause
    is_absent = isinstance(error, FileNotFoundError) and error.__cause__ is None
    if is_absent or status in (404, 410):
        return DataError(f"there is no {name}: check the address")
    if isinstance(error, PermissionError) or status in (401, 403, 407):
        how = f" ({status})" if status else ""
        return SiteError(f"{name} may not be read{how}: ask its owners for access, or log in to the store")
    if any(type(e).__name__ in _LOG_IN for e in _chain(error)):
        return SiteError(
            f"{name} wants you to log in, and there are no credentials: set those of the store, or FSSPEC_S3_ANON=true"
        )
    if any(type(e).__name__ == "ClientConnectorCertificateError" for e in _chain(error)):
        return SiteError(f"the certificate of {name} is not trusted here: set SSL_CERT_FILE to your site's")
    if "requester pays" in str(error):
        return SiteError(
            f"readers of {name} pay for it: set FSSPEC_GS_REQUESTER_PAYS to your project, or copy it to a bucket of yours"
        )
    if (isinstance(error, ValueError) or type(error).__name__ == "ParamValidationError") and status is None:
        return DataError(f"{name} is refused as a bad request: check the address")
    if type(error).__name__ == "TooManyRedirects" or (status is not None and 300 <= status < 400):
        return DataError(f"{name} leads elsewhere, and nowhere to a file: check the address")
    if status == 416:
        return DataError(f"{name} is shorter than what names it says: upload it again, whole")
    if status is not None and not may_pass(status):
        return DataError(f"{name} is refused with {status}: check the address")
    return None


def _unreachable(error: Exception, url: str, failures: int) -> UnreachableError:
    name, status = shown(url), _status(error)
    if status == 429:
        return UnreachableError(f"{name}: too many requests (429), {failures} times: start again later")
    if status is not None:
        return UnreachableError(
            f"{name}: the server fails with {status}, {failures} times: start again later"
        )
    if any(
        type(e).__name__ == "ClientConnectorDNSError" or isinstance(e, socket.gaierror) for e in _chain(error)
    ):
        return UnreachableError(f"the server of {name} has no address here: check its name, and the network")
    why = (str(error) if isinstance(error, _CutError) else type(error).__name__)[:40]
    return UnreachableError(
        f"{name} cannot be had ({why}, {failures} times): check the network, and start again"
    )


def _status(error: Exception) -> int | None:
    """Status of the server's answer, if it answered."""
    for one in _chain(error):
        answer = getattr(one, "response", None)
        if isinstance(answer, dict):  # botocore's
            found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        elif answer is not None:  # those of requests and httpx
            found = getattr(answer, "status_code", None)
        else:  # aiohttp's and gcsfs's
            found = getattr(one, "code" if type(one).__name__ == "HttpError" else "status", None)
        if str(found).isdecimal() and int(str(found)):  # 0 is no answer
            return int(str(found))
        if type(one) is OSError and str(one).startswith("Forbidden: "):  # gcsfs's
            return 403
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
