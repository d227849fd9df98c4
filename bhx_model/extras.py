"""What to install where a package is missing: the extras of BHX and what they bring. Needs nothing but Python."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Final

#: Extra -> packages that it brings, as they are imported; a test compares them with pyproject.toml.
EXTRAS: Final = {
    "workflow": (
        "snakemake", "snakemake_executor_plugin_slurm", "snakemake_executor_plugin_cluster_generic", "pydantic",
        "yaml", "pandas", "pyarrow", "pathspec",
    ),
    "prep": (
        "nibabel", "nilearn", "scipy", "sklearn", "lapy", "matplotlib", "jinja2", "webdataset", "templateflow",
        "fmriprep_docker", "isal", "numcodecs",
    ),
    "model": ("torch", "safetensors", "yaml", "sklearn", "numcodecs", "pyarrow"),
    "ants": ("nipype", "ants", "skimage", "nibabel", "pandas", "deepbet", "torch"),
    "fmriprep": ("fmriprep",),
    "dicom": ("pydicom", "dcm2niix"),
    "surfaces": ("cat_surf",),
    "brainmarks": ("brainmarks",),
    "networks": ("ml4fmri",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "hub": ("huggingface_hub",),
}  # fmt: skip


def how_to_install(module: str | None, extras: Sequence[str] = ()) -> str | None:
    """Say what to install where an import failed.

    Parameters
    ----------
    module : str or None
        Name of what was not found, as `ModuleNotFoundError` has it.
    extras : sequence of str
        What the command needs altogether; without it, the first extra that has the package.

    Returns
    -------
    str or None
        A sentence; None where the package is of no extra, which is a bug.
    """
    name = (module or "").partition(".")[0]
    having = [extra for extra, brought in EXTRAS.items() if name in brought]
    if not having:
        return None
    lacking = [extra for extra in extras if any(importlib.util.find_spec(m) is None for m in EXTRAS[extra])]
    if not set(lacking) & set(having):
        lacking.append(having[0])
    return f"the package {name} is not installed: pip install 'bhx[{','.join(lacking)}]'"
