"""Which files of TemplateFlow fMRIPrep opens, and how they come to a machine; fMRIPrep's word on it: tests/containers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from public_bucket import serve

from bhx_model.errors import SiteError
from bhx_prep import cli
from bhx_prep.config.preproc import PreprocSection
from bhx_prep.preproc import template_files
from bhx_prep.preproc.containers import check_site

MNI = "MNI152NLin2009cAsym"


def names(**preproc) -> set[str]:
    section = PreprocSection(**preproc).model_dump(mode="json")
    return {path.rpartition("/")[2] for path in template_files.needed(section)}


def test_what_every_study_needs():
    found = names(output_spaces=(f"{MNI}:res-2",))
    assert {
        "tpl-OASIS30ANTs_res-01_T1w.nii.gz",
        "tpl-OASIS30ANTs_res-01_label-brain_probseg.nii.gz",
        "tpl-OASIS30ANTs_res-01_desc-BrainCerebellumExtraction_mask.nii.gz",
        f"tpl-{MNI}_res-01_T1w.nii.gz",  # it is normalised to, whatever the grid of the output
        f"tpl-{MNI}_res-01_desc-brain_mask.nii.gz",
        f"tpl-{MNI}_res-02_T1w.nii.gz",
        f"tpl-{MNI}_res-01_desc-carpet_dseg.nii.gz",
        "tpl-fsaverage_seg-aparc_dseg.tsv",
    } <= found
    assert not any("Schaefer" in name or "desc-brain_T1w" in name for name in found)


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({"output_spaces": ("MNI152NLin6Asym:res-02",)}, "tpl-MNI152NLin6Asym_res-02_T1w.nii.gz"),
        (
            {"output_spaces": ("PNC:res-2",)},
            "tpl-PNC_res-01_T1w.nii.gz",
        ),  # there is no other T1w with its head
        ({"output_spaces": ("MNIPediatricAsym:cohort-3",)}, "tpl-MNIPediatricAsym_cohort-3_res-1_T1w.nii.gz"),
        ({"fmriprep_args": ("--cifti-output",)}, "tpl-MNI152NLin6Asym_res-02_atlas-HCP_dseg.nii.gz"),
        ({"fmriprep_args": ("--cifti-output", "170k")}, "tpl-fsLR_hemi-L_den-59k_sphere.surf.gii"),
        ({"fmriprep_args": ("--skull-strip-template", "NKI")}, "tpl-NKI_res-01_T1w.nii.gz"),
    ],
)
def test_what_settings_add(settings, more):
    assert more in names(**settings)
    assert more not in names(output_spaces=(MNI,))


def test_surfaces_of_freesurfers_own_need_no_more():
    assert names(output_spaces=(MNI, "fsaverage5", "T1w")) == names(output_spaces=(MNI,))
    assert "tpl-fsaverage_seg-aparc_dseg.tsv" not in names(fmriprep_args=("--fs-no-reconall",))


@pytest.fixture
def study(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    preproc = {"backend": "fmriprep-docker", "templateflow_home": "templates"}
    study = {"cohorts": {"a": {"input": "bids", "root": "raw"}}, "preproc": preproc}
    (tmp_path / "config.yaml").write_text(json.dumps(study))
    return tmp_path / "templates"


def test_fetch_fills_a_folder_that_a_job_then_takes(study, tmp_path, capsys, caplog):
    section = PreprocSection(templateflow_home=study, fs_license=tmp_path / "license.txt")
    preproc = section.of(MNI, 2.0).model_dump(mode="json")
    (tmp_path / "license.txt").write_text("somebody")
    needed = template_files.needed(preproc)
    with pytest.raises(SiteError, match="make and fill it by `bhx preproc fetch`"):
        check_site(preproc, [])
    with serve(tmp_path / "server", {name: name.encode() for name in needed[1:]}) as server:
        words = ["preproc", "fetch", "--from", server.address]
        assert cli.main([*words, "--dry-run"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == len(needed)
        assert not study.exists()
        assert cli.main(words) == 1  # the server lacks one
        assert needed[0] in caplog.text
        assert template_files.missing(study, preproc) == needed[:1]
        assert (study / needed[0]).stat().st_size == 0  # TemplateFlow knows its name
        with pytest.raises(
            SiteError, match=r"lacks tpl-.*: run `bhx preproc fetch` where there is a network"
        ):
            check_site(preproc, [])
        (tmp_path / "server" / needed[0]).write_text("there now")
        server.asked.clear()
        assert cli.main(words) == 0
        assert server.sent() == [needed[0]]  # what is there is kept
    assert (study / needed[1]).read_text() == needed[1]
    assert (study / "tpl-MNI152NLin2009cAsym/template_description.json").stat().st_size > 0
    assert template_files.missing(study, preproc) == []


def test_fetch_without_a_network_is_a_sentence_and_leaves_the_names(study, caplog, monkeypatch):
    monkeypatch.setattr("bhx_model.remote.patience.PAUSE_S", 0.0)
    assert cli.main(["preproc", "fetch", "--from", "http://127.0.0.1:9"]) == 1
    assert "is this machine connected?" in caplog.text
    assert (study / f"tpl-{MNI}/tpl-{MNI}_res-01_T1w.nii.gz").exists()


def test_a_study_without_a_folder_or_without_fmriprep_is_told(study, tmp_path, caplog):
    for preproc, said in (
        ({"backend": "fmriprep-docker"}, "preproc.templateflow_home of config.yaml is not set"),
        ({"backend": "embedded"}, "no cohort of config.yaml is preprocessed by fMRIPrep"),
    ):
        text = json.dumps({"cohorts": {"a": {"input": "bids", "root": "raw"}}, "preproc": preproc})
        (tmp_path / "config.yaml").write_text(text)
        assert cli.main(["preproc", "fetch"]) == 1
        assert said in caplog.text
