"""Load exports by URL: ``from_pretrained("https://.../weights/")``, downloaded once into the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bhx_model.config import STAGES
from bhx_model.data import t1w_space
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import DataError
from bhx_model.release import load
from bhx_model.remote.cache import Cache, CachedFile, here
from bhx_model.remote.urls import beside, inside, shown

_CARD: Final = "config.json"
_ROIS: Final = "rois.npz"


def download(url: str, cache: Cache | None = None) -> Path:
    """Download an export.

    Parameters
    ----------
    url : str
        Its folder, or its ``config.json``.
    cache : Cache, optional
        Where downloads are kept; that of this machine if None.

    Returns
    -------
    Path
        Its folder in the cache. Another export at this address later is another folder.

    Raises
    ------
    DataError
        If there is no export, one that this code does not read, or a file is not the one that the export describes.
    SiteError
        If it cannot be reached, or kept.
    """
    cache = cache or here()
    card = inside(url, _CARD)
    content = cache.read_names(card)
    hashes = _hashes(json.loads(content), shown(card))
    folder = cache.root / "exports" / hashlib.sha256(content).hexdigest()[:32]
    cache.fetch(CachedFile(beside(card, name), folder / name, sha256) for name, sha256 in hashes.items())
    if hashes[_ROIS] is None:
        _check_rois(folder / _ROIS, beside(card, _ROIS))
    if not (folder / _CARD).exists():  # last, so that an export that is there is whole
        cache.write(folder / _CARD, content)
    return folder


def _hashes(about: Any, name: str) -> dict[str, str | None]:
    """Hashes of an export's files except ``config.json``; earlier exports do not state that of ``rois.npz``."""
    if not isinstance(about, Mapping):
        msg = f"{name} describes no export: name the folder of one"
        raise DataError(msg)
    load.check_version(about, name)
    try:
        stages = {
            f"{stage}.safetensors": about["stages"][stage] for stage in STAGES if stage in about["stages"]
        }
        hashes: dict[str, str | None] = {file: str(described["sha256"]) for file, described in stages.items()}
        if about.get("t1w") is not None:
            hashes[t1w_space.FILE] = str(about["t1w"]["sha256"])
        hashes[_ROIS] = str(about["rois"]["sha256"]) if about.get("rois") is not None else None
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"{name} describes no whole export ({error!r}): export again"
        raise DataError(msg) from error
    return hashes


def _check_rois(path: Path, url: str) -> None:
    """Keep no ROIs whose hash is not known and that cannot be read; their content is compared with the weights later."""
    try:
        RoiMetadata.load(path)
    except DataError as error:
        path.unlink()
        msg = f"{shown(url)} is no whole .npz of ROIs: upload it again"
        raise DataError(msg) from error
