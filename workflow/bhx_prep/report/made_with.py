"""Provenance of a study's results: versions of programs, hashes of files, the configuration without labels."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bhx_model.file_hash import file_sha256
from bhx_prep.config.config import Config

#: Programs whose versions decide the results.
PROGRAMS = (
    "bhx", "snakemake", "numpy", "scipy", "pandas", "pyarrow", "nibabel", "nilearn", "scikit-learn", "lapy",
    "webdataset", "torch", "safetensors", "matplotlib",
)  # fmt: skip


def programs() -> list[tuple[str, str]]:
    """Names and versions of `PROGRAMS`."""
    found = [("Python", platform.python_version())]
    for program in PROGRAMS:
        try:
            found.append((program, version(program)))
        except PackageNotFoundError:  # the page may be made where the model is not installed
            continue
    return found


def hashes(config: Config, results: Path, atlas: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and SHA-256 of what the training stages read and wrote."""
    found = [
        (f"{name}/shards/index.json", results / name / "shards" / "index.json") for name in config.cohorts
    ]
    for name in config.experiments:
        folder = results / "experiments" / name
        found += [
            (f"experiments/{name}/subjects/{file}", folder / "subjects" / file)
            for file in ("pretrain.json", "rois.npz")
        ]
        found += [
            (f"experiments/{name}/{stage}/model.safetensors", folder / stage / "model.safetensors")
            for stage in ("structure", "function", "fusion")
        ]
    out = [(f"templates/{name}", sha) for name, sha in sorted(atlas.get("files", {}).items())]
    for name, path in found:
        if path.exists():
            out.append((name, file_sha256(path)))
    return out


def public(config: Config) -> str:
    """The configuration as JSON, without subject labels."""
    values = config.model_dump(mode="json")
    for cohort in values["cohorts"].values():
        if cohort["subjects"] is not None:
            cohort["subjects"] = f"{len(cohort['subjects'])} chosen (labels are not shown)"
        if cohort["exclude"]:
            cohort["exclude"] = f"{len(cohort['exclude'])} given (names are not shown)"
    return json.dumps(values, indent=1, sort_keys=False)
