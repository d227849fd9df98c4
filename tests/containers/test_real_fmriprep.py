"""FMRIPrep itself in a real container, started by `fmriprep-docker`: what it says, and what BHX makes of it.

Its workflow is built but cannot run, for the programs that it starts are no Python packages.
"""

from __future__ import annotations

import pytest
from container_engine import REAL

pytestmark = pytest.mark.usefixtures("with_fmriprep")


def test_its_workflow_is_built_on_the_templates_that_are_listed(job):
    end = job("01", REAL, fmriprep_args=("--cifti-output",))
    assert "Could not fetch" not in end.log
    assert "Missing dependencies:" in end.log, end.log[-2000:]  # it comes after the graph and the licence
    assert "recon-all" in end.log
    assert (end.code, end.status) == (1, None)
    assert "the container lacks a program that fMRIPrep needs" in end.said


def test_a_licence_that_freesurfer_refuses(job, tmp_path):
    (tmp_path / "none.txt").write_text("nobody\n")
    arguments = ("--fs-no-reconall", "--anat-only")
    end = job("01", REAL, fs_license=str(tmp_path / "none.txt"), fmriprep_args=arguments)
    assert (end.code, end.status) == (1, None)
    assert "FreeSurfer does not accept the licence file: name a valid one in preproc.fs_license" in end.said


def test_a_person_without_bold(job):
    end = job("01", REAL, runs=(), fmriprep_args=("--fs-no-reconall",))
    assert (end.code, end.status and end.status["status"]) == (0, "failed"), end.log[-2000:]
    assert "No BOLD images found for participant 01" in end.status["reason"]


def test_templateflow_without_a_network(job):
    end = job("01", REAL, templateflow_home=None, fmriprep_args=("--fs-no-reconall", "--anat-only"))
    assert (end.code, end.status) == (1, None)
    assert "a template of TemplateFlow is missing and cannot be fetched" in end.said, end.log[-2000:]


def test_an_argument_that_it_does_not_have(job):
    end = job("01", REAL, fmriprep_args=("--use-aroma",))
    assert (end.code, end.status) == (1, None)
    assert "fMRIPrep does not take its arguments: correct preproc.fmriprep_args" in end.said
    assert "unrecognized arguments: --use-aroma" in end.said
