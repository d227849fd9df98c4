"""Section `preproc`: from raw BIDS to derivatives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from bhx_model import home_folder
from bhx_model.errors import ConfigError
from bhx_prep.config.fmriprep_arguments import KEYS, parse
from bhx_prep.config.fmriprep_options import TEMPLATES
from bhx_prep.config.section import Section, UserPath, path_mistake
from bhx_prep.io.spaces import SURFACES, t1w_spaces

#: From this voxel size (mm) of the model's T1 grid on a T1w of 2 mm is fine enough.
COARSE_MM: Final = 1.95


def is_image_file(image: str) -> bool:
    """Whether an image is the path of a file, of Apptainer; else it is a name at a registry, or a URL."""
    return image.endswith((".sif", ".simg")) and "://" not in image


def _image(text: str) -> str:
    """The name of an image, or its path with the home folder in place of `~`."""
    if not is_image_file(text):
        return text
    if (mistake := path_mistake(text)) is not None:
        raise ConfigError(mistake)
    return str(home_folder.expanded(text))


class PreprocSection(Section):
    """From raw BIDS to derivatives (`input: bids` only), one job per subject."""

    backend: Literal["embedded", "fmriprep-docker", "fmriprep-apptainer"] = Field(
        default="embedded",
        description="`embedded`: a short nipype workflow on ANTs, which needs no container and does not replace fMRIPrep; "
        "`fmriprep-docker` and `fmriprep-apptainer`: fMRIPrep itself.",
    )
    image: Annotated[str, AfterValidator(_image)] = Field(
        default="nipreps/fmriprep:25.2.7", description="fMRIPrep's container; pin it by digest for a study."
    )
    fs_license: UserPath | None = Field(
        default=None, description="Your FreeSurfer licence file, which fMRIPrep requires."
    )
    output_spaces: tuple[str, ...] | None = Field(
        default=None,
        description="fMRIPrep's `--output-spaces`; when null, the cohort's `space` at 2 mm for BOLD, and a T1w of "
        "`features.t1w_resolution_mm`: a space without `res-` makes a T1w of 1 mm, and BOLD of the voxel size "
        "of the acquisition.",
    )
    fs_subjects_dir: UserPath | None = Field(
        default=None,
        description="Folder with finished FreeSurfer subjects (`sub-<label>`, by session `sub-<label>_ses-<label>`), which "
        "fMRIPrep uses and adds to; when null, it makes its own.",
    )
    cifti_output: Literal["91k", "170k"] | None = Field(
        default=None,
        description="Grayordinates of fMRIPrep: BOLD on fsLR and in the subcortex; when null, none.",
    )
    subject_anatomical_reference: Literal["first-lex", "unbiased", "sessionwise"] | None = Field(
        default=None,
        description="What the T1w images of several sessions become: the space of the first (`first-lex`, also when null), "
        "their longitudinal average (`unbiased`), or one space per session (`sessionwise`).",
    )
    level: Literal["minimal", "resampling", "full"] | None = Field(
        default=None,
        description="How much fMRIPrep writes. A study needs `full`, which null means too; the other "
        "levels are for `bhx preproc run`.",
    )
    fmriprep_args: tuple[str, ...] = Field(
        default=(),
        description="More arguments for fMRIPrep. They are checked against its options, and the paths among them are bound "
        "into the container.",
    )
    templateflow_home: UserPath | None = Field(
        default=None, description="A filled TemplateFlow folder, so that jobs need no network."
    )
    on_failure: Literal["exclude", "stop"] = Field(
        default="exclude",
        description="If the preprocessing of a subject fails: `exclude` it with the reason, or `stop` the run.",
    )
    embedded_resolution_mm: float | None = Field(
        default=None,
        ge=1,
        le=4,
        description="Grid (mm) of the embedded workflow's T1w in standard space, and the finest of its BOLD; "
        "`features.t1w_resolution_mm`, between 1 and 4, when null.",
    )

    surfaces: Literal["none", "cat-surf"] = Field(
        default="none",
        description="Surfaces of the cortex by the embedded workflow, and BOLD on fsLR-32k: `cat-surf` is "
        "a package that you install (GPL-2.0-or-later), and takes some minutes per subject. fMRIPrep makes "
        "its own surfaces.",
    )

    def for_jobs(self) -> dict[str, Any]:
        """What jobs are given: keys that were not set, or that the backend does not read, run nothing again."""
        unread = ("surfaces",) if self.backend != "embedded" else ()
        values = self.model_dump(mode="json")
        return {k: v for k, v in values.items() if k not in unread and (v is not None or k not in KEYS)}

    def of(self, space: str, t1w_mm: float) -> PreprocSection:
        """The section with what follows from a cohort's `space` and from the model's T1 grid (mm) filled in."""
        given = self.embedded_resolution_mm
        return self.model_copy(
            update={
                "output_spaces": self.output_spaces or output_spaces(space, t1w_mm),
                "embedded_resolution_mm": min(max(t1w_mm, 1.0), 4.0) if given is None else given,
            }
        )


def output_spaces(space: str, t1w_mm: float) -> tuple[str, ...]:
    """FMRIPrep's `--output-spaces` that make BOLD in a space, and T1w for the model's grid.

    A space with `res-1` would do too, but makes BOLD of 1 mm: 17 GB for a run of 490 frames.

    Parameters
    ----------
    space : str
        Of the cohort.
    t1w_mm : float
        Voxel size (mm) of the model's T1 grid.
    """
    t1w = t1w_spaces(space)[0]
    t1w = t1w if t1w_mm < COARSE_MM else _at_2_mm(t1w)
    if space == "fsLR":  # `--cifti-output` makes its BOLD
        return (t1w,)
    bold = space if space in SURFACES else _at_2_mm(space)
    return (bold,) if bold == t1w else (bold, t1w)


def _at_2_mm(space: str) -> str:
    """A space at 2 mm; unchanged if TemplateFlow has no such grid of it."""
    template = TEMPLATES.get(space.partition(":")[0])
    return space if template is not None and "2" not in template.resolutions else f"{space}:res-2"


def lacking(spaces: Iterable[str], space: str, t1w_mm: float, arguments: Iterable[str]) -> Iterator[str]:
    """What `--output-spaces` of the user's do not make of what a cohort needs.

    Parameters
    ----------
    spaces : iterable of str
    space, t1w_mm
        As of `output_spaces`.
    arguments : iterable of str
        More arguments of fMRIPrep.
    """
    parts = [text.rstrip(":").split(":") for text in spaces]
    made = [(":".join(p for p in part if not p.startswith(("res-", "den-"))), part) for part in parts]
    given = {one.name for one in parse(list(arguments))}
    if space in SURFACES and "--fs-no-reconall" in given and "--derivatives" not in given:
        yield f"makes no BOLD in {space}: leave out --fs-no-reconall, which makes no surfaces"
    if space == "fsLR":
        if "--cifti-output" not in given:
            yield "makes no BOLD in fsLR: set preproc.cifti_output (`--cifti-output`)"
    elif not any(name == space or (space == "fsaverage5" and name == "fsaverage") for name, _ in made):
        yield f"makes no BOLD in {space}, the cohort's `space`: add {space}"
    fine = t1w_mm < COARSE_MM
    good = {"res-1", "res-01", *(() if fine else ("res-2", "res-02"))}
    t1w = t1w_spaces(space)
    if not any(
        name in t1w and (not fine or not any(m.startswith("res-") and m not in good for m in part))
        for name, part in made
    ):
        yield f"makes no T1w for the model's grid of {t1w_mm:g} mm: add {t1w[0] if fine else f'{t1w[0]}:res-2'}"
