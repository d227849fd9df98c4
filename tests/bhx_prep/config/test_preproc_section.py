"""What preprocessing is asked to make follows from the cohort's space and the model's T1 grid."""

from __future__ import annotations

import pytest

from bhx_model.errors import ConfigError
from bhx_prep.atlas import checks
from bhx_prep.config.config import check
from bhx_prep.config.preproc import PreprocSection, lacking, output_spaces

MNI, MNI6 = "MNI152NLin2009cAsym", "MNI152NLin6Asym"


@pytest.mark.parametrize(
    ("space", "t1w_mm", "spaces"),
    [
        (MNI, 1.0, (f"{MNI}:res-2", MNI)),
        (MNI, 2.0, (f"{MNI}:res-2",)),
        (MNI6, 1.0, (f"{MNI6}:res-2", MNI6)),
        ("fsaverage5", 1.0, ("fsaverage5", MNI)),
        ("fsLR", 2.0, (f"{MNI}:res-2",)),
    ],
)
def test_the_default_makes_both(space, t1w_mm, spaces):
    assert output_spaces(space, t1w_mm) == spaces
    assert not list(lacking(spaces, space, t1w_mm, ["--cifti-output=91k"]))
    made = PreprocSection().of(space, t1w_mm)
    assert (made.output_spaces, made.embedded_resolution_mm) == (spaces, t1w_mm)


@pytest.mark.parametrize(
    ("spaces", "space", "t1w_mm", "said"),
    [
        ([f"{MNI}:res-2"], MNI, 1.0, f"makes no T1w for the model's grid of 1 mm: add {MNI}"),
        ([f"{MNI}:res-2"], MNI6, 2.0, f"makes no BOLD in {MNI6}"),
        (["fsaverage5"], "fsaverage5", 2.0, f"add {MNI}:res-2"),
        ([MNI], "fsLR", 1.0, "--cifti-output"),
    ],
)
def test_a_list_that_lacks_something_is_a_mistake(spaces, space, t1w_mm, said):
    study = {
        "cohorts": {"a": {"input": "bids", "root": "x", "space": space}},
        "preproc": {"backend": "fmriprep-apptainer", "output_spaces": spaces},
        "features": {"t1w_resolution_mm": t1w_mm},
    }
    with pytest.raises(ConfigError) as refusal:
        check(study)
    assert said in str(refusal.value)


def test_the_embedded_preprocessing_has_one_space():
    with pytest.raises(ConfigError, match="the embedded preprocessing makes MNI152NLin2009cAsym only"):
        check({"cohorts": {"a": {"input": "bids", "root": "x", "space": MNI6}}})


def test_a_template_of_children_needs_an_atlas_in_its_space():
    space = "UNCInfant:cohort-2"
    study = {"cohorts": {"a": {"input": "fmriprep", "root": "x", "space": space}}}
    assert any(f"cohorts.a.space: {space}" in line for line in checks.mistakes(check(study)))
    volume = "tpl-UNCInfant_cohort-2_atlas-own_dseg.nii.gz"
    checked = check({**study, "atlas": {"volume": volume}})
    assert not any("cohorts.a.space" in line for line in checks.mistakes(checked))
