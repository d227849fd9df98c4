"""Files in a bucket of S3, against moto's stand-in of it."""

from __future__ import annotations

import hashlib
import sys

import pytest

from bhx_model.errors import DataError, SiteError
from bhx_model.remote import transfer

CONTENT = bytes(range(256)) * 2
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def s3(monkeypatch, tmp_path):
    """A bucket ``ours`` with ``town/big.tar``, and where it is in the environment, as for a store of one's own."""
    pytest.importorskip("s3fs", reason="s3fs (extra `remote`) is not installed")
    server = pytest.importorskip("moto.server", reason="moto's server (extra `dev`) is not installed")
    boto3 = pytest.importorskip("boto3", reason="boto3 (with moto) is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="ours")
    client.put_object(Bucket="ours", Key="town/big.tar", Body=CONTENT)
    yield client
    running.stop()


def test_a_bucket_is_read(s3, kept, monkeypatch):
    file = kept.file("s3://ours/town/big.tar", "big.tar", SHA256, len(CONTENT))
    assert kept.fetch([file]) == [file]
    assert file.path.read_bytes() == CONTENT
    s3.put_object(Bucket="ours", Key="town/index.json", Body=b"{}")
    assert kept.read_names("s3://ours/town/index.json") == b"{}"
    assert transfer.size("s3://ours/town/big.tar") == len(CONTENT)
    # altered, cut, gone
    file.path.unlink()
    for body, sentence in (
        (CONTENT[::-1], "sha256 differs"),
        (CONTENT[:300], "is shorter than|cannot be had"),
    ):
        s3.put_object(Bucket="ours", Key="town/big.tar", Body=body)
        with pytest.raises((DataError, SiteError), match=sentence):
            kept.fetch([file])
    for url in ("s3://ours/town/absent.tar", "s3://nobodys/x"):
        with pytest.raises(DataError, match=f"there is no {url}: check the address"):
            transfer.read(url)
    # without credentials
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    sys.modules["s3fs"].S3FileSystem.clear_instance_cache()
    with pytest.raises(SiteError, match="no credentials: set those of the store, or FSSPEC_S3_ANON=true"):
        transfer.read("s3://ours/town/big.tar")
