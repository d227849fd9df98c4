"""Full disks and used up quotas, where a program's own words are lost with them."""

from __future__ import annotations

import errno
import os

import pytest

from bhx_model.errors import SiteError
from bhx_prep.preproc import disks
from bhx_prep.preproc.outcome import settle

IMAGE = "nipreps/fmriprep:25.2.7"


@pytest.fixture(params=[(errno.ENOSPC, "the disk is full at "), (errno.EDQUOT, "the quota is used up at ")])
def full(request, monkeypatch):
    """The disk takes a file, but no bytes."""

    def refuse(_):
        raise OSError(request.param[0], os.strerror(request.param[0]))

    monkeypatch.setattr(disks.os, "fsync", refuse)
    return request.param[1]


def test_room_is_found_by_writing_and_nothing_stays(tmp_path):
    assert disks.full_disk([tmp_path / "none", tmp_path]) is None
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named(full, tmp_path):
    assert str(disks.full_disk([tmp_path])).startswith(f"{full}{tmp_path}: free some space")
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_system_names_the_folder_that_is_full(full, tmp_path):
    copied = OSError(errno.ENOSPC, "No space left on device", "/usr/share/what_was_copied.js")
    with pytest.raises(SiteError, match=f"{full}{tmp_path}"), disks.naming_full_disks([tmp_path]):
        raise copied
    with pytest.raises(FileNotFoundError), disks.naming_full_disks([tmp_path]):
        (tmp_path / "none").read_bytes()


def test_a_full_disk_that_has_room_again_is_said_as_the_system_says_it(tmp_path):
    copied = OSError(errno.EDQUOT, "Disk quota exceeded", "x.nii")
    with pytest.raises(OSError, match="quota exceeded") as raised, disks.naming_full_disks([tmp_path]):
        raise copied
    assert raised.value is copied


def test_the_one_folder_that_is_written_to_is_named_also_where_it_has_room_again(tmp_path):
    copied = OSError(errno.ENOSPC, "No space left on device", "/tmp/what_was_copied.nii.gz")
    with pytest.raises(SiteError, match=f"the disk is full at {tmp_path}: "), disks.writing_to(tmp_path):
        raise copied
    with pytest.raises(FileNotFoundError), disks.writing_to(tmp_path):
        (tmp_path / "none").read_bytes()


@pytest.mark.parametrize("printed", ["", "Segmentation fault", "RuntimeError: No T1w images found for x"])
def test_what_a_full_disk_does_to_fmriprep_is_booked_to_nobody(full, tmp_path, printed):
    log = tmp_path / "logs/x.log"
    log.parent.mkdir()
    log.write_text(printed)
    with pytest.raises(SiteError, match=f"{full}.*is not excluded"):
        settle(1, log, tmp_path, "01", [], IMAGE, "1 MB")
