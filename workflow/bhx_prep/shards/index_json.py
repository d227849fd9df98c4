"""The ``index.json`` of a cohort's shards: their hashes and shared metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bhx_model import contract
from bhx_model.errors import DataError


def collect(cohort: str, folder: Path, batches: Sequence[int]) -> dict[str, Any]:
    """Collect the shards of a cohort into the value of its ``index.json``.

    Only lists are read, and the sizes of the tars compared with them; `verify` reads everything.

    Parameters
    ----------
    cohort : str
    folder : Path
        Where the tars and their lists are.
    batches : sequence of int
        Batches of the cohort's plan that have subjects: all of them have to be there.

    Raises
    ------
    DataError
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
    except ValueError as error:
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
