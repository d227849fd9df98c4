"""Downloads: resumed, checked, patient, and never over a file that is there."""

from __future__ import annotations

import email.utils
import errno
import time

import pytest
from public_bucket import serve

from bhx_model.errors import DataError, SiteError
from bhx_model.remote import patience
from bhx_prep.io import download
from bhx_prep.io.download import Downloads, RemoteFile, in_words

CONTENT = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(patience, "PAUSE_S", 0.0)


@pytest.fixture
def bucket(tmp_path):
    with serve(tmp_path / "bucket", {"a/x.1D": CONTENT}) as server:
        yield server


@pytest.fixture
def file(bucket, tmp_path):
    return RemoteFile(f"{bucket.address}/a/x.1D", tmp_path / "out" / "x.1D")


def test_a_file_comes_whole_and_alone(file):
    assert Downloads().get(file)
    assert file.path.read_bytes() == CONTENT
    assert [p.name for p in file.path.parent.iterdir()] == ["x.1D"]


def test_a_file_that_is_there_is_not_asked_for_again(bucket, file):
    Downloads().get(file)
    assert not Downloads().get(file)
    assert bucket.sent() == ["a/x.1D"]


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_a_cut_download_is_continued(bucket, file, fault):
    bucket.faults["a/x.1D"] = [fault]
    Downloads().get(file)
    assert file.path.read_bytes() == CONTENT
    half = len(CONTENT) // 2
    ranges = [asked for method, _, asked in bucket.asked if method == "GET"]
    assert ranges[0] == ""
    if fault == "cut":  # what a reset connection delivered is up to the system
        assert ranges[1] == f"bytes={half}-"


def test_a_server_that_cuts_again_and_again_is_borne_as_long_as_something_comes(bucket, file):
    bucket.faults["a/x.1D"] = ["cut"] * 9
    Downloads(attempts=2).get(file)
    assert file.path.read_bytes() == CONTENT


def test_the_next_run_continues_where_this_one_was_stopped(bucket, file):
    bucket.faults["a/x.1D"] = ["cut"]
    with pytest.raises(DataError, match="cut after 5120 of 10240 bytes"):
        Downloads(attempts=1).get(file)
    assert not file.path.exists()
    Downloads().get(file)
    assert file.path.read_bytes() == CONTENT
    assert bucket.asked[-1] == ("GET", "a/x.1D", "bytes=5120-")


def test_two_versions_of_a_file_are_never_joined(bucket, file):
    bucket.faults["a/x.1D"] = ["cut"]
    with pytest.raises(DataError):
        Downloads(attempts=1).get(file)
    newer = CONTENT[::-1]
    (bucket.root / "a/x.1D").write_bytes(newer)
    Downloads().get(file)
    assert file.path.read_bytes() == newer
    assert len(list(file.path.parent.iterdir())) == 1


def test_a_server_without_ranges_sends_all_again(bucket, file):
    bucket.faults["a/x.1D"] = ["cut", "no range"]
    Downloads().get(file)
    assert file.path.read_bytes() == CONTENT


def test_a_server_without_head_is_believed_about_what_is_there(bucket, file):
    bucket.faults["a/x.1D"] = ["no head"]
    Downloads().get(file)
    assert not Downloads().get(file)


def test_a_server_without_head_is_asked_for_the_rest_all_the_same(bucket, file):
    bucket.faults["a/x.1D"] = ["cut"]
    with pytest.raises(DataError):
        Downloads(attempts=1).get(file)
    bucket.faults["a/x.1D"] = ["no head"]
    Downloads().get(file)
    assert file.path.read_bytes() == CONTENT
    assert bucket.asked[-1] == ("GET", "a/x.1D", "bytes=5120-")


def test_a_source_that_has_nothing_is_not_asked_for_everything(bucket, tmp_path):
    files = [RemoteFile(f"{bucket.address}/gone/{i}", tmp_path / "out" / str(i)) for i in range(99)]
    with pytest.raises(SiteError, match=r"the first 20 files could not be had.*no such file"):
        Downloads().run(files, jobs=2)


def test_a_whole_part_only_takes_its_name(bucket, file):
    state = Downloads()._state(file)
    assert state is not None
    file.path.parent.mkdir()
    state.part(file.path).write_bytes(CONTENT)
    Downloads().get(file)
    assert file.path.read_bytes() == CONTENT
    assert bucket.sent() == []


@pytest.mark.parametrize("fault", [408, 429, 500, 503, "header"])
def test_a_fault_of_the_server_may_pass(bucket, file, fault):
    bucket.faults["a/x.1D"] = [fault, fault]
    assert Downloads().get(file)
    assert file.path.read_bytes() == CONTENT


def test_a_server_is_left_in_peace_as_long_as_it_asks(bucket, file, monkeypatch):
    asked = []
    monkeypatch.setattr(patience.Patience, "is_left", lambda _, after_s: asked.append(after_s) or True)
    bucket.faults["a/x.1D"] = [429]
    bucket.retry_after = email.utils.formatdate(time.time() + 40, usegmt=True)
    Downloads().get(file)
    assert asked == [pytest.approx(40, abs=3)]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (404, "no such file"),
        (403, "refuses it .403.: it is not there, or not public"),
        (400, "refuses it .400"),
        (500, "fails with 500 .*3 attempts"),
        ("page", "a web page in place of the file"),
        ("wrong", "checksum"),
        ("loop", "the source sends elsewhere, and nowhere to the file .302"),
        (302, "the source sends elsewhere"),
        ("gzip", "the server packs it .gzip., though asked for its bytes as they are"),
    ],
)
def test_a_fault_that_stays_is_a_sentence(bucket, file, fault, says):
    bucket.faults["a/x.1D"] = [fault] * 9
    with pytest.raises(DataError, match=says):
        Downloads(attempts=3).get(file)
    assert not file.path.exists()


def test_a_file_that_is_packed_anyway_may_be_called_so(tmp_path):
    with serve(tmp_path / "bucket", {"x.nii.gz": CONTENT}) as bucket:
        bucket.faults["x.nii.gz"] = ["gzip"]
        file = RemoteFile(f"{bucket.address}/x.nii.gz", tmp_path / "x.nii.gz")
        Downloads().get(file)
    assert file.path.read_bytes() == CONTENT


def test_a_file_of_the_user_is_not_overwritten(file):
    file.path.parent.mkdir()
    file.path.write_bytes(b"mine")
    with pytest.raises(DataError, match="another file of 4 bytes, the source's has 10240"):
        Downloads().get(file)
    assert file.path.read_bytes() == b"mine"


def test_a_link_to_nothing_is_not_overwritten(file):
    file.path.parent.mkdir()
    file.path.symlink_to("nothing")
    with pytest.raises(DataError, match="is no file"):
        Downloads().get(file)


def test_a_size_other_than_the_listed_one_is_refused(bucket, file):
    with pytest.raises(DataError, match="lists 9 bytes and sends a file of 10240"):
        Downloads().get(RemoteFile(file.url, file.path, 9))


def test_one_failure_stops_no_other_file(bucket, file, tmp_path):
    gone = RemoteFile(f"{bucket.address}/a/gone.1D", tmp_path / "out" / "gone.1D")
    summary = Downloads().run([gone, file, file], jobs=3)
    assert summary.downloaded == [file]
    assert summary.received == len(CONTENT)
    assert summary.failed == [(gone, "the source has no such file (404)")]


def test_a_server_that_is_not_there_stops_all(bucket, file):
    away = RemoteFile("http://127.0.0.1:9/x", file.path)
    with pytest.raises(SiteError, match=r"127\.0\.0\.1:9 gives no answer .* is this machine connected"):
        Downloads(attempts=2).run([away], jobs=2)


def test_a_full_disk_stops_all_and_keeps_what_came(file, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        Downloads().run([file], jobs=1)
    assert [p.name[:6] for p in file.path.parent.iterdir()] == [".part-"]


def test_what_another_process_writes_is_left_to_it(bucket, file):
    state = Downloads()._state(file)
    assert state is not None
    file.path.parent.mkdir()
    with state.part(file.path).open("wb") as other:
        download._lock(other, file.path)
        with pytest.raises(DataError, match="another `bhx fetch` is writing"):
            Downloads().get(file)


@pytest.mark.parametrize(("n", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB")])
def test_bytes_in_words(n, text):
    assert in_words(n) == text
