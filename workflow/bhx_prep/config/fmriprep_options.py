"""fMRIPrep's command-line options, their values, and its output spaces.

Facts read off the parser of the release below and the templates of TemplateFlow 25; `tests` compares them with that parser
wherever it is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

#: Release whose options these are: its year and its number within the year.
RELEASE: Final = "25.2"

Takes = Literal["nothing", "one", "one at most", "one or more", "any"]
Kind = Literal[
    "text",
    "integer",
    "count",
    "positive",
    "number",
    "fraction",
    "session",
    "task",
    "memory",
    "readout",
    "file",
    "folder",
    "named folders",
]


@dataclass(frozen=True)
class Option:
    """An option of fMRIPrep.

    Attributes
    ----------
    names : tuple of str
        All that mean it; BHX writes the first.
    takes : {"nothing", "one", "one at most", "one or more", "any"}
        Values; any of an option that is not known.
    choices : tuple of str
        Allowed values, where not every one is.
    kind : str
        What a value is; paths are bound into the container.
    """

    names: tuple[str, ...]
    takes: Takes = "nothing"
    choices: tuple[str, ...] = ()
    kind: Kind = "text"


OPTIONS: Final = (
    Option(("--help", "-h")),
    Option(("--version",)),
    Option(("--skip-bids-validation", "--skip_bids_validation")),
    Option(("--participant-label", "--participant_label"), "one or more"),
    Option(("--session-label",), "one or more", kind="session"),
    Option(("--task-id", "-t"), "one", kind="task"),
    Option(("--echo-idx",), "one", kind="positive"),
    Option(("--subject-anatomical-reference",), "one", ("first-lex", "unbiased", "sessionwise")),
    Option(("--track-sessions",)),
    Option(("--no-track-sessions",)),
    Option(("--bids-filter-file",), "one", kind="file"),
    Option(("--derivatives", "-d"), "one or more", kind="named folders"),
    Option(("--bids-database-dir",), "one", kind="folder"),
    Option(("--nthreads", "--nprocs", "--n_cpus", "--n-cpus"), "one", kind="positive"),
    Option(("--omp-nthreads",), "one", kind="positive"),
    Option(("--mem-mb", "--mem", "--mem_mb"), "one", kind="memory"),
    Option(("--low-mem",)),
    Option(("--use-plugin", "--nipype-plugin-file"), "one", kind="file"),
    Option(("--sloppy",)),
    Option(("--anat-only",)),
    Option(("--level",), "one", ("minimal", "resampling", "full")),
    Option(("--boilerplate-only", "--boilerplate_only")),
    Option(("--reports-only",)),
    Option(
        ("--ignore",), "one or more", ("fieldmaps", "slicetiming", "sbref", "t2w", "flair", "fmap-jacobian")
    ),
    Option(("--force",), "one or more", ("bbr", "no-bbr", "syn-sdc", "fmap-jacobian")),
    Option(("--output-spaces",), "one or more"),
    Option(("--bold2anat-init",), "one", ("auto", "t1w", "t2w", "header")),
    Option(("--bold2anat-dof",), "one", ("6", "9", "12")),
    Option(("--slice-time-ref",), "one", kind="fraction"),
    Option(("--dummy-scans",), "one", kind="count"),
    Option(("--fallback-total-readout-time",), "one", kind="readout"),
    Option(("--random-seed",), "one", kind="integer"),
    Option(("--me-t2s-fit-method",), "one", ("curvefit", "loglin")),
    Option(("--output-layout",), "one", ("bids", "legacy")),
    Option(("--me-output-echos",)),
    Option(("--aggregate-session-reports",), "one", kind="positive"),
    Option(("--medial-surface-nan",)),
    Option(("--project-goodvoxels",)),
    Option(("--md-only-boilerplate",)),
    Option(("--cifti-output",), "one at most", ("91k", "170k")),
    Option(("--msm",)),
    Option(("--no-msm",)),
    Option(("--return-all-components",)),
    Option(("--fd-spike-threshold",), "one", kind="number"),
    Option(("--dvars-spike-threshold",), "one", kind="number"),
    Option(("--skull-strip-template",), "one"),
    Option(("--skull-strip-fixed-seed",)),
    Option(("--skull-strip-t1w",), "one", ("auto", "skip", "force")),
    Option(("--fmap-bspline",)),
    Option(("--fmap-no-demean",)),
    Option(("--use-syn-sdc",), "one at most", ("warn", "error")),
    Option(("--fs-license-file",), "one", kind="file"),
    Option(("--fs-subjects-dir",), "one", kind="folder"),
    Option(("--submm-recon",)),
    Option(("--no-submm-recon",)),
    Option(("--fs-no-reconall",)),
    Option(("--fs-no-resume",)),
    Option(("--track-carbon",)),
    Option(("--country-code",), "one"),
    Option(("--verbose", "-v")),
    Option(("--work-dir", "-w"), "one", kind="folder"),
    Option(("--clean-workdir",)),
    Option(("--resource-monitor",)),
    Option(("--config-file",), "one", kind="file"),
    Option(("--write-graph",)),
    Option(("--stop-on-first-crash",)),
    Option(("--notrack",)),
    Option(
        ("--debug",), "one or more", ("compcor", "fieldmaps")
    ),  # pdb, and all with it, waits for somebody who types
)

#: Options of earlier releases, of other programs, or never there, with what to write in their place.
REPLACED: Final = {
    "--use-aroma": "fMRIPrep has none since 23.1: run fMRIPost-AROMA on its output",
    "--aroma-melodic-dimensionality": "fMRIPrep has no AROMA since 23.1: run fMRIPost-AROMA on its output",
    "--error-on-aroma-warnings": "fMRIPrep has no AROMA since 23.1: run fMRIPost-AROMA on its output",
    "--session-id": "write `--session-label`",
    "--ses": "write `--session-label`",
    "--task": "write `--task-id`, or name the cohort's `tasks`",
    "--longitudinal": "write `--subject-anatomical-reference unbiased`",
    "--force-bbr": "write `--force bbr`",
    "--force-no-bbr": "write `--force no-bbr`",
    "--force-syn": "write `--force syn-sdc`",
    "--bold2t1w-init": "write `--bold2anat-init`",
    "--bold2t1w-dof": "write `--bold2anat-dof`",
    "--anat-derivatives": "write `--derivatives`",
    "--no-freesurfer": "write `--fs-no-reconall`",
    "--output-space": "name them in preproc.output_spaces",
    "--template": "name it in preproc.output_spaces",
    "--template-resampling-grid": "name it in preproc.output_spaces, as MNI152NLin2009cAsym:res-2",
}

#: Options that are not the user's to give, with what decides in their place.
OURS: Final = {
    "--participant-label": "each job has one subject: name the cohort's `subjects`",
    "--output-spaces": "name them in preproc.output_spaces",
    "--work-dir": "it is below TMPDIR (`tmpdir` in the profile)",
    "--nthreads": "set `threads` of run_fmriprep (set-threads in the profile)",
    "--mem-mb": "set `mem_mb` of run_fmriprep (set-resources in the profile)",
    "--output-layout": "its folders are read as `bids` has them",
    "--help": "it makes no images",
    "--version": "it makes no images",
    "--reports-only": "it makes no images",
    "--boilerplate-only": "it makes no images",
}


@dataclass(frozen=True)
class Template:
    """A standard space: resolutions that its T1w has, densities of its surfaces, and its age groups."""

    resolutions: tuple[str, ...] = ()
    densities: tuple[str, ...] = ()
    cohorts: tuple[str, ...] = ()


def _to(last: int, first: int = 1) -> tuple[str, ...]:
    return tuple(str(number) for number in range(first, last + 1))


TEMPLATES: Final = {
    **dict.fromkeys(
        ("Fischer344", "MNI305", "MNIColin27", "MouseIn", "SUIT", "VALiDATe29", "WHS"), Template()
    ),
    **dict.fromkeys(("MNI152NLin2009aAsym", "MNI152NLin2009aSym", "MNI152NLin2009bAsym"), Template(("1",))),
    **dict.fromkeys(("MNI152NLin2009bSym", "MNI152NLin2009cSym"), Template(("1",))),
    **dict.fromkeys(("MNI152NLin6Sym", "NKI", "OASIS30ANTs", "PNC"), Template(("1",))),
    **dict.fromkeys(("MNI152Lin", "MNI152NLin2009cAsym", "NMT31Sym"), Template(("1", "2"))),
    "MNI152NLin6Asym": Template(_to(5)),
    "MNIInfant": Template(("1", "2"), cohorts=_to(11)),
    "MNIPediatricAsym": Template(("1", "2"), cohorts=_to(6)),
    "RESILIENT": Template(cohorts=_to(4)),
    "UNCInfant": Template(cohorts=_to(3)),
    "dhcpAsym": Template(densities=("32k", "41k"), cohorts=_to(44, 36)),
    "dhcpSym": Template(densities=("32k",), cohorts=_to(44, 28)),
    "dhcpVol": Template(cohorts=_to(44, 36)),
    "fsLR": Template(densities=("32k", "59k", "164k")),
    "fsaverage": Template(("1",), ("3k", "10k", "41k", "164k")),
    **dict.fromkeys(("fsaverage3", "fsaverage4", "fsaverage5", "fsaverage6"), Template()),
    "onavg": Template(densities=("10k", "41k", "164k", "655k")),
}

#: Spaces of the subject's own, which take no resolution.
OWN_SPACES: Final = (
    "T1w", "T2w", "anat", "fsnative", "func", "run", "sbref", "session", "individual", "dwi", "asl", "petref",
)  # fmt: skip
