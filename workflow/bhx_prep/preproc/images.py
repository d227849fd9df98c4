"""The container images that BHX knows (``envs/containers.yaml``), and those on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import yaml

from bhx_model.errors import SiteError
from bhx_prep import installation

#: Seconds that a container engine is given to answer.
TIMEOUT_S = 60


@dataclass(frozen=True)
class Known:
    """A container of ``envs/containers.yaml``.

    Attributes
    ----------
    image, version : str
        Name without its tag, and the tag.
    digest : str or None
        What registries call its content, ``sha256:..``; None where it is not recovered.
    digest_reason : str
        Why it is not recovered; empty where it is.
    """

    image: str
    version: str
    digest: str | None
    digest_reason: str

    @property
    def name(self) -> str:
        """As `preproc.image` takes it, by its digest where that is known."""
        return f"{self.image}:{self.version}" + (f"@{self.digest}" if self.digest else "")


def known_image() -> Known:
    """FMRIPrep's container.

    Raises
    ------
    SiteError
        If the installation lacks it.
    """
    try:
        known = yaml.safe_load(installation.file("envs/containers.yaml").read_text(encoding="utf-8"))
        row = known["fmriprep"]
        return Known(row["image"], str(row["version"]), row["digest"], row.get("digest_reason") or "")
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        msg = "envs/containers.yaml of the installed BHX does not describe fMRIPrep: install it again"
        raise SiteError(msg) from error


def daemon_refusal() -> str | None:
    """What docker says where its daemon cannot be used; None where it can, or where there is no docker."""
    if shutil.which("docker") is None:
        return None
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it says nothing"])[-1]


def digest_here(image: str) -> str | None:
    """Digest of an image on this machine: the registry's, else the id that docker gives it.

    Parameters
    ----------
    image : str
        Name, with its tag.

    Returns
    -------
    str or None
        None where docker does not have it.
    """
    try:
        done = subprocess.run(
            ["docker", "image", "inspect", image],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        about: dict[str, Any] = json.loads(done.stdout)[0]
        digests = [name.partition("@")[2] for name in about.get("RepoDigests") or ()]
        return next(filter(None, digests), about.get("Id"))
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, AttributeError, TypeError):
        return None
