"""Cases of an atlas: its list of names, its label files, and what is asked of it that it does not have."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from input_cases import Seen, case

from bhx_prep.atlas import checks
from bhx_prep.atlas.label_lists import read_label_list
from bhx_prep.atlas.sources.own import from_own_files
from bhx_prep.config import config
from bhx_prep.config.atlas import AtlasSection

NAMES = ("Left-Thalamus", "Area 44", "x")
VOLUME = "tpl-MNI152NLin6Asym_atlas-own_dseg.nii.gz"


def listed(folder: Path, content: bytes, *expected: str) -> Seen:
    """What is read from a list of names."""
    path = folder / "names.txt"
    path.write_bytes(content)
    return Seen("read" if read_label_list(path).names == (expected or NAMES) else "wrong values")


def matched(folder: Path, names: str, values: object, *expected: int, name: str = VOLUME) -> Seen:
    """What becomes of the labels of an image of these values."""
    (folder / "names.txt").write_text(names)
    data = np.asarray(values)
    data = data if data.dtype.kind == "f" else data.astype(np.int32)
    nib.save(nib.Nifti1Image(data.reshape(-1, 1, 1), np.eye(4)), folder / name)
    atlas = from_own_files(
        AtlasSection(source="files", name="own", names=folder / "names.txt", volume=(folder / name,))
    )
    return Seen("read" if atlas.volume()[0].ravel().tolist() == list(expected) else "wrong values")


def asked(folder: Path, **changes: object) -> Seen:
    """What `bhx config check` says of a study on an atlas of names alone."""
    (folder / "names.txt").write_text("\n".join(f"CC_{i}" for i in range(40)))
    study: dict = {
        "cohorts": {"a": {"input": "timeseries", "root": "a"}},
        "atlas": {"source": "files", "name": "CC40", "names": str(folder / "names.txt")},
        "features": {"harmonics": "none"},
        "experiments": {"e": {"cohorts": ["a"], "stages": ["function"]}},
    }
    found = checks.mistakes(config.check(study | changes))
    return Seen("refused", "; ".join(found)) if found else Seen("read")


@case("Atlas", "names with a byte order mark and Windows line ends", "read")
def windows(folder: Path) -> Seen:
    return listed(folder, "\ufeffLeft-Thalamus\r\nArea 44\r\nx\r\n".encode())


@case("Atlas", "names in UTF-16, as Excel's Unicode text", "read")
def utf16(folder: Path) -> Seen:
    return listed(folder, "Left-Thalamus\nArea 44\nx\n".encode("utf-16"))


@case("Atlas", "FreeSurfer's lookup table, not in the order of its numbers", "read")
def lookup(folder: Path) -> Seen:
    return listed(
        folder,
        b"#No. Label R G B A\n0 Unknown 0 0 0 0\n44  x  1 2 3 0\n1 Left-Thalamus 0 1 2 0\n5 Area 44 1 2 3 0\n",
    )


@case("Atlas", "a `dseg.tsv` of BIDS with a background", "read")
def dseg(folder: Path) -> Seen:
    return listed(
        folder, b"index\tname\tcolor\n0\tBackground\tn/a\n3\tx\tn/a\n1\tLeft-Thalamus\tn/a\n2\tArea 44\tn/a\n"
    )


@case("Atlas", "a name that is in the list twice", "refused", "holds a name twice: 'x'")
def twice(folder: Path) -> Seen:
    return listed(folder, b"x\ny\nx\n")


@case("Atlas", "a table of components, networks and tissue (DiFuMo), in unusual columns", "read")
def components(folder: Path) -> Seen:
    return listed(folder, b"Component,Difumo_names,GM\n1,Left-Thalamus,.1\n2,Area 44,.2\n3,x,.3\n")


@case("Atlas", "a table without a column of names", "refused", "has 3 columns and none is called `name`")
def no_names(folder: Path) -> Seen:
    return listed(folder, b"ID,Hem,Area\nA1,L,3\nA2,L,4\n")


@case("Atlas", "a list in which one line has lost its number", "refused", "most lines begin with a number")
def one_number_lost(folder: Path) -> Seen:
    return listed(folder, b"1 a\n2 b\nc\n4 d\n")


@case("Atlas", "a label image whose numbers are those of the list, not 1 to R", "read")
def numbered(folder: Path) -> Seen:
    return matched(folder, "index\tname\n2001\ta\n2101\tb\n", [0, 2101, 2001], 0, 2, 1)


@case(
    "Atlas",
    "a label image whose own table contains none of the names",
    "refused",
    "its own names are not in atlas.names",
)
def other_names(folder: Path) -> Seen:
    (folder / VOLUME.replace(".nii.gz", ".tsv")).write_text("index\tname\n1\tx\n2\ty\n")
    return matched(folder, "a\nb\n", [0, 1, 2], 0, 1, 2)


@case("Atlas", "a label image whose own table spells the names differently, in another order", "read")
def spelt_otherwise(folder: Path) -> Seen:
    (folder / VOLUME.replace(".nii.gz", ".tsv")).write_text("index\tlabel\n1\tLH-Vis-2\n2\tLH-Vis-1\n")
    return matched(folder, "7Networks_LH_Vis_1\n7Networks_LH_Vis_2\n", [0, 1, 2], 0, 2, 1)


@case("Atlas", "a label image whose own table names its labels in another order", "read")
def own_table(folder: Path) -> Seen:
    (folder / VOLUME.replace(".nii.gz", ".tsv")).write_text("index\tname\n1\tb\n2\ta\n")
    return matched(folder, "a\nb\n", [0, 1, 2], 0, 2, 1)


@case(
    "Atlas",
    "a label image with more labels than there are names",
    "refused",
    "2 labels are not in atlas.names, such as 3",
)
def more_labels(folder: Path) -> Seen:
    return matched(folder, "a\nb\n", [0, 1, 2, 3, 4])


@case("Atlas", "a label image that lacks an ROI of the list", "refused", "1 of the 3 ROIs .* such as 'b'")
def fewer_labels(folder: Path) -> Seen:
    return matched(folder, "a\nb\nc\n", [0, 1, 3])


@case("Atlas", "a label image that was resampled with interpolation", "refused", "holds 1.5, no label")
def interpolated(folder: Path) -> Seen:
    return matched(folder, "a\nb\n", [0.0, 1.0, 1.5, 2.0])


@case("Atlas", "a label image whose name states no standard space", "refused", "states no standard space")
def no_space(folder: Path) -> Seen:
    return matched(folder, "a\nb\n", [0, 1, 2], name="cc200.nii.gz")


@case("Atlas", "tables on an atlas that has only names, without harmonics", "read")
def names_alone(folder: Path) -> Seen:
    return asked(folder)


@case("Atlas", "harmonics of an atlas without a surface", "refused", "set features.harmonics to `none`")
def no_surface(folder: Path) -> Seen:
    return asked(folder, features={})


@case("Atlas", "images for an atlas without label files", "refused", "set atlas.volume")
def no_labels(folder: Path) -> Seen:
    return asked(folder, cohorts={"a": {"input": "fmriprep", "root": "a"}})


@case("Atlas", "more gradients than the ROIs allow", "refused", "39 of 40 ROIs: ask for 38 at most")
def many_gradients(folder: Path) -> Seen:
    return asked(folder, features={"harmonics": "none", "gradients": 39})


@case(
    "Atlas",
    "images in a standard space for which the packages have no atlas",
    "refused",
    "atlas.source to `templateflow`",
)
def other_space(folder: Path) -> Seen:
    return asked(
        folder, atlas={}, cohorts={"a": {"input": "fmriprep", "root": "a", "space": "MNI152NLin6Asym"}}
    )
