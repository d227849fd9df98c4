"""Bytes of what is elsewhere, through fsspec: with patience where another attempt may help, and a sentence where not."""

from __future__ import annotations

import importlib
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from bhx_model.errors import BhxError, ConfigError, DataError, SiteError
from bhx_model.remote.urls import shown

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Attempts, and the seconds between the first two; the pause doubles from one to the next.
ATTEMPTS: Final = 5
PAUSE_S = 1.0
LONGEST_PAUSE_S: Final = 60.0
#: No byte for so many seconds is a lost connection.
TIMEOUT_S = 60.0
#: Bytes of an answer that wait to be read; with aiohttp's own 64 KiB the socket is stopped after every receipt.
BUFFER: Final = 1 << 22

#: So that many jobs do not ask again at once; apart from the numbers that a training draws.
_chance: Final = random.Random()
#: Protocols whose packages the extra `remote` brings.
_BROUGHT: Final = ("http", "https", "s3", "s3a", "gs", "gcs")
#: Bases of the errors of libraries that fsspec speaks through; those that are no `OSError`.
_LIBRARIES: Final = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
)
#: Answers of a server that another attempt may change, beside all of 500 and more.
_PASSING: Final = (408, 425, 429)
_LOG_IN: Final = "NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"


class UnreachableError(SiteError):
    """A server that gave no answer, or not the file, however often it was asked."""


class _CutError(OSError):
    """Less has come than was asked for."""


def read(url: str, begin: int = 0, end: int | None = None) -> bytes:
    """Bytes of a file, `begin` included and `end` not; all of them without.

    A server that knows no ranges sends the whole file whatever it is asked for, and that is what is returned.

    Raises
    ------
    DataError
        If there is no such file, or it is shorter.
    SiteError
        If it may not be read, the server cannot be reached (`UnreachableError`), or a package is missing.
    ConfigError
        If it is no address that fsspec knows.
    """

    def attempt(system: Any, path: str) -> bytes:
        if end is None:
            return bytes(system.cat_file(path))
        content = bytes(system.cat_file(path, start=begin, end=end))
        if len(content) < end - begin:
            msg = f"{len(content)} of {end - begin} bytes came"
            raise _CutError(msg)
        return content

    return _patiently(url, attempt)


def size(url: str) -> int | None:
    """Bytes of a file; None where the server does not say. Raises as `read`."""
    return _patiently(url, lambda system, path: system.info(path).get("size"))


def _patiently(url: str, attempt: Callable[[Any, str], Result]) -> Result:
    """Attempt until it succeeds, or fails in a way that no other attempt would change."""
    system, path = _file_system(url)
    failures, pause = 0, PAUSE_S
    while True:
        try:
            return attempt(system, path)
        except _failures() as error:
            failures += 1
            if (refusal := _refusal(error, url)) is not None:
                raise refusal from error
            if failures == ATTEMPTS:
                raise _unreachable(error, url) from error
            logger.debug("%s: %r, another attempt follows", shown(url), error)
            time.sleep(min(max(pause * _chance.uniform(0.8, 1.2), _asked_pause(error)), LONGEST_PAUSE_S))
            pause *= 2


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of fsspec for a URL, and the path in it."""
    scheme = urlsplit(url).scheme.lower()
    try:
        core = importlib.import_module("fsspec.core")
        return core.url_to_fs(url, **_options(scheme))
    except ImportError as error:
        if scheme in _BROUGHT or (error.name or "").startswith("fsspec"):
            msg = f"reading {shown(url)} needs a package that is not installed: pip install 'bhx[remote]'"
        else:
            msg = f"reading {scheme}:// needs a package that BHX does not bring: {str(error)[:100]}"
        raise SiteError(msg) from error
    except ValueError as error:
        msg = f"{shown(url)} is no address that fsspec knows ({str(error)[:50]}): write https://, s3:// or gs://"
        raise ConfigError(msg) from error


def _options(scheme: str) -> dict[str, Any]:
    if scheme not in ("http", "https"):
        return {}
    aiohttp = importlib.import_module("aiohttp")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
    # bytes as they are stored; proxies and .netrc as every other program of the machine
    return {
        "headers": {"Accept-Encoding": "identity"},
        "client_kwargs": {"timeout": timeout, "trust_env": True, "read_bufsize": BUFFER},
    }


def _failures() -> tuple[type[Exception], ...]:
    """Errors of a transfer; looked up when there is one, as only then all libraries are imported."""
    found = (getattr(sys.modules.get(module), base, None) for module, base in _LIBRARIES)
    return (OSError, *(error for error in found if error is not None))


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
    if status == 416:
        return DataError(f"{name} is shorter than what names it says: upload it again, whole")
    if status is not None and status < 500 and status not in _PASSING:
        return DataError(f"{name} is refused with {status}: check the address")
    return None


def _unreachable(error: Exception, url: str) -> UnreachableError:
    name, status = shown(url), _status(error)
    if status == 429:
        return UnreachableError(f"{name}: too many requests (429), {ATTEMPTS} times: start again later")
    if status is not None:
        return UnreachableError(
            f"{name}: the server fails with {status}, {ATTEMPTS} times: start again later"
        )
    why = (str(error) if isinstance(error, _CutError) else type(error).__name__)[:40]
    return UnreachableError(
        f"{name} cannot be had ({why}, {ATTEMPTS} times): check the network, and start again"
    )


def _status(error: Exception) -> int | None:
    """Status of the server's answer, if it answered."""
    for one in _chain(error):
        if isinstance(answer := getattr(one, "response", None), dict):  # botocore's
            found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:  # aiohttp's and gcsfs's
            found = getattr(one, "code" if type(one).__name__ == "HttpError" else "status", None)
        if str(found).isdecimal():
            return int(str(found))
    return None


def _asked_pause(error: Exception) -> float:
    """Seconds that a server asks to wait."""
    after = str((getattr(error, "headers", None) or {}).get("Retry-After", ""))
    return float(after) if after.isdecimal() else 0.0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
