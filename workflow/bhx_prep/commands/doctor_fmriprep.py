"""What fMRIPrep in a container needs of a machine: engine, daemon, image, licence, templates."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from bhx_model.errors import SiteError
from bhx_prep.commands.finding import Finding
from bhx_prep.config.fmriprep_arguments import is_of_release
from bhx_prep.config.preproc import PreprocSection, is_image_file
from bhx_prep.preproc import images, template_files
from bhx_prep.preproc.licence import licence_mistake

#: How many missing files of TemplateFlow are named.
NAMED = 4


def examine(preproc: PreprocSection, spaces: Sequence[str], t1w_mm: float) -> Iterator[Finding]:
    """Compare the machine with what fMRIPrep needs.

    Parameters
    ----------
    preproc : PreprocSection
        With a backend of fMRIPrep.
    spaces : sequence of str
        Of the cohorts that are preprocessed.
    t1w_mm : float
        Voxel size (mm) of the model's T1 grid.
    """
    docker = preproc.backend == "fmriprep-docker"
    names = ["docker"] if docker else ["apptainer", "singularity"]
    found = next(filter(shutil.which, names), None)
    if found is None:
        yield Finding(
            "missing", f"{names[0]} is not in PATH", f"install {names[0]}, or set `preproc.backend`"
        )
    else:
        yield Finding("ok", f"{found} is in PATH")
    yield from _docker_image(preproc.image, found) if docker else _apptainer_image(preproc.image)
    if not is_of_release(preproc.image):
        known = images.known_image()
        yield Finding(
            "note",
            f"preproc.image {preproc.image} is another release than {known.version}, whose options BHX knows",
            f"fine if its options are those that you give; else use {known.name}",
        )
    mistake = licence_mistake(preproc.fs_license)
    if mistake is None:
        yield Finding("ok", f"FreeSurfer licence {preproc.fs_license}")
    else:
        yield Finding(
            "missing",
            f"FreeSurfer licence: {mistake}",
            "register at FreeSurfer's site (free) and name the file in `preproc.fs_license`",
        )
    yield from _templates(preproc, spaces, t1w_mm)


def _docker_image(image: str, docker: str | None) -> Iterator[Finding]:
    if docker is None:
        return
    if (refusal := images.daemon_refusal()) is not None:
        yield Finding(
            "missing",
            f"the docker daemon does not answer ({refusal})",
            "start it, or join the group docker; or set `preproc.backend`",
        )
        return
    yield Finding("ok", "the docker daemon answers")
    here = images.digest_here(image)
    if here is None:
        yield Finding("missing", f"image {image} is not on this machine", f"docker pull {image}")
    else:
        yield Finding("ok", f"image {image}, {here}")
        yield from _pinned(image, here)


def _pinned(image: str, here: str) -> Iterator[Finding]:
    """Whether the name states the image's digest, and whether it is the one that BHX knows."""
    known = images.known_image()
    if "@" not in image:
        yield Finding(
            "note", f"preproc.image {image} is no digest: its content may change", f"pin it: {image}@{here}"
        )
    if image.startswith(f"{known.image}:{known.version}") and known.digest not in (None, here):
        yield Finding(
            "missing",
            f"image {image} is {here} here, and {known.digest} where it was published",
            f"docker pull {known.name}, and name that in `preproc.image`",
        )


def _apptainer_image(image: str) -> Iterator[Finding]:
    if not is_image_file(image):
        source = image if "://" in image else f"docker://{image}"
        fix = f"apptainer build fmriprep.sif {source}, and name the file in `preproc.image`"
        yield Finding("note", f"preproc.image {image} is no file: every job will fetch it", fix)
        return
    file = Path(image)
    if not file.is_file():
        fix = "build it (docs/how-to/slurm.md), or correct the name"
        yield Finding("missing", f"preproc.image: no file {image}", fix)
    elif not file.stat().st_size:
        yield Finding("missing", f"preproc.image: {image} is empty", "build it again: its disk was full")
    else:
        yield Finding("ok", f"image {image}")


def _templates(preproc: PreprocSection, spaces: Sequence[str], t1w_mm: float) -> Iterator[Finding]:
    try:
        needed = sorted(
            {
                name
                for space in dict.fromkeys(spaces)
                for name in template_files.needed(preproc.of(space, t1w_mm).model_dump(mode="json"))
            }
        )
    except SiteError as error:
        yield Finding("note", "which templates are needed cannot be said", str(error))
        return
    home = preproc.templateflow_home
    if home is None:
        yield Finding(
            "note",
            f"preproc.templateflow_home is not set: jobs fetch {len(needed)} templates from the network",
            "name a folder, and fill it by `bhx preproc fetch` where there is a network",
        )
        return
    missing = template_files.without_content(home, needed)
    if not missing:
        yield Finding("ok", f"TemplateFlow in {home}: all {len(needed)} files that are needed")
        return
    for name in missing[:NAMED]:
        yield Finding(
            "missing", f"TemplateFlow: no {home / name}", "`bhx preproc fetch` where there is a network"
        )
    if len(missing) > NAMED:
        yield Finding(
            "missing", f"TemplateFlow: and {len(missing) - NAMED} more of {len(needed)} files", "the same"
        )
