"""``bhx doctor`` on what fMRIPrep needs: engine, daemon, image and digest, licence, templates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bhx_prep.commands import doctor_fmriprep
from bhx_prep.config.preproc import PreprocSection
from bhx_prep.preproc import images, template_files

MNI = "MNI152NLin2009cAsym"
DIGEST = "sha256:" + "0123" * 16

#: Answers as docker does; a stand-in, nothing is run.
DOCKER = """#!/bin/sh
case "$1" in
  version) [ "{daemon}" = up ] && echo 28.0.0 || {{ echo "Cannot connect to the Docker daemon." >&2; exit 1; }} ;;
  image) [ "$3" = "{image}" ] && echo '[{{"Id": "sha256:9", "RepoDigests": {digests}}}]' || exit 1 ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch):
    """What is found on a machine with a `docker` that has one image."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    def found(
        daemon="up", here="nipreps/fmriprep:25.2.7", digests=(f"nipreps/fmriprep@{DIGEST}",), **preproc
    ):
        text = DOCKER.format(daemon=daemon, image=here, digests=json.dumps(digests))
        (tmp_path / "docker").write_text(text)
        (tmp_path / "docker").chmod(0o755)
        section = PreprocSection(backend="fmriprep-docker", **preproc)
        return list(doctor_fmriprep.examine(section, [MNI], 2.0))

    return found


def said(findings, level) -> str:
    return "\n".join(f"{f.what} -> {f.fix}" for f in findings if f.level == level)


def test_a_daemon_that_does_not_answer(machine):
    assert "the docker daemon does not answer (Cannot connect to the Docker daemon" in said(
        machine("down"), "missing"
    )


def test_an_image_that_is_not_there_or_is_no_digest(machine):
    assert "-> docker pull nipreps/fmriprep:25.2.7" in said(machine(here="other"), "missing")
    found = machine()
    assert f"image nipreps/fmriprep:25.2.7, {DIGEST}" in said(found, "ok")
    assert f"pin it: nipreps/fmriprep:25.2.7@{DIGEST}" in said(found, "note")
    pinned = f"nipreps/fmriprep:25.2.7@{DIGEST}"
    assert "is no digest" not in said(machine(here=pinned, image=pinned), "note")
    assert "is another release than 25.2.7" in said(machine(image="nipreps/fmriprep:23.1.4"), "note")


def test_an_image_of_other_content_than_was_published(machine, monkeypatch):
    known = images.Known("nipreps/fmriprep", "25.2.7", "sha256:other", "")
    monkeypatch.setattr(images, "known_image", lambda: known)
    found = said(machine(), "missing")
    assert f"is {DIGEST} here, and sha256:other where it was published" in found
    assert "docker pull nipreps/fmriprep:25.2.7@sha256:other" in found


def test_an_image_without_a_registry_has_the_id_that_docker_gave_it(machine):
    assert "image nipreps/fmriprep:25.2.7, sha256:9" in said(machine(digests=()), "ok")


def test_licences_that_are_none(machine, tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "image.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "good.txt").write_text("somebody@example.org\n12345\n *Cabc\n")
    for file, what in (
        (None, "not named"),
        (tmp_path / "none.txt", f"no file {tmp_path / 'none.txt'}"),
        (tmp_path / "empty.txt", f"{tmp_path / 'empty.txt'} is empty"),
        (tmp_path / "image.txt", f"{tmp_path / 'image.txt'} is no text"),
    ):
        assert f"FreeSurfer licence: {what}" in said(machine(fs_license=file), "missing")
    assert f"FreeSurfer licence {tmp_path / 'good.txt'}" in said(
        machine(fs_license=tmp_path / "good.txt"), "ok"
    )


def test_templates_that_are_missing_are_named(machine, tmp_path):
    assert "name a folder, and fill it by `bhx preproc fetch`" in said(machine(), "note")
    home = tmp_path / "templates"
    needed = template_files.needed(PreprocSection().of(MNI, 2.0).model_dump(mode="json"))
    found = said(machine(templateflow_home=home), "missing")
    assert f"no {home / needed[0]} -> `bhx preproc fetch`" in found
    assert f"and {len(needed) - 4} more of {len(needed)} files" in found
    for name in needed:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
    assert f"all {len(needed)} files that are needed" in said(machine(templateflow_home=home), "ok")
    (home / needed[-1]).write_text("")  # a name of TemplateFlow's skeleton
    assert needed[-1] in said(machine(templateflow_home=home), "missing")


def test_the_known_container_is_the_default_and_says_why_it_has_no_digest():
    known = images.known_image()
    assert PreprocSection().image == f"{known.image}:{known.version}"
    assert known.digest is not None or known.digest_reason
