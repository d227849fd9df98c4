"""The extras of BHX, and which one installs a missing package. Needs nothing but Python."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final

#: Extra -> packages that it brings, as they are imported; a test compares them with pyproject.toml.
EXTRAS: Final = {
    "workflow": (
        "snakemake", "snakemake_executor_plugin_slurm", "snakemake_executor_plugin_cluster_generic", "pydantic",
        "yaml", "pandas", "pyarrow", "pathspec", "pygments",
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
    "brainmarks": ("brainmarks", "pytest"),
    "networks": ("ml4fmri",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "hub": ("huggingface_hub",),
    "remote": ("fsspec", "aiohttp", "s3fs", "gcsfs"),
}  # fmt: skip
#: What the commands of a package need (``python -m``); the longest name that a module's begins with holds.
OF_MODULES: Final = {
    "bhx_model": ("model",),
    "bhx_prep": ("workflow", "prep"),
    "bhx_prep.preproc.embedded": ("ants",),
}


def how_to_install(module: str | None, extras: Sequence[str] = ()) -> str | None:
    """Say what to install where an import failed.

    Parameters
    ----------
    module : str or None
        Name of what was not found, as `ModuleNotFoundError` has it.
    extras : sequence of str
        What the command needs altogether; without it, what the module needs that this process runs, or else the first
        extra that has the package.

    Returns
    -------
    str or None
        A sentence; None where the package is of no extra, which is a bug.
    """
    name = (module or "").partition(".")[0]
    having = [extra for extra, brought in EXTRAS.items() if name in brought]
    if not having:
        return None
    lacking = [
        extra
        for extra in extras or _of_command()
        if any(importlib.util.find_spec(m) is None for m in EXTRAS[extra])
    ]
    if not set(lacking) & set(having):
        lacking.append(having[0])
    return f"the package {name} is not installed: pip install 'bhx[{','.join(lacking)}]'"


def _of_command() -> Sequence[str]:
    """Extras of the module that Python was started with; none where that is not one of ours."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = f"{spec.name}." if spec else ""
    fitting = [prefix for prefix in OF_MODULES if name.startswith(f"{prefix}.")]
    return OF_MODULES[max(fitting, key=len)] if fitting else ()


def explain_failed_imports() -> None:
    """Make an import that fails at the start of ``python -m`` a sentence; for packages with modules that are commands.

    Python imports the packages of that module first, while ``sys.argv[0]`` is "-m"; else this does nothing.
    """
    if sys.argv[:1] != ["-m"]:
        return
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sentence = how_to_install(error.name) if isinstance(error, ModuleNotFoundError) else None
        if sentence is None:
            usual(kind, error, trace)
        else:
            print(sentence, file=sys.stderr)

    sys.excepthook = hook
