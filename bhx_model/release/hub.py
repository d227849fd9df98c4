"""Exports in a repository of the Hugging Face Hub, downloaded once and then used offline."""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bhx_model.config import STAGES
from bhx_model.data import t1w_space
from bhx_model.errors import BhxError, ConfigError, DataError, SiteError
from bhx_model.remote.cache import Cache
from bhx_model.remote.urls import is_url, shown

#: Files of an export: nothing else of a repository is downloaded, or of a folder uploaded.
FILES: Final = (
    *(f"{stage}.safetensors" for stage in STAGES),
    "config.json",
    "rois.npz",
    t1w_space.FILE,
    "README.md",
)
#: ``org/name``, as the Hub allows it.
NAME: Final = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")
#: Where the Hub is; the variable is the Hub's own.
_ENDPOINT: Final = "https://huggingface.co"
#: Libraries that speak HTTP for the Hub's, and their base of errors.
_HTTP: Final = (("httpx2", "HTTPError"), ("httpx", "HTTPError"), ("requests", "RequestException"))


def find_export(
    name: str | Path, *, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """Folder of an export: `name` itself, or where it was downloaded to.

    Parameters
    ----------
    name : str or Path
        A folder, a URL of one, or ``org/name`` for the Hub's repository. A folder that is there is taken for one.
    revision : str, optional
        Branch, tag or commit of a repository.
    cache_dir : path, optional
        Where downloads are kept; if None ``$HF_HOME/hub`` for those of the Hub, ``$BHX_CACHE`` for a URL
        (`bhx_model.remote.cache.here`).

    Raises
    ------
    ConfigError
        If `name` is neither text nor a path, or a revision of a folder or a URL is asked for.
    DataError
        If there is no such repository or revision, or it may not be read.
    SiteError
        If the Hub cannot be reached and nothing is in the cache, or the disk is full.
    """
    if not isinstance(name, str | os.PathLike):
        raise ConfigError(f"{str(name)[:40]!r} is no export: give a folder, or org/name")
    if is_url(name):
        from bhx_model.release.remote_export import download  # needs torch

        if revision is not None:
            raise ConfigError(f"{shown(name)} is a URL, which has no revisions: leave revision out")
        return download(name, None if cache_dir is None else Cache(Path(cache_dir)))
    folder = Path(name)
    if folder.is_dir() or not (isinstance(name, str) and NAME.fullmatch(name)):
        if revision is not None:
            raise ConfigError(f"{name} is a folder, which has no revisions: leave revision out")
        return folder
    hub = _library(f"there is no folder {name}; to load it by name from the Hugging Face Hub")
    with _translated_errors(hub, name, cache_dir):
        found = hub.snapshot_download(
            name, revision=revision, cache_dir=cache_dir, allow_patterns=list(FILES), endpoint=_endpoint()
        )
    return Path(found)


def push(folder: Path, name: str, *, private: bool = False, terms_allow: bool = False) -> str:
    """Upload an export to a repository of the Hub, which is made if it is not there.

    Parameters
    ----------
    folder : Path
        Checked first as `from_pretrained` does.
    name : str
        ``org/name``.
    private : bool
        Make a repository that only its owners see.
    terms_allow : bool
        Whether the user confirms that the terms of the data allow it; required if terms are not stated.

    Returns
    -------
    str
        Address of what was uploaded.

    Raises
    ------
    DataError
        If it is no whole export.
    ConfigError
        If the name is none, or terms of its data are not stated.
    SiteError
        If the Hub cannot be reached or does not allow it.
    """
    from bhx_model.release.embed import from_pretrained

    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a repository: write org/name")
    about = from_pretrained(folder).about
    unknown = sorted(cohort for cohort, stated in about.get("terms", {}).items() if stated is None)
    if unknown and not terms_allow:
        msg = (
            f"the terms of {', '.join(unknown)[:60]} are not stated, and hold for the weights: state `terms` and export"
            " again, or add --terms-allow"
        )
        raise ConfigError(msg)
    hub = _library("to upload weights")
    with _translated_errors(hub, name, None):
        api = hub.HfApi(endpoint=_endpoint(), library_name="bhx")
        api.create_repo(name, private=private or None, exist_ok=True)  # None: as the organisation has it
        done = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message="Upload an export of bhx",
        )
    return str(done.commit_url)


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", _ENDPOINT).rstrip("/")


def _library(why: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise SiteError(f"{why}: pip install 'bhx[hub]'") from error


@contextmanager
def _translated_errors(hub: Any, name: str, cache_dir: str | Path | None) -> Iterator[None]:
    """Turn errors of the Hub's library into ours."""
    try:
        yield
    except BhxError:
        raise
    except (
        OSError,
        ValueError,
        *_errors_of_http(),
    ) as error:  # looked up now: the library imports them when it asks
        raise _sentence(hub, error, name, cache_dir) from error


def _errors_of_http() -> tuple[type[Exception], ...]:
    return tuple(getattr(sys.modules[module], base) for module, base in _HTTP if module in sys.modules)


def _sentence(hub: Any, error: Exception, name: str, cache_dir: str | Path | None) -> BhxError:
    errors, place = hub.errors, _endpoint()
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    known: Any
    for known in (error, cause):
        if isinstance(known, errors.GatedRepoError):
            return DataError(f"{name} is gated: accept its terms at {place}/{name}, then `hf auth login`")
        if isinstance(known, errors.RepositoryNotFoundError):
            return DataError(
                f"{name} is neither a folder here nor a repository at {place} that you may read: check the name, or "
                "`hf auth login`"
            )
        if isinstance(known, errors.RevisionNotFoundError):
            return DataError(
                f"{name} has no such revision: leave revision out, or name a branch, tag or commit"
            )
        if isinstance(known, errors.HfHubHTTPError) and known.response is not None:
            status = known.response.status_code
            why = {
                401: "you are not logged in: `hf auth login`",
                403: "you may not: ask its owners, or log in with a token that may write",
                429: "too many requests: try again later",
            }
            return SiteError(f"{place} answers {status} for {name}: {why.get(status, 'try again later')}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = cache_dir or "the Hub's cache"
        return SiteError(f"the disk of {where} is full: free some space, or set HF_HOME to another disk")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):
        return SiteError(
            f"{error.filename}: the Hub's cache may not be written: set HF_HOME to another folder"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return SiteError(
            f"{place} cannot be reached, and {name} is not whole in the cache: check the network, or HF_HOME"
        )
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return ConfigError(f"{name} cannot be used by the Hub ({str(error)[:80]}): write org/name")
    return SiteError(
        f"{place}: the transfer of {name} did not complete ({type(error).__name__}): check the network, try again"
    )
