"""Methods text on preprocessing, from status files, sidecars and fMRIPrep's own texts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bhx_prep.boilerplate.references import read_entries
from bhx_prep.boilerplate.wording import count, several, share
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.preproc.dataset_description import made_by, stated

#: Steps of the embedded workflow, in their order, by the names of its nodes; of a step without words nothing is said.
EMBEDDED_STEPS: Final = {
    "check": "",
    "bias": "T1-weighted images were brought to RAS and corrected for uneven brightness with N4 [@n4].",
    "mask": "The brain was found by deepbet [@deepbet].",
    "normalize": "Brains were registered to that of the template MNI152NLin2009cAsym [@mni152nlin2009casym] by an affine "
    "transform and symmetric normalisation (SyN) [@ants].",
    "segment": "Grey matter, white matter and cerebrospinal fluid were segmented with Atropos [@atropos].",
    "surfaces": "White and pial surfaces, thickness and a spherical registration to fsLR were made with the surface "
    "tools of CAT12 [@dahnke2013; @cat12].",
    "savesurfaces": "",
    "prepare": "",
    "dummies": "Frames at the start of a BOLD run that had not reached a steady state were detected with nipype.",
    "slicetiming": "",  # by the sidecars: it depends on the run
    "distortion": "",
    "realign": "Head motion was estimated by rigid registration (least squares) of every frame to the frame that "
    "correlates best with the others.",
    "coregister": "The BOLD reference was registered rigidly to the brain of the T1-weighted image, by mutual "
    "information with ANTs.",
    "quality": "Scans were excluded where correlation, Dice and overlap of mask, normalisation and coregistration missed "
    "their limits.",
    "resample": "Motion, coregistration and normalisation were applied to every frame in one interpolation.",
    "sample": "Runs were sampled onto the fsLR surface with 32k vertices.",
    "measure": "Confounds were measured: the six motion parameters, framewise displacement and DVARS [@power_fd_dvars], "
    "global, white-matter and cerebrospinal-fluid signals, and components of aCompCor [@compcor].",
    "pictures": "",
    "save": "",
}  # fmt: skip

#: How distortion was corrected, by what sidecars say of it.
DISTORTION: Final = {
    "phasediff": "a difference of phases",
    "phases": "two phases",
    "fieldmap": "a measured field",
    "epi": "images of opposite phase-encoding directions",
}

_LONGEST: Final = 200_000  # of a text of fMRIPrep's, characters


def paragraphs(cohort: CohortSection, folder: Path) -> Iterator[str]:
    """What was done before the features of a cohort, in paragraphs; nothing where nothing has run.

    Parameters
    ----------
    cohort : CohortSection
    folder : Path
        The cohort's, in the results.
    """
    if cohort.input == "timeseries":
        yield "Series of regions of interest were given as tables; what was done before is not known to BHX."
    elif cohort.input == "fmriprep":
        yield from _given(cohort.root)
    else:
        preproc = folder / "preproc"
        statuses = [found for path in sorted(preproc.glob("sub-*_status.json")) if (found := _json(path))]
        ended_well = [status for status in statuses if status.get("status") == "ok"]
        embedded = [status for status in ended_well if "nipype" in status.get("versions", {})]
        if embedded:
            yield _embedded(embedded, len(statuses), preproc)
        if len(embedded) < len(ended_well):
            yield from _fmriprep(preproc, len(ended_well) - len(embedded), len(statuses))


def bibliography(cohort: CohortSection, folder: Path) -> dict[str, str]:
    """BibTeX entries that fMRIPrep wrote with its own texts."""
    logs = (folder / "preproc" if cohort.input == "bids" else cohort.root) / "logs"
    return read_entries(sorted(logs.glob("*CITATION.bib"))) if cohort.input != "timeseries" else {}


def _embedded(statuses: Sequence[dict[str, Any]], n: int, preproc: Path) -> str:
    versions = {
        name: several(sorted({status["versions"][name] for status in statuses if name in status["versions"]}))
        for name in ("bhx", "nipype", "antspyx")
    }
    ran = {step for status in statuses for step in status.get("stages", {})}
    said = [
        f"Raw data were organised in BIDS [@bids]. {share(len(statuses), n, 'subject').capitalize()} went through the "
        f"embedded preprocessing of BHX {versions['bhx']}, which is no substitute for fMRIPrep: a workflow of nipype "
        f"{versions['nipype']} [@nipype1] on ANTs (antspyx {versions['antspyx']}) [@antsx]."
    ]
    said += [text for step, text in EMBEDDED_STEPS.items() if step in ran and text]
    said += _by_run(preproc)
    if unknown := sorted(ran - set(EMBEDDED_STEPS)):
        said.append(f"Further steps: {several(unknown)}.")
    return " ".join(said)


def _by_run(preproc: Path) -> Iterator[str]:
    """What was done to some runs only, by their sidecars."""
    sidecars = [
        found
        for path in preproc.glob("sub-*/**/*_desc-preproc_bold.json")
        if (found := _json(path)) and "SliceTimingCorrected" in found
    ]
    if not sidecars:
        return
    corrected = sum(found["SliceTimingCorrected"] is True for found in sidecars)
    if corrected:
        yield f"Slice timing was corrected in {share(corrected, len(sidecars), 'run')}."
    else:
        yield "Slice timing was not corrected."
    methods = Counter(
        str(found["DistortionCorrection"]) for found in sidecars if found.get("DistortionCorrection")
    )
    methods.pop("none", None)
    for method, n in sorted(methods.items()):
        by = DISTORTION.get(method, method)
        yield f"Susceptibility distortion was corrected in {share(n, len(sidecars), 'run')} by {by}."
    if not methods:
        yield "Susceptibility distortion was not corrected."


def _fmriprep(preproc: Path, n_ok: int, n: int) -> Iterator[str]:
    made = next((one for one in made_by(stated(preproc)) if one["Name"] == "fMRIPrep"), {})
    image = made.get("Container") or {}
    named = several(filter(None, (image.get("Tag") or image.get("URI"), image.get("Digest"))))
    yield (
        f"Raw data were organised in BIDS [@bids]. {share(n_ok, n, 'subject').capitalize()} were preprocessed with fMRIPrep"
        f"{_number(made)} [@fmriprep1]{f' (container {named})' if named else ''}."
    )
    yield from _their_words(sorted((preproc / "logs").glob("sub-*_CITATION.md")))


def _given(root: Path) -> Iterator[str]:
    """Sentences on derivatives of other pipelines, from their own description."""
    made = made_by(stated(root))
    if not made:
        yield "Derivatives were made by another pipeline, which their dataset_description.json does not name."
        return
    names = several(f"{one['Name']}{_number(one)}" for one in made)
    is_fmriprep = any(one["Name"] == "fMRIPrep" for one in made)
    yield f"Derivatives were made by another pipeline, with {names}{' [@fmriprep1]' if is_fmriprep else ''}."
    if is_fmriprep:
        logs = root / "logs"
        yield from _their_words(sorted(logs.glob("sub-*_CITATION.md")) or sorted(logs.glob("CITATION.md")))


def _number(made: dict[str, Any]) -> str:
    return f" {made['Version']}" if made.get("Version") else ""


def _their_words(files: Sequence[Path]) -> Iterator[str]:
    """What fMRIPrep says of its own steps: each text once, with the number of subjects that it is about."""
    texts = Counter(_body(path.read_text(encoding="utf-8", errors="replace")[:_LONGEST]) for path in files)
    for text, n in texts.most_common():
        about = f"Of {count(n, 'subject')} fMRIPrep says:" if len(texts) > 1 else "fMRIPrep says:"
        yield about + "\n\n" + "\n".join(f"> {line}".rstrip() for line in text.splitlines())
    if not files:
        yield "Its own description of the steps, `logs/CITATION.md`, is not among the derivatives."


def _body(text: str) -> str:
    """A text of fMRIPrep's without its headings and without its request to copy it."""
    text = re.split(r"\n#+ (?:Copyright Waiver|References)\b", text)[0]
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join(line for line in lines if not re.match(r"#+ |<!--", line)).strip()


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
