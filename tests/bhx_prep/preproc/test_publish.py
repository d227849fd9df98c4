"""A subject's output comes to its cohort whole, also across disks and after a kill."""

from __future__ import annotations

import errno
import shutil
from functools import partial
from pathlib import Path

import pytest

from bhx_model.errors import SiteError
from bhx_prep.preproc.publish import publish


@pytest.fixture
def made(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    for name in (
        "sub-01/a",
        "sub-01.html",
        "sourcedata/freesurfer/sub-01/mri",
        "sourcedata/freesurfer/fsaverage/x",
    ):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text("new")
    (made / "dataset_description.json").write_text("{}")
    return made


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(params=["one disk", "two disks"])
def disks(request, monkeypatch):
    rename = Path.rename

    def across(self, target):
        if "made" in self.parts and "made" not in Path(target).parts:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    if request.param == "two disks":
        monkeypatch.setattr(Path, "rename", across)


@pytest.mark.usefixtures("disks")
def test_what_is_the_subjects_replaces_and_what_is_shared_stays(made, tmp_path):
    out = tmp_path / "out"
    (out / "sub-01").mkdir(parents=True)
    (out / "sub-01/old").write_text("old")
    (out / "sub-012").mkdir()
    (out / "sub-012/a").write_text("another")
    (out / "dataset_description.json").write_text("first")
    publish(made, out, "01")
    assert files(out) == {
        "dataset_description.json": "first",
        "sourcedata/freesurfer/fsaverage/x": "new",
        "sourcedata/freesurfer/sub-01/mri": "new",
        "sub-01.html": "new",
        "sub-01/a": "new",
        "sub-012/a": "another",
    }


@pytest.mark.usefixtures("disks")
def test_a_kill_while_the_origin_is_removed_halves_nothing(made, tmp_path, monkeypatch):
    (made / "sub-01/b").write_text("new")
    remove = shutil.rmtree

    def killed(path, *_, **__):
        if Path(path) == made / "sub-01":
            (made / "sub-01/a").unlink()
            raise KeyboardInterrupt
        remove(path)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        try:
            publish(made, out, "01")
        except KeyboardInterrupt:
            assert not (out / "sub-01").exists()
            publish_again = True
        else:
            publish_again = False  # on one disk nothing is removed
    if publish_again:
        publish(made, out, "01")
    assert files(out / "sub-01") == {"a": "new", "b": "new"}


@pytest.mark.parametrize(
    ("full", "said"),
    [("the disk is full at x", "the disk is full"), (None, "could not be copied: .*No space")],
)
def test_a_disk_that_fills_while_a_folder_comes_is_one_sentence(made, tmp_path, monkeypatch, full, said):
    def no_rename(self, _):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def refuse(_, target):
        raise OSError(errno.ENOSPC, "No space left on device", target)

    (made / "sub-01/b").write_text("new")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", no_rename)
        patch.setattr("bhx_prep.preproc.publish.full_disk", lambda _: full)
        patch.setattr(shutil, "copytree", partial(shutil.copytree, copy_function=refuse))
        with pytest.raises((SiteError, OSError), match=said):
            publish(made, tmp_path / "out", "01")
    assert (made / "sub-01/a").read_text() == "new"  # the next attempt goes on
    publish(made, tmp_path / "out", "01")
    assert files(tmp_path / "out/sub-01") == {"a": "new", "b": "new"}


def test_a_link_in_a_subjects_place_is_replaced_and_what_it_leads_to_stays(made, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    for folder in (out, other):
        folder.mkdir()
    (other / "a").write_text("of another cohort")
    (out / "sub-01").symlink_to(other)
    publish(made, out, "01")
    assert files(other) == {"a": "of another cohort"}
    assert not (out / "sub-01").is_symlink()
    assert files(out / "sub-01") == {"a": "new"}


@pytest.mark.usefixtures("disks")
def test_halves_of_a_kill_are_removed_and_those_of_others_stay(made, tmp_path):
    out = tmp_path / "out"
    for name in (".sub-01.part", ".sub-01.old.part", ".sub-012.part"):
        (out / name).mkdir(parents=True)
    publish(made, out, "01")
    assert [path.name for path in out.glob(".*")] == [".sub-012.part"]
