"""Downloads against a server that misbehaves: what is in the cache is whole, and every fault is a sentence."""

from __future__ import annotations

import email.utils
import errno
import hashlib
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest
from small_disk import remount

from bhx_model.errors import BhxError, ConfigError, DataError, SiteError
from bhx_model.remote import cache, patience, transfer

CONTENT = bytes(range(250)) + bytes(100)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def big(bucket, kept):
    """A file that is elsewhere."""
    (bucket.root / "big.tar").write_bytes(CONTENT)
    return kept.file(f"{bucket.address}/big.tar", "big.tar", SHA256, len(CONTENT))


def ranges(bucket):
    return [asked for method, _, asked in bucket.asked if method == "GET"]


def test_a_file_is_downloaded_once(bucket, kept, big):
    assert kept.fetch([big, big]) == [big]
    assert big.path.read_bytes() == CONTENT
    assert bucket.asked == [("GET", "big.tar", "")]
    assert kept.fetch([big]) == []
    assert len(bucket.asked) == 1
    assert not big.part.exists()


@pytest.mark.parametrize("fault", [429, 503, 408, "cut", "reset", "half", "no range", "header", "gzip"])
def test_what_passes_is_tried_again(bucket, kept, big, fault):
    bucket.faults["big.tar"] = [fault, fault] if fault != "half" else [fault]
    kept.fetch([big])
    assert big.path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        (404, DataError, "there is no http://127.0.0.1:.*/big.tar: check the address"),
        (403, SiteError, r"may not be read \(403\): ask its owners for access"),
        (401, SiteError, r"may not be read \(401\)"),
        (400, DataError, "is refused with 400: check the address"),
        (416, DataError, "is shorter than what names it says: upload it again"),
        (302, DataError, "big.tar leads elsewhere, and nowhere to a file: check the address"),
        ("loop", DataError, "big.tar leads elsewhere, and nowhere to a file: check the address"),
    ],
)
def test_what_stays_is_asked_once(bucket, kept, big, fault, error, sentence):
    bucket.faults["big.tar"] = [fault] * 99
    with pytest.raises(error, match=sentence) as raised:
        kept.fetch([big])
    assert len(str(raised.value)) <= 200
    assert len(ranges(bucket)) == 1 or fault == "loop"
    assert not big.path.exists()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (429, r"too many requests \(429\), 5 times: start again later"),
        (500, "the server fails with 500, 5 times"),
        ("cut", "cannot be had .* 5 times.*: check the network"),
    ],
)
def test_patience_ends(bucket, kept, big, fault, sentence):
    bucket.faults["big.tar"] = [fault] * 99
    with pytest.raises(SiteError, match=sentence) as raised:
        kept.fetch([big])
    assert len(str(raised.value)) <= 200
    asked = len(ranges(bucket))
    assert (
        asked == patience.ATTEMPTS if fault != "cut" else asked >= patience.ATTEMPTS
    )  # some may bring a part
    assert not big.path.exists()


def test_a_server_is_left_in_peace_as_long_as_it_asks(bucket, kept, big, monkeypatch):
    asked = []
    monkeypatch.setattr(patience.Patience, "is_left", lambda _, after_s: asked.append(after_s) or True)
    bucket.faults["big.tar"] = [429]
    bucket.retry_after = email.utils.formatdate(time.time() + 40, usegmt=True)
    kept.fetch([big])
    assert asked == [pytest.approx(40, abs=3)]


def test_secrets_of_an_address_are_in_no_message(bucket, kept, big, caplog):
    """Neither of the log with details, nor of the error and those below it."""
    url = big.url.replace("http://", "http://me:hush@") + "?token=hush"
    secret = kept.file(url, "big.tar", SHA256, len(CONTENT))
    caplog.set_level(logging.DEBUG, "bhx_model")
    for faults in ([503] * 9, [403], [404], ["cut"] * 99):
        bucket.faults["big.tar"] = faults
        with pytest.raises(BhxError) as raised:
            kept.fetch([secret])
        assert "hush" not in str(raised.value)
    assert "hush" not in caplog.text
    bucket.faults.clear()
    kept.fetch([secret])
    assert "hush" not in caplog.text


def test_half_a_file_is_none(bucket, kept, big):
    bucket.faults["big.tar"] = ["half"] * 99
    with pytest.raises(DataError, match="is shorter than what names it says: upload it again, whole"):
        kept.fetch([big])
    assert ranges(bucket) == ["", f"bytes={len(CONTENT) // 2}-"]
    assert not big.path.exists()


def test_an_interrupted_download_goes_on(bucket, kept, big):
    content = bytes(range(250)) * 4000
    (bucket.root / "big.tar").write_bytes(content)
    big = kept.file(big.url, "big.tar", hashlib.sha256(content).hexdigest(), len(content))
    bucket.faults["big.tar"] = ["cut", *[503] * 2 * patience.ATTEMPTS]
    with pytest.raises(SiteError):
        kept.fetch([big])
    part = big.part.read_bytes()
    assert content.startswith(part)
    assert len(part) < len(content)
    bucket.faults.clear()
    bucket.asked.clear()
    kept.fetch([big])
    assert ranges(bucket) == [f"bytes={len(part)}-" if part else ""]
    assert big.path.read_bytes() == content


@pytest.mark.parametrize("n_bytes", [len(CONTENT), None])
@pytest.mark.parametrize("fault", ["no fault", "no range", "reset", 503])
def test_what_is_here_already_is_not_asked_for(bucket, kept, big, n_bytes, fault):
    big = kept.file(big.url, "big.tar", SHA256, n_bytes)
    big.part.parent.mkdir(parents=True)
    big.part.write_bytes(CONTENT[:200])
    bucket.faults["big.tar"] = [fault]
    kept.fetch([big])
    assert ranges(bucket)[0] == "bytes=200-"
    assert big.path.read_bytes() == CONTENT


@pytest.mark.parametrize("n_bytes", [len(CONTENT), None])
@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", CONTENT[::-1], b"x" * 200])
def test_a_beginning_of_another_file_is_not_kept(bucket, kept, big, n_bytes, part):
    big = kept.file(big.url, "big.tar", SHA256, n_bytes)
    big.part.parent.mkdir(parents=True)
    big.part.write_bytes(part)
    kept.fetch([big])
    assert big.path.read_bytes() == CONTENT
    assert not big.part.exists()


def test_a_file_whose_hash_nobody_knows_comes_in_one_answer(bucket, kept, big):
    big = cache.CachedFile(big.url, big.path)
    big.part.parent.mkdir(parents=True)
    big.part.write_bytes(CONTENT[::-1][:200])
    bucket.faults["big.tar"] = ["cut"]
    kept.fetch([big])
    assert ranges(bucket) == ["", ""]
    assert big.path.read_bytes() == CONTENT


def test_altered_bytes_are_never_kept(bucket, kept, big):
    bucket.faults["big.tar"] = ["wrong"]
    kept.fetch([big])  # they came right the second time
    assert big.path.read_bytes() == CONTENT
    big.path.unlink()
    bucket.faults["big.tar"] = ["wrong"] * 9
    with pytest.raises(
        DataError, match=r"is not the file that was named \(sha256 differs\): upload it again"
    ):
        kept.fetch([big])
    assert not big.path.exists()
    assert not big.part.exists()


def test_a_file_that_was_cut_in_the_cache_is_downloaded_again(bucket, kept, big):
    kept.fetch([big])
    big.path.write_bytes(CONTENT[:9])
    assert kept.fetch([big]) == [big]
    assert big.path.read_bytes() == CONTENT


def test_a_server_that_is_not_there(kept, monkeypatch):
    pytest.importorskip("aiohttp", reason="aiohttp (extra `remote`) is not installed")
    with pytest.raises(transfer.UnreachableError, match="check the network, and start again"):
        kept.read_names("http://127.0.0.1:9/index.json")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<!doctype html><p>log in", r"answers with a web page \(a login\?\)"),
        (b'{"a": 1', "answers with 7 bytes that are no whole JSON"),
    ],
)
def test_what_names_files_is_json(bucket, kept, content, sentence):
    (bucket.root / "index.json").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        kept.read_names(f"{bucket.address}/index.json")


def test_what_names_files_is_as_it_is_now_or_was(bucket, kept, caplog):
    url = f"{bucket.address}/index.json"
    for version in (1, 2):
        (bucket.root / "index.json").write_text(json.dumps(version))
        assert kept.read_names(url) == b"%d" % version
    bucket.faults["index.json"] = [503] * 9
    with caplog.at_level(logging.WARNING, "bhx_model"):
        assert kept.read_names(url) == b"2"
    assert "going on with what it was the last time" in caplog.text
    bucket.faults["index.json"] = [404]
    with pytest.raises(DataError, match="there is no"):
        kept.read_names(url)


def test_processes_share_the_work(bucket, kept):
    """Two processes that want the same files: each is downloaded by one of them."""
    names = [f"{number}.tar" for number in range(8)]
    files = []
    for name in names:
        content = name.encode() * 18
        (bucket.root / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.append(kept.file(f"{bucket.address}/{name}", name, digest, len(content)))
    context = multiprocessing.get_context("fork")  # before fsspec starts its thread
    running = [context.Process(target=kept.fetch, args=(files,)) for _ in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    assert sorted(bucket.sent()) == names
    assert {path.name for path in kept.root.rglob("*.tar") if path.name[0] != "."} == set(names)


def test_another_process_is_waited_for(bucket, kept, big):
    big.path.parent.mkdir(parents=True)
    began = threading.Event()

    def hold():
        with cache._locked(big.path.with_name(".lock.big.tar"), wait=False) as ours:
            assert ours
            began.set()
            big.path.write_bytes(CONTENT)

    with (
        cache._locked(big.path.with_name(".lock.big.tar"), wait=False),
        cache._locked(big.path.with_name(".lock.big.tar"), wait=False) as second,
    ):
        assert not second
    thread = threading.Thread(target=hold)
    thread.start()
    began.wait()
    assert kept.fetch([big]) in ([big], [])
    thread.join()
    assert bucket.sent() == []


def test_a_full_disk_is_said_before_the_first_byte(bucket, small_disk):
    room = cache.Cache(small_disk / "cache")
    huge = room.file(f"{bucket.address}/big.tar", "big.tar", SHA256, 2_000_000)
    with pytest.raises(SiteError, match=r"0.00 GB are to be downloaded, the disk of .*/cache has .* free"):
        room.fetch([huge])
    assert bucket.asked == []


def test_a_disk_that_fills_up_meanwhile(bucket, small_disk, monkeypatch):
    """With more room the download goes on where it was."""
    monkeypatch.setattr(transfer, "CHUNK", 1 << 17)
    content = bytes(900_000)
    (bucket.root / "long.tar").write_bytes(content)
    room = cache.Cache(small_disk / "cache")
    file = room.file(
        f"{bucket.address}/long.tar", "long.tar", hashlib.sha256(content).hexdigest(), len(content)
    )
    monkeypatch.setattr(room.__class__, "_check_room", lambda *_: None)
    (small_disk / "of others").write_bytes(bytes(500_000))
    with pytest.raises(SiteError, match="is full: free some space, or set BHX_CACHE") as raised:
        room.fetch([file])
    assert len(str(raised.value)) <= 200
    (small_disk / "of others").unlink()
    room.fetch([file])
    assert file.path.read_bytes() == content


def test_a_cache_that_may_not_be_written(bucket, kept, big, small_disk):
    remount(small_disk, "ro")
    room = cache.Cache(small_disk / "cache")
    with pytest.raises(
        SiteError, match=r"cannot be kept in .*/cache \(Read-only file system\): set BHX_CACHE"
    ):
        room.fetch([room.file(big.url, "big.tar", SHA256, len(CONTENT))])
    kept.root.write_text("a file")
    with pytest.raises(SiteError, match=r"cannot be kept in .*: set BHX_CACHE to a folder of yours"):
        kept.fetch([big])


def test_a_disk_without_locks(kept, big, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    with pytest.raises(SiteError, match="knows no locks: set BHX_CACHE to a folder of a local disk"):
        kept.fetch([big])


@pytest.mark.parametrize(
    ("name", "sha256"), [("../x", SHA256), ("..", SHA256), ("x", "../" * 20), ("x", None)]
)
def test_what_others_name_leads_nowhere_else(kept, name, sha256):
    with pytest.raises(DataError, match="has no hash of it"):
        kept.file("https://host/x", name, sha256)


def test_the_cache_is_the_users_the_jobs_or_at_home(tmp_path):
    named = {"BHX_CACHE": "/a", "SLURM_TMPDIR": "/b", "XDG_CACHE_HOME": "/c"}
    found = []
    while named:
        found.append(str(cache.here(named).root))
        named.pop(next(iter(named)))
    assert found == ["/a", "/b/bhx", "/c/bhx"]
    assert cache.here({}).root.parts[-2:] == (".cache", "bhx")


def test_without_a_home_folder_a_place_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.here({"BHX_CACHE": "~/downloads"}).root == tmp_path / "downloads"
    monkeypatch.delenv("HOME")
    # as a container is started by somebody it does not know
    monkeypatch.setattr(os, "getuid", lambda: 987654321)
    assert cache.here({"BHX_CACHE": "/a"}).root.as_posix() == "/a"
    with pytest.raises(SiteError, match="no home folder to keep downloads in: set BHX_CACHE to a folder"):
        cache.here({})


@pytest.mark.parametrize(
    ("url", "absent", "error", "sentence"),
    [
        ("https://host/x", "fsspec", SiteError, r"pip install 'bhx\[remote\]'"),
        ("https://host/x", "aiohttp", SiteError, r"pip install 'bhx\[remote\]'"),
        ("s3://bucket/x", "s3fs", SiteError, r"pip install 'bhx\[remote\]'"),
        ("gs://bucket/x", "gcsfs", SiteError, r"pip install 'bhx\[remote\]'"),
        ("abfs://box@host/x", "adlfs", SiteError, "needs a package that BHX does not bring: .*adlfs"),
        ("nothing://host/x", None, ConfigError, "is no address that fsspec knows"),
    ],
)
def test_what_is_missing_is_named(monkeypatch, url, absent, error, sentence):
    pytest.importorskip("fsspec", reason="fsspec (extra `remote`) is not installed")
    known = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(known, url.partition(":")[0], raising=False)
    if absent is not None:
        monkeypatch.setitem(sys.modules, absent, None)
        monkeypatch.setitem(sys.modules, f"{absent}.core", None)
    with pytest.raises(error, match=sentence) as raised:
        transfer.read(url)
    assert isinstance(raised.value, BhxError)
    assert len(str(raised.value)) <= 200


@pytest.mark.parametrize(
    ("url", "error", "sentence"),
    [
        ("https://", ConfigError, "https:// names no host"),
        ("https:///x", ConfigError, "names no host"),
        ("gs:///x", ConfigError, "names no bucket"),
        ("https://me:hush@[::1/x?hush", ConfigError, r"^\[::1/x is no address \(Invalid IPv6 URL\)"),
        ("https://a..b/x", DataError, "https://a..b/x is refused as a bad request: check the address"),
        ("http://host:99999/x", DataError, "is refused as a bad request"),
        ("http://127.0.0.1:port/x", DataError, "is refused as a bad request"),
        ("http://nobody.invalid/x", transfer.UnreachableError, "has no address here: check its name, and"),
        ("ftp://127.0.0.1:9/x", transfer.UnreachableError, "ftp://127.0.0.1:9/x cannot be had"),
        ("reference://x", ConfigError, "is no address that fsspec knows .*: write https://, s3:// or gs://"),
    ],
)
def test_an_address_that_leads_nowhere_is_a_sentence(kept, url, error, sentence):
    pytest.importorskip("aiohttp", reason="aiohttp (extra `remote`) is not installed")
    for call in (kept.read_names, lambda url: list(transfer.receive(url, 0, 9))):
        with pytest.raises(error, match=sentence) as raised:
            call(url)
        assert len(str(raised.value)) <= 200


def test_fsspec_is_imported_for_urls_alone():
    code = "import sys, bhx_model.remote.cache; sys.exit('fsspec' in sys.modules or 'aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (403, SiteError, r"hf://nobody/x may not be read \(403\)"),
        (404, DataError, "there is no hf://nobody/x"),
        (429, transfer.UnreachableError, r"too many requests \(429\)"),
        (None, transfer.UnreachableError, "hf://nobody/x cannot be had"),
    ],
)
def test_errors_of_httpx_are_sentences(monkeypatch, status, error, sentence):
    """As `hf://` raises them; httpx2 is what the Hub's library of the extra `hub` brings."""
    httpx = pytest.importorskip("httpx2", reason="the extra `hub` is not installed")
    monkeypatch.setattr(patience, "PAUSE_S", 0.0)

    class System:
        def cat_file(self, path):
            if status is None:
                raise httpx.ConnectError("no")
            request = httpx.Request("GET", "https://host/x")
            raise httpx.HTTPStatusError("no", request=request, response=httpx.Response(status))

    monkeypatch.setattr(transfer, "_file_system", lambda url: (System(), url))
    with pytest.raises(error, match=sentence):
        transfer.read("hf://nobody/x")
