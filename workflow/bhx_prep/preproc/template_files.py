"""TemplateFlow's files that fMRIPrep opens: which ones a study needs, which are missing, and where to get them.

What is needed was read off fMRIPrep 25.2, smriprep 0.19 and niworkflows 1.14; `tests/containers` builds fMRIPrep's own
workflow, without a network, on exactly these files.
"""

from __future__ import annotations

import importlib.util
import logging
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from bhx_model.errors import SiteError
from bhx_prep.config.fmriprep_arguments import given_words, parse
from bhx_prep.config.fmriprep_options import OWN_SPACES
from bhx_prep.config.preproc import output_spaces
from bhx_prep.ingest.choice import T1W_MM
from bhx_prep.io import bids_names
from bhx_prep.io.download import Downloads, RemoteFile
from bhx_prep.io.spaces import MNI152

logger = logging.getLogger(__name__)

#: Where TemplateFlow's files are; their paths below it are those in its home.
ADDRESS: Final = "https://templateflow.s3.amazonaws.com"
#: Entities that, where a file has them and nobody asked for them, make it another file.
_DISTINCT: Final = ("desc", "label", "atlas", "seg", "cohort", "space", "hemi", "den", "res", "from", "scale")
#: Standard spaces whose surfaces come from FreeSurfer.
_FREESURFERS: Final = ("fsaverage", "fsaverage3", "fsaverage4", "fsaverage5", "fsaverage6", "fsnative")
#: Density of fsLR, resolution of the volume's labels and of its normalisation, of grayordinates.
_GRAYORDINATES: Final = {"91k": ("32k", "2", "2"), "170k": ("59k", "6", "1")}


def needed(preproc: Mapping[str, Any]) -> list[str]:
    """Paths below TemplateFlow's home of the files that fMRIPrep opens.

    Parameters
    ----------
    preproc : mapping
        Section `preproc` of the configuration, with its output spaces.

    Returns
    -------
    list of str
        As ``tpl-MNI152NLin2009cAsym/tpl-MNI152NLin2009cAsym_res-01_T1w.nii.gz``, sorted.

    Raises
    ------
    SiteError
        If the package `templateflow`, which knows the names, is not installed.
    """
    given = {option.name: option.values for option in parse(given_words(preproc))}
    skull_strip = (given.get("--skull-strip-template") or ["OASIS30ANTs"])[-1]
    spaces = [*(preproc["output_spaces"] or output_spaces(MNI152[0], T1W_MM)), MNI152[0]]
    wanted = list(_of_skull_stripping(skull_strip))
    if "--cifti-output" in given:
        density, labels, resolution = _GRAYORDINATES[(given["--cifti-output"] or ["91k"])[-1]]
        spaces.append(f"MNI152NLin6Asym:res-{resolution}")
        wanted.append(("MNI152NLin6Asym", "dseg", {"atlas": "HCP", "res": labels}))
        for hemi in "LR":
            wanted.append(("fsLR", "dparc", {"hemi": hemi, "den": density, "desc": "nomedialwall"}))
            wanted.append(("fsLR", "sphere", {"hemi": hemi, "den": density}))
    if "--fs-no-reconall" not in given:
        wanted.append(("fsaverage", "dseg", {"seg": "aparc"}))
    for space in spaces:
        wanted += _of_space(space)
    if "--anat-only" not in given:
        wanted += [
            (MNI152[0], "dseg", {"res": "1", "desc": "carpet"}),
            (MNI152[0], "boldref", {"res": "2", "desc": "fMRIPrep"}),
            (MNI152[0], "mask", {"res": "2", "desc": "brain"}),
            (MNI152[0], "probseg", {"res": "1", "label": "brain"}),
        ]
    return sorted(
        {path for template, suffix, entities in wanted for path in _find(template, suffix, entities)}
    )


def missing(home: Path, preproc: Mapping[str, Any]) -> list[str]:
    """The needed files that a home lacks, or has without their content.

    Parameters
    ----------
    home : Path
        TemplateFlow's home.
    preproc : mapping
        Section `preproc` of the configuration, with its output spaces.
    """
    return without_content(home, needed(preproc))


def without_content(home: Path, names: Iterable[str]) -> list[str]:
    """Those of some files that a home lacks, or has as names alone."""
    return [name for name in names if not _has_content(home / name)]


def fetch(home: Path, names: Sequence[str], address: str = ADDRESS, jobs: int = 4) -> list[str]:
    """Fill TemplateFlow's home: the names of all its files, and the content of some.

    Parameters
    ----------
    home : Path
        Made where it is absent.
    names : sequence of str
        Paths below it.
    address : str
        Where they are.
    jobs : int
        Downloads at a time.

    Returns
    -------
    list of str
        Why files could not be had, a sentence each.

    Raises
    ------
    SiteError
        If the server cannot be reached, or the disk is full.
    """
    home.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(_skeleton()) as skeleton:  # without it TemplateFlow knows no file
        for entry in skeleton.infolist():
            if not (home / entry.filename).exists():
                skeleton.extract(entry, home)
    files = []
    for name in names:
        if not _has_content(home / name):
            (home / name).unlink(missing_ok=True)  # a name without content
            files.append(RemoteFile(f"{address.rstrip('/')}/{name}", home / name))
    try:
        summary = Downloads().run(files, jobs)
    finally:
        for file in files:  # TemplateFlow has to know the names of those that failed
            file.path.touch(exist_ok=True)
    return [f"{file.url}: {reason}" for file, reason in summary.failed]


def _of_skull_stripping(template: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    name, modifiers = _taken_apart(template)
    entities = {"res": "1", **modifiers}
    yield name, "T1w", entities
    yield name, "probseg|mask", {**entities, "label|desc": "brain"}
    yield name, "mask", {**entities, "desc": "BrainCerebellumExtraction"}
    for label in ("WM", "BS"):
        yield name, "probseg", {**entities, "label": label}


def _of_space(space: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """What normalisation to a space and the grids of its outputs need."""
    name, modifiers = _taken_apart(space)
    if name in OWN_SPACES or name in _FREESURFERS:
        return
    if name in ("fsLR", "onavg") or "den" in modifiers:
        for hemi in "LR":
            yield name, "sphere", {"hemi": hemi, "den": "32k", **modifiers}
        return
    for resolution in {"1", modifiers.get("res", "1")}:  # the finest is normalised to
        entities = {**modifiers, "res": resolution}
        yield name, "T1w", entities
        yield name, "T2w", entities  # not every template has one
        yield name, "mask", {**entities, "desc|label": "brain"}


def _taken_apart(space: str) -> tuple[str, dict[str, str]]:
    name, *modifiers = space.rstrip(":").split(":")
    pairs = {e: v.lstrip("0") or "0" for e, _, v in (m.partition("-") for m in modifiers) if v != "native"}
    return name, {{"resolution": "res", "density": "den"}.get(e, e): v for e, v in pairs.items()}


def _find(template: str, suffix: str, entities: Mapping[str, str]) -> list[str]:
    """Paths of the requested files of TemplateFlow; of alternatives (``|``) the first that exists."""
    names = _names().get(template, ())
    resolutions = {r for _, _, has in names if (r := has.get("res"))}
    if entities.get("res") not in {None, *resolutions}:  # as fMRIPrep falls back
        entities = {**entities, "res": min(resolutions, default="")}
    for kind, entity in _alternatives(suffix, entities):
        wanted = {**dict.fromkeys(_DISTINCT, ""), **entity}
        found = [
            p for p, s, has in names if s == kind and all(has.get(e, "") == v for e, v in wanted.items())
        ]
        if found:
            return found
    return []


def _alternatives(suffix: str, entities: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    suffixes = suffix.split("|")
    either = next((name for name in entities if "|" in name), None)
    names = either.split("|") if either else [""]
    plain = {name: value for name, value in entities.items() if name != either and value}
    for i, name in enumerate(names):
        yield suffixes[min(i, len(suffixes) - 1)], {**plain, **({name: entities[either]} if either else {})}


@cache
def _names() -> dict[str, list[tuple[str, str, dict[str, str]]]]:
    """Path, suffix and entities of every image and surface of TemplateFlow, by template."""
    found: dict[str, list[tuple[str, str, dict[str, str]]]] = {}
    with zipfile.ZipFile(_skeleton()) as skeleton:
        paths = skeleton.namelist()
    for path in _files(paths):
        name = path.rpartition("/")[2]
        entities = bids_names.parse(name)
        entities |= {"res": entities["res"].lstrip("0") or "0"} if "res" in entities else {}
        found.setdefault(entities.pop("tpl"), []).append((path, bids_names.suffix(name), entities))
    return found


def _files(paths: Iterable[str]) -> Iterator[str]:
    endings = (".nii.gz", ".surf.gii", ".label.gii", "_seg-aparc_dseg.tsv")
    return (path for path in paths if path.rpartition("/")[2].startswith("tpl-") and path.endswith(endings))


def _skeleton() -> Path:
    """The archive with the names of all files that comes with TemplateFlow; importing that would write to its home."""
    found = importlib.util.find_spec("templateflow")
    if found is None or found.origin is None:
        msg = "the package templateflow is not installed: pip install 'bhx[prep]'"
        raise SiteError(msg)
    return Path(found.origin).parent / "conf" / "templateflow-skel.zip"


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
