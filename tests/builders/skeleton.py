"""Datasets without data, made from a short YAML: enough for planning, nothing to compute on."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import snakemake_server
import yaml

#: Shapes and voxel sizes (mm) of images whose content nobody reads.
IMAGES = {"bold": ((64, 64, 36), 3.5), "T1w": ((176, 240, 256), 1.0), "mask": ((97, 115, 97), 2.0)}


def write_image(path: Path, *, frames: int = 150, tr_s: float = 2.0) -> None:
    """Write a NIfTI that ends after its header."""
    suffix = path.name.split(".")[0].rsplit("_", 1)[-1]
    shape, zoom = IMAGES[suffix]
    header = nib.nifti1.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((*shape, frames) if suffix == "bold" else shape)
    header.set_zooms((zoom,) * 3 + ((tr_s,) if suffix == "bold" else ()))
    header.set_xyzt_units("mm", "sec")
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 4, mtime=0))


def write_file(path: Path, content: Any) -> None:
    """Write one file: an image by its name, JSON from a mapping, or text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".nii.gz"):
        write_image(path, **(content or {}))
    elif isinstance(content, dict):
        path.write_text(json.dumps(content))
    else:
        path.write_text(content or "")


def build(skeleton: Path, folder: Path) -> dict[str, Any]:
    """Make the dataset of a skeleton in `folder`; returns the skeleton."""
    described = yaml.safe_load(skeleton.read_text())
    for name, content in described["files"].items():
        write_file(folder / name, content)
    (folder / "config.yaml").write_text(yaml.safe_dump(described["config"]))
    return described


def snakemake(root: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the checkout's workflow in `folder`."""
    return snakemake_server.run(folder, ["--snakefile", str(root / "workflow/Snakefile"), *arguments])


def job_counts(output: str) -> dict[str, int]:
    """Jobs per rule, read from the table that a dry run prints."""
    counts, reading = {}, False
    for line in output.splitlines():
        words = line.split()
        if words == ["job", "count"]:
            reading = True
        elif reading and len(words) == 2 and words[1].isdigit():
            counts[words[0]] = int(words[1])
        elif reading and not words:
            break
    return counts
