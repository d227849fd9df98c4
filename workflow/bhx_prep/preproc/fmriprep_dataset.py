"""Correct the dataset description of fMRIPrep's derivatives, where its container could not know the paths."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bhx_model import __version__
from bhx_model.atomic_write import write_json
from bhx_model.errors import DataError
from bhx_model.file_hash import file_sha256
from bhx_prep.config.fmriprep_arguments import Given, given_words, named_folders, parse
from bhx_prep.config.preproc import is_image_file
from bhx_prep.ingest import metadata
from bhx_prep.io import bids_names
from bhx_prep.preproc import images
from bhx_prep.preproc.altering_results import altering_results
from bhx_prep.preproc.containers import absolute
from bhx_prep.preproc.dataset_description import made_by, stated, write_dataset

logger = logging.getLogger(__name__)

NOTE: Final = "Started fMRIPrep for one subject at a time, in a container that saw the usable scans of this subject alone."

#: Options of fMRIPrep that alter no result: of the machine, of messages, of what is done about failures.
NO_RESULT: Final = frozenset(
    {
        "--nthreads", "--omp-nthreads", "--mem-mb", "--low-mem", "--use-plugin", "--work-dir", "--clean-workdir",
        "--fs-license-file", "--bids-database-dir", "--verbose", "--resource-monitor", "--write-graph",
        "--stop-on-first-crash", "--notrack", "--track-carbon", "--country-code", "--skip-bids-validation",
        "--md-only-boilerplate", "--aggregate-session-reports",
    }
)  # fmt: skip


def write_description(made: Path, out: Path, raw: Path, preproc: Mapping[str, Any]) -> None:
    """Write ``dataset_description.json`` of a cohort's derivatives.

    Parameters
    ----------
    made : Path
        What fMRIPrep wrote in the job of one subject, with its own description.
    out : Path
        Folder of the cohort's derivatives.
    raw : Path
        Raw dataset, as it is given.
    preproc : mapping
        Section `preproc` of the configuration.
    """
    own = stated(made)
    links = own.get("DatasetLinks")
    links = {name: uri for name, uri in links.items()} if isinstance(links, dict) else {}
    for given in parse(given_words(preproc)):  # fMRIPrep names the places that its container had
        for name, path in _named(given):
            links[name] = Path(path).as_uri()
    entries = made_by(own)
    first = {**(entries[0] if entries else {"Name": "fMRIPrep"}), "Container": container(preproc, out)}
    bhx = {"Name": "bhx", "Version": __version__, "Description": NOTE}
    write_dataset(
        out,
        raw,
        name=own.get("Name") or "fMRIPrep",
        text=f"Made by fMRIPrep in a container. {NOTE}",
        generated_by=[first, *entries[1:], bhx],
        settings=settings(preproc),
        own={**own, "DatasetLinks": links},
    )


def settings(preproc: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of fMRIPrep that alter its results: files by what is in them, an image without its folder."""
    found = altering_results(preproc)
    words = sorted(
        [given.name, *(_content(given, value) for value in given.values)]
        for given in parse(given_words(preproc))
        if given.name not in NO_RESULT
    )
    image = str(preproc["image"])
    spaces = preproc.get("output_spaces")
    return {
        **found,
        "fmriprep_args": words,
        "image": Path(image).name if is_image_file(image) else image.removeprefix("docker://"),
        "output_spaces": sorted(spaces) if spaces else None,
    }


def _content(given: Given, value: str) -> str:
    if given.option.kind == "file":
        path = Path(absolute(value))
        return file_sha256(path) if path.is_file() else ""
    if given.option.kind == "folder":
        return ""  # what is in it are data
    if given.option.kind == "named folders":
        return value.rpartition("=")[0]
    return value


def _named(given: Given) -> Iterator[tuple[str, str]]:
    if given.name == "--derivatives":
        yield from ((name, absolute(path)) for name, path in named_folders(given))


def container(preproc: Mapping[str, Any], out: Path) -> dict[str, str]:
    """``Container`` of `GeneratedBy`: the image, and the digest of what ran where that can be known.

    Parameters
    ----------
    preproc : mapping
        Section `preproc` of the configuration.
    out : Path
        Folder of the derivatives, which keeps the digest of an image file.
    """
    image = str(preproc["image"])
    docker = preproc["backend"] == "fmriprep-docker"
    if is_image_file(image):
        digest, where = _file_digest(Path(image), out), {"URI": Path(image).name}
    else:
        name = image.removeprefix("docker://")
        tag, at, stated_digest = name.partition("@")
        digest = stated_digest if at else _docker_digest(name) if docker else None
        where = {"Tag": tag}
        if digest:
            where["URI"] = (
                f"docker://{tag.rpartition('/')[0] + '/' if '/' in tag else ''}{_repository(tag)}@{digest}"
            )
    found = {"Type": "docker" if docker else "apptainer", **where}
    return {**found, "Digest": digest} if digest else found


def _repository(tag: str) -> str:
    return tag.rpartition("/")[2].partition(":")[0]


def _docker_digest(image: str) -> str | None:
    digest = images.digest_here(image)
    if digest is None:
        logger.warning("docker does not say which digest %s has: the derivatives do not state it", image)
    return digest


def _file_digest(image: Path, out: Path) -> str | None:
    """SHA-256 of an image file of gigabytes, computed once for a folder of derivatives."""
    try:
        status = image.stat()
    except OSError:
        return None
    known = out / "logs" / "image.json"
    now = {"image": image.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    try:
        before = json.loads(known.read_text(encoding="utf-8"))
        if {name: before.get(name) for name in now} == now:
            return str(before["digest"])
    except (OSError, ValueError, LookupError, AttributeError):
        pass
    digest = f"sha256:{file_sha256(image)}"
    write_json(known, {**now, "digest": digest}, shared=True)
    return digest


def keep_boilerplate(made: Path, subject: str) -> None:
    """Keep fMRIPrep's text on this subject, since other subjects' scans may have needed other steps."""
    for ending in ("md", "bib"):
        said = made / "logs" / f"CITATION.{ending}"
        if said.is_file():
            shutil.copyfile(said, said.with_name(f"sub-{subject}_CITATION.{ending}"))


def complete_sidecars(made: Path, subject: str) -> None:
    """Add fields that BIDS requires and some releases of fMRIPrep omit; existing ones are not changed.

    ``SpatialReference`` of images on the grid of the subject's own T1w, ``Resolution`` where the name has ``res-``.

    Parameters
    ----------
    made : Path
        What fMRIPrep wrote in the job of one subject.
    subject : str
        Without ``sub-``.
    """
    folder = made / f"sub-{subject}"
    heads = {
        kind: sorted(
            path for path in folder.rglob(f"*_desc-preproc_{kind}.nii.gz") if "_space-" not in path.name
        )
        for kind in ("T1w", "T2w")
    }
    for image in sorted(folder.rglob("*.nii.gz")):
        entities = bids_names.parse(image.name)
        space, sidecar = entities.get("space"), image.with_name(image.name.replace(".nii.gz", ".json"))
        about = _json(sidecar)
        if about is None:
            continue
        missing: dict[str, str] = {}
        if space in heads and heads[space] and "SpatialReference" not in about:
            session = [path for path in heads[space] if path.parts[:-2] == image.parts[:-2]]
            head = (session or heads[space])[0]
            missing["SpatialReference"] = f"bids::{head.relative_to(made).as_posix()}"
        if "res" in entities and "Resolution" not in about:
            missing |= _resolution(image)
        if missing:
            write_json(sidecar, {**about, **missing})


def _resolution(image: Path) -> dict[str, str]:
    try:
        sizes = metadata.read_header(image).get_zooms()[:3]
    except DataError:  # reported by the step that reads it
        return {}
    return {"Resolution": " x ".join(f"{mm:.6g}" for mm in sizes) + " mm"}


def _json(path: Path) -> dict[str, Any] | None:
    """A sidecar, empty where there is none; None of what is no JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
