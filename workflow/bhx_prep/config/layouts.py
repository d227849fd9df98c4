"""Known data sets: what holds of each of them wherever its files are. Plain values.

How the files of those are found whose names are their own is in `bhx_prep.ingest.layouts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: What tables write for unknown, whatever the data set.
UNKNOWN: Final = ("", "n/a", "N/A", "NA", "NaN", "nan")


@dataclass(frozen=True)
class KnownDataset:
    """What is known of a data set.

    Attributes
    ----------
    title : str
        Its name in a sentence.
    documented : tuple of str
        Where its files and tables are described.
    terms : str
        Licence or data use agreement, for the model card.
    inputs : mapping of str to mapping
        Values of `input` that it can have, and what the keys of the cohort's section are then, where the user does not
        say otherwise.
    missing : tuple of str
        Values of its tables that mean unknown.
    id_columns : tuple of str
        Names of the column of ids in its tables, the first that is there counts.
    second_header : bool
        Whether the second line of its tables describes the columns, as in tables of the NIMH Data Archive.
    """

    title: str
    documented: tuple[str, ...]
    terms: str
    inputs: Mapping[str, Mapping[str, Any]]
    missing: tuple[str, ...] = UNKNOWN
    id_columns: tuple[str, ...] = ("participant_id",)
    second_header: bool = field(default=False)


_UKB = KnownDataset(
    title="UK Biobank",
    documented=(
        "https://biobank.ndph.ox.ac.uk/showcase/field.cgi?id=20227",
        "https://biobank.ndph.ox.ac.uk/showcase/field.cgi?id=20252",
        "https://biobank.ndph.ox.ac.uk/crystal/crystal/docs/brain_mri.pdf",
    ),
    terms="UK Biobank Material Transfer Agreement: an approved project; results, not data, may leave it",
    inputs={
        "fmriprep": {"space": "MNI152NLin6Asym", "strategy": "none"},
        "timeseries": {"tr_s": 0.735, "series": "*Schaefer17n400p.csv.gz"},
    },
    missing=(*UNKNOWN, "-1", "-3", "-121", "-818"),
    id_columns=("eid", "participant.eid", "f.eid", "participant_id"),
)
_ABCD = KnownDataset(
    title="ABCD",
    documented=(
        "https://collection3165.readthedocs.io",
        "https://nda.nih.gov/edit_collection.html?id=3165",
        "https://wiki.abcdstudy.org",
    ),
    terms="ABCD Study data use certification of the NIH Brain Development Cohorts Data Hub (earlier: NDA)",
    inputs={
        "bids": {},
        "fmriprep": {"space": "fsLR"},
        "timeseries": {},
    },
    missing=(*UNKNOWN, "555", "777", "888", "999"),
    id_columns=("participant_id", "src_subject_id", "subjectkey"),
    second_header=True,
)
_HCPYA = KnownDataset(
    title="HCP Young Adult",
    documented=("https://www.humanconnectome.org/study/hcp-young-adult/document/1200-subjects-data-release",),
    terms="WU-Minn HCP Consortium Open Access Data Use Terms; Restricted Data Use Terms for restricted columns",
    inputs={"fmriprep": {"space": "fsLR", "strategy": "none"}},
    id_columns=("Subject", "participant_id"),
)
_HCPA = KnownDataset(
    title="HCP-Aging",
    documented=("https://www.humanconnectome.org/study/hcp-lifespan-aging/documentation",),
    terms="Lifespan HCP data use certification of the NIMH Data Archive",
    inputs={"fmriprep": {"space": "fsLR", "strategy": "none"}},
    missing=(*UNKNOWN, "-999", "-9999"),
    id_columns=("src_subject_id", "subjectkey", "participant_id"),
    second_header=True,
)
_ADNI = KnownDataset(
    title="ADNI",
    documented=(
        "https://aramislab.paris.inria.fr/clinica/docs/public/latest/Converters/ADNI2BIDS/",
        "https://adni.loni.usc.edu/data-samples/adni-data/",
    ),
    terms="ADNI Data Use Agreement",
    inputs={"bids": {}, "fmriprep": {}, "timeseries": {}},
    missing=(*UNKNOWN, "-4", "-1"),
    id_columns=("participant_id", "PTID", "RID"),
)
_PPMI = KnownDataset(
    title="PPMI",
    documented=("https://www.ppmi-info.org/access-data-specimens/data",),
    terms="PPMI Data Use Agreement",
    inputs={"bids": {}, "fmriprep": {}, "timeseries": {}},
    missing=(*UNKNOWN, ".", "UR"),
    id_columns=("participant_id", "PATNO"),
)
_INDI = "https://fcon_1000.projects.nitrc.org/indi"


def _indi(
    title: str, page: str, missing: tuple[str, ...], ids: tuple[str, ...], series: str = ""
) -> KnownDataset:
    """A data set of the International Neuroimaging Data-sharing Initiative."""
    return KnownDataset(
        title=title,
        documented=(f"{_INDI}/{page}",),
        terms="CC BY-NC-SA 3.0; registration with NITRC and INDI",
        inputs={"bids": {}, "fmriprep": {}, "timeseries": {"series": series} if series else {}},
        missing=missing,
        id_columns=ids,
    )


#: By the cohort's key `layout`.
KNOWN: Final[Mapping[str, KnownDataset]] = {
    "ukb": _UKB,
    "abcd": _ABCD,
    "hcpya": _HCPYA,
    "hcpa": _HCPA,
    "abide1": _indi(
        "ABIDE I",
        "abide/abide_I.html",
        (*UNKNOWN, "-9999", "-9999.0", "-999"),
        ("participant_id", "SUB_ID"),
        "**/*_rois_*.1D*",
    ),
    "abide2": _indi(
        "ABIDE II",
        "abide/abide_II.html",
        (*UNKNOWN, "-9999", "-9999.0", "-999"),
        ("participant_id", "SUB_ID"),
    ),
    "adhd200": _indi(
        "ADHD-200",
        "adhd200/",
        (*UNKNOWN, "-999", "-999.0", "L", "withheld", "pending"),
        ("participant_id", "ScanDir ID", "ScanDirID"),
        "**/*_TCs.1D*",
    ),
    "adni": _ADNI,
    "ppmi": _PPMI,
}
