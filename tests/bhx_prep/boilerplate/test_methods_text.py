"""The methods of a study: what ran is in the text with its references, and nothing else is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bhx_prep.boilerplate import features, model, preprocessing, text
from bhx_prep.boilerplate.references import OWN, bibliography, cited, entries
from bhx_prep.cli import main
from bhx_prep.config import config

VERSIONS = {"bhx": "0.3.0", "nipype": "1.11.0", "antspyx": "0.6.3"}


def study(tmp_path: Path, **cohort):
    raw = {
        "cohorts": {"ward": {"input": "bids", "root": str(tmp_path / "raw"), **cohort}},
        "results": str(tmp_path),
    }
    return config.check(raw)


def preprocessed(tmp_path: Path, subject: str, stages=(), status="ok", versions=VERSIONS):
    preproc = tmp_path / "ward/preproc"
    preproc.mkdir(parents=True, exist_ok=True)
    about = {"status": status, "stages": dict.fromkeys(stages, 1.0), "versions": versions}
    (preproc / f"sub-{subject}_status.json").write_text(json.dumps(about))
    return preproc


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """A cohort of two subjects whose index is made."""
    (tmp_path / "ward").mkdir()
    rows = [{"subject": s, "modality": m} for s in ("01", "02") for m in ("bold", "t1w")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "ward/index.parquet")
    return tmp_path


def extracted(folder: Path, rows):
    batch = folder / "ward/features/batch-00000"
    batch.mkdir(parents=True, exist_ok=True)
    rows = [{"decision": None, "overruled": None} | row for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), batch / "qc.parquet")


def test_every_citation_has_an_entry_and_every_entry_is_cited():
    known = entries(OWN.read_text())
    package = OWN.parent
    said = "".join(path.read_text() for path in package.glob("*.py") if path.name != "references.py")
    keys = set(re.findall(r"(?<=[\[ ])@(\w+)(?=[;\]])", said))
    named = {key for keys in features.STRATEGY_REFERENCES.values() for key in keys}
    rows = {*model.ROW_REFERENCES.values(), "sklearn"}
    assert keys | named | rows == set(known)
    for key, entry in known.items():
        assert entry.count("{") == entry.count("}"), key
        assert re.search(r"\b(doi|eprint|journal) = \{", entry), key


def test_every_step_of_the_embedded_workflow_has_words_or_needs_none(root: Path):
    source = (root / "workflow/bhx_prep/preproc/embedded/workflow.py").read_text()
    steps = set(re.findall(r'f"([a-z]+)_\{scan\.stem\}"', source))
    assert len(steps) > 9
    assert steps <= set(preprocessing.EMBEDDED_STEPS), (
        "say in boilerplate/preprocessing.py what the step does"
    )


def test_the_text_has_the_steps_that_ran_and_their_references_alone(indexed: Path):
    preprocessed(indexed, "01", ["check", "bias", "normalize", "save"])
    preprocessed(indexed, "02", ["check"], status="failed")
    methods = text.describe(study(indexed, synthetic=True), indexed)
    assert "2 subjects with 2 BOLD runs and 2 T1-weighted images. SYNTHETIC" in methods.text
    assert "1 of 2 subjects went through the embedded preprocessing of BHX 0.3.0" in methods.text
    assert "N4 [@n4]" in methods.text
    for absent in ("deepbet", "Atropos", "fMRIPrep [", "BOLD runs were averaged", "Model"):
        assert absent not in methods.text
    assert set(entries(methods.bib)) == set(cited(methods.text))
    assert set(entries(methods.bib)) == {
        "snakemake", "bids", "nipype1", "antsx", "n4", "mni152nlin2009casym", "ants",
    }  # fmt: skip


def test_what_depends_on_the_run_is_counted_by_sidecars(indexed: Path):
    preproc = preprocessed(indexed, "01", ["slicetiming"])
    for run, corrected in (("1", True), ("2", False)):
        path = (
            preproc
            / f"sub-01/func/sub-01_task-rest_run-{run}_space-MNI152NLin2009cAsym_desc-preproc_bold.json"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(
                {"SliceTimingCorrected": corrected, "DistortionCorrection": ["none", "epi"][corrected]}
            )
        )
    said = text.describe(study(indexed), indexed).text
    assert "Slice timing was corrected in 1 of 2 runs." in said
    assert "corrected in 1 of 2 runs by images of opposite phase-encoding directions." in said


def test_a_step_without_words_is_named(indexed: Path):
    preprocessed(indexed, "01", ["unheard"])
    assert "Further steps: unheard." in text.describe(study(indexed), indexed).text


def test_each_text_of_fmriprep_occurs_once_with_its_references(indexed: Path):
    for subject, more in (("01", ""), ("02", ""), ("03", "A fieldmap was estimated [@topup].\n")):
        preproc = preprocessed(
            indexed, subject, versions={"bhx": "0.3.0", "fmriprep": "nipreps/fmriprep:25.2.7"}
        )
        (preproc / "logs").mkdir(exist_ok=True)
        said = f"Results come from *fMRIPrep* 25.2.7 (@fmriprep1; RRID:SCR_016216).\n\n# Anatomy\n\nN4 [@n4].\n{more}"
        said += "\n### Copyright Waiver\n\nThe above boilerplate text was generated\n\n### References\n"
        (preproc / f"logs/sub-{subject}_CITATION.md").write_text(said)
        bib = "@article{topup,\n title = {How {to} correct}}\n@article{never,\n title = {Not cited}}"
        (preproc / f"logs/sub-{subject}_CITATION.bib").write_text(bib)
    about = {
        "GeneratedBy": [
            {
                "Name": "fMRIPrep",
                "Version": "25.2.7",
                "Container": {"Tag": "nipreps/fmriprep:25.2.7", "Digest": "sha256:ab"},
            }
        ]
    }
    (preproc / "dataset_description.json").write_text(json.dumps(about))
    methods = text.describe(study(indexed), indexed)
    assert "All 3 subjects were preprocessed with fMRIPrep 25.2.7 [@fmriprep1]" in methods.text
    assert "(container nipreps/fmriprep:25.2.7 and sha256:ab)" in methods.text
    assert methods.text.count("Results come from") == 2
    assert "Of 2 subjects fMRIPrep says:" in methods.text
    assert "Of 1 subject fMRIPrep says:" in methods.text
    assert "Copyright" not in methods.text
    assert "How {to} correct" in methods.bib
    assert set(entries(methods.bib)) == {"snakemake", "bids", "fmriprep1", "n4", "topup"}


def test_given_derivatives_say_what_made_them(indexed: Path):
    root = indexed / "raw"
    root.mkdir()
    (root / "dataset_description.json").write_text(
        '{"GeneratedBy": [{"Name": "fMRIPrep", "Version": "23.1.4"}]}'
    )
    said = text.describe(study(indexed, input="fmriprep"), indexed).text
    assert "made by another pipeline, with fMRIPrep 23.1.4 [@fmriprep1]." in said
    assert "`logs/CITATION.md`, is not among the derivatives" in said
    for told in ("{", '{"GeneratedBy": null}', '{"GeneratedBy": [3, {"Version": 1}]}', "[]"):
        (root / "dataset_description.json").write_text(told)
        assert (
            "dataset_description.json does not name"
            in text.describe(study(indexed, input="fmriprep"), indexed).text
        )


def test_denoising_is_described_by_the_runs_metadata(indexed: Path):
    rows = [
        {"modality": "bold", "status": "ok", "strategy": "acompcor", "mean_fd_mm": 0.1},
        {"modality": "bold", "status": "ok", "strategy": "as given", "mean_fd_mm": None},
        {"modality": "bold", "status": "excluded", "strategy": "acompcor", "mean_fd_mm": 0.9},
    ]
    extracted(indexed, rows)
    methods = text.describe(study(indexed), indexed)
    assert "(aCompCor)" in methods.text
    assert "This is about 1 of 2 runs." in methods.text
    assert "2 of 3 runs remained" in methods.text
    assert "T1-weighted images in MNI space" not in methods.text
    assert {"compcor", "muschelli2014", "schaefer2018", "power_fd_dvars"} <= set(entries(methods.bib))


def test_manual_decisions_are_reported_as_a_number(indexed: Path):
    run = {"modality": "bold", "status": "ok", "strategy": "none", "mean_fd_mm": 0.1}
    head = {"modality": "t1w", "status": "ok", "strategy": None, "mean_fd_mm": None}
    extracted(indexed, [run, head])
    assert "people" not in text.describe(study(indexed), indexed).text
    excluded, kept = {"status": "excluded", "decision": "exclude"}, {"decision": "keep", "overruled": "moves"}
    extracted(
        indexed, [run | excluded, run | kept, run | {"decision": "keep"}, head | excluded, head | excluded]
    )
    said = text.describe(study(indexed), indexed).text
    assert "Of these, people who looked at them excluded 1 run and kept 1 run that missed a limit." in said
    assert "Of these, people who looked at them excluded 2 images." in said


def test_an_empty_study_has_no_methods_text(tmp_path: Path):
    methods = text.describe(study(tmp_path), tmp_path)
    assert "## " not in methods.text
    assert set(entries(methods.bib)) == {"snakemake"}


def test_a_reference_without_an_entry_is_said(caplog):
    bib, missing = bibliography("[@bids; @nobody2000], me@example.org", entries(OWN.read_text()))
    assert missing == ["nobody2000"]
    assert set(entries(bib)) == {"bids"}


def test_the_command_writes_both_files(indexed: Path, monkeypatch, capsys):
    monkeypatch.chdir(indexed)
    (indexed / "config.yaml").write_text(
        '{"cohorts": {"ward": {"input": "bids", "root": "raw"}}, "results": "."}'
    )
    assert main(["boilerplate", "ward", "--out", "manuscript"]) == 0
    assert "## Cohort ward" in (indexed / "manuscript/methods.md").read_text()
    assert "@article{snakemake" in (indexed / "manuscript/methods.bib").read_text()
    assert main(["boilerplate", "wards"]) == 1
    assert "no cohort 'wards' in config.yaml; there are: ward" in capsys.readouterr().err
