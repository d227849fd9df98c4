"""Files inside zip archives: found, read, unpacked for a while; damaged and hostile archives are refused."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from bhx_model.errors import DataError
from bhx_prep.io import archives


def _zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_path_is_taken_apart_at_the_archive(tmp_path):
    assert archives.split(tmp_path / "a.zip" / "b" / "c.nii.gz") == (tmp_path / "a.zip", "b/c.nii.gz")
    assert archives.split(tmp_path / "a.zip") is None
    assert archives.split(tmp_path / "a.nii.gz") is None


def test_a_folder_called_zip_is_a_folder(tmp_path):
    (tmp_path / "a.zip").mkdir()
    assert archives.split(tmp_path / "a.zip" / "b.nii.gz") is None


def test_members_are_files(tmp_path):
    archive = _zip(tmp_path / "a.zip", {"b/": b"", "b/c.txt": b"x"})
    assert list(archives.members(archive)) == ["b/c.txt"]


@pytest.mark.parametrize("name", ["../x.nii.gz", "/etc/x", "b/../../x", "C:/x", "b\\..\\x"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    archive = _zip(tmp_path / "a.zip", {name: b"x"})
    with pytest.raises(DataError, match="leads out of it"):
        archives.members(archive)


@pytest.mark.parametrize("cut", [0, 1, 30, 90])
def test_an_incomplete_archive_is_refused(tmp_path, cut):
    archive = _zip(tmp_path / "a.zip", {"b.txt": bytes(range(256))})
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(DataError, match="damaged or incomplete"):
        archives.members(archive)


def test_any_damaged_byte_is_a_data_error_or_harmless(tmp_path):
    archive = _zip(tmp_path / "a.zip", {"b.txt": b"abcabcabc" * 20})
    whole = archive.read_bytes()
    for place in range(0, len(whole), 3):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            with archives.unpacked({"path": f"{archive}/b.txt"}, ("path",)) as row:
                assert Path(row["path"]).read_bytes() == b"abcabcabc" * 20
        except DataError:
            pass


def test_an_absent_archive_and_an_absent_member_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"archive a\.zip does not exist"):
        archives.find(tmp_path / "a.zip" / "b.txt")
    archive = _zip(tmp_path / "a.zip", {"c.txt": b"x"})
    with pytest.raises(DataError, match=r"has no member b\.txt"):
        archives.find(archive / "b.txt")


def test_an_encrypted_member_is_refused(tmp_path):
    archive = _zip(tmp_path / "a.zip", {"b.txt": b"x"})
    content = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"), archives.open_member(archive / "b.txt"):
        pass


def test_the_start_of_a_member_is_inflated_by_its_own_ending(tmp_path):
    archive = _zip(tmp_path / "a.zip", {"b.nii.gz": gzip.compress(b"x" * 900), "b.nii": b"y" * 900})
    assert archives.read_start(archive / "b.nii.gz", 5) == b"xxxxx"
    assert archives.read_start(archive / "b.nii", 5) == b"yyyyy"


def test_members_are_unpacked_for_a_while_and_not_beside_the_archive(tmp_path):
    archive = _zip(tmp_path / "a.zip", {"b/c.txt": b"x", "d/c.txt": b"y"})
    row = {"path": f"{archive}/b/c.txt", "mask": f"{archive}/d/c.txt", "confounds": None, "tr_s": 2.0}
    with archives.unpacked(row, ("path", "mask", "confounds")) as files:
        assert Path(files["path"]).read_bytes() == b"x"
        assert Path(files["mask"]).read_bytes() == b"y"
        assert (files["confounds"], files["tr_s"]) == (None, 2.0)
        assert tmp_path not in Path(files["path"]).parents
    assert not Path(files["path"]).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_files_outside_of_archives_stay_where_they_are(tmp_path):
    with archives.unpacked({"path": f"{tmp_path}/a.nii.gz"}, ("path",)) as files:
        assert files == {"path": f"{tmp_path}/a.nii.gz"}
