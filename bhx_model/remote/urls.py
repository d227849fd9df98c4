"""Addresses of what is elsewhere: ``https://``, ``s3://``, ``gs://``, and all others that fsspec knows. Needs no fsspec."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeGuard
from urllib.parse import SplitResult, urlsplit

from bhx_model.errors import ConfigError

#: A path, or a URL as text: a `Path` would make one slash of its two.
Place: TypeAlias = Path | str

#: Schemes that need a host, and those that need one or a bucket.
HTTP: Final = ("http", "https")
NAMED: Final = (*HTTP, "s3", "s3a", "gs", "gcs")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Downloads weights that are elsewhere, where a folder is wanted.
DOWNLOAD_WEIGHTS: Final = "python -m bhx_model.release.fetch export --weights URL --out FOLDER"

#: What a `Path` makes of a URL.
_SPOILT = re.compile(r"(https?|s3|gs|gcs|abfs|az|ftp|sftp):/(?!/)")


def is_url(place: Any) -> TypeGuard[str]:
    """Whether it is the address of something elsewhere."""
    return isinstance(place, str) and _URL.match(place) is not None


def was_url(path: Path) -> bool:
    """Whether it was a URL before it was made a path of."""
    return _SPOILT.match(str(path)) is not None


def place(text: str) -> Place:
    """Read a path or a URL, as a `type` of argparse."""
    return text if is_url(text) else Path(text)


def beside(url: str, name: str) -> str:
    """Address of a file in the folder of another one; a query (a token, say) holds for both."""
    parts = _split(url)
    return parts._replace(path=f"{parts.path.rpartition('/')[0]}/{name}").geturl()


def inside(url: str, name: str) -> str:
    """Address of a file in a folder; of `url` itself where it names that file already."""
    parts = _split(url)
    if parts.path.rpartition("/")[2] == name:
        return url
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()


def shown(place: Place, most: int = 80) -> str:
    """A place for messages; a URL without password and query, which may be secret, and not longer than `most`."""
    if not is_url(place):
        return str(place)
    parts = _split(place)
    text = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return text if len(text) <= most else f"{text[: most // 2 - 2]}..{text[-most // 2 :]}"


def scheme_of(url: str) -> str:
    """``https``, in lower case.

    Raises
    ------
    ConfigError
        If it is no address.
    """
    return _split(url).scheme


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url, allow_fragments=False)  # object stores allow a # in their keys
    except ValueError as error:  # brackets that are not closed
        msg = f"{url.partition('?')[0][-60:].rpartition('@')[2]} is no address ({error}): check it"
        raise ConfigError(msg) from error
    if parts.scheme in NAMED and not parts.netloc:
        msg = f"{url.partition('?')[0][:60]} names no {'host' if parts.scheme in HTTP else 'bucket'}"
        raise ConfigError(msg)
    return parts
