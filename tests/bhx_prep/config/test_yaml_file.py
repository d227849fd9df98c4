"""A configuration that YAML cannot read, or reads otherwise than it looks, is one sentence with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhx_model.errors import ConfigError
from bhx_prep.config import yaml_file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\ncohorts:\n\tmine: {}\n", "config.yaml, line 3: a tab"),
        (b"cohorts: {mine: {input: bids}\n", "not YAML.*starts at line 1.*bracket missing"),
        (b"a: 1\n# \xe9t\xe9\n", "config.yaml, line 2: not UTF-8"),
        (b"- a\n- b\n", "has no keys"),
        (b"only words\n", "has no keys"),
        (b"cohorts:\n  a: {root: x}\n  a: {root: y}\n", "line 3: cohorts.a occurs twice"),
        (b"cohorts: &a\n  x: *a\n", "anchors .&. repeat themselves without end"),
        (
            b"x0: &x0 [1, 1, 1, 1]\n"
            + b"".join(
                b"x%d: &x%d [%s]\n" % (i, i, b", ".join([b"*x%d" % (i - 1)] * 9)) for i in range(1, 9)
            ),
            "anchors .&. repeat themselves without end",
        ),
        (b"x: [{root: x, root: y}]\n", "line 1: x.0.root occurs twice"),
    ],
)
def test_what_yaml_does_not_say_is_a_sentence(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        yaml_file.read(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("written", "read_as"),
    [("010", "8"), ("-01", "-1"), ("00", "0"), ("0x1F", "31"), ("0b11", "3"), ("1_0", "10"), ("1:30", "90"),
     ("1_0.5", "10.5"), ("1:30.5", "90.5"), ("2019-03-01", "a date"), ("2019-03-01 10:00:00", "a date")],
)  # fmt: skip
@pytest.mark.parametrize(
    "content",
    [
        "a: 1\nrun: VALUE\n",
        "a: 1\nruns: [10, VALUE]\n",
        "a: 1\n? VALUE\n: 2\n",
        "a: 1\nb: {x: [{y: VALUE}]}\n",
    ],
)
def test_a_number_that_yaml_reads_otherwise_is_refused(
    tmp_path: Path, content: str, written: str, read_as: str
):
    file = tmp_path / "config.yaml"
    file.write_text(content.replace("VALUE", written))
    with pytest.raises(ConfigError, match=rf"^{file}, line 2: YAML reads {written} as {read_as}") as error:
        yaml_file.read(file)
    assert "quotes" in str(error.value)
    file.write_text(content.replace("VALUE", f'"{written}"'))
    assert yaml_file.read(file)["a"] == 1


def test_numbers_as_they_are_written_and_text_stay(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("x: [0, -7, +7, 10, 0.5, 1.0e-3, 08, 1e3, 001a, '010', -9999, n/a]\n")
    assert yaml_file.read(file)["x"] == [
        0, -7, 7, 10, 0.5, 0.001, "08", "1e3", "001a", "010", -9999, "n/a"
    ]  # fmt: skip


def test_every_such_number_is_named(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("x: [010, &a 011]\nx: *a\ny: 012\n")
    with pytest.raises(ConfigError) as error:
        yaml_file.read(file)
    assert [mistake.split(", ", 1)[1].split(":")[0] for mistake in error.value.mistakes] == [
        "line 2", "line 1", "line 1", "line 3"
    ]  # fmt: skip


def test_what_is_right_is_read(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xef\xbb\xbfbase: &b {x: 1}\r\nother: {<<: *b, y: [1, 1]}\r\n")  # as Windows saves it
    assert yaml_file.read(file) == {"base": {"x": 1}, "other": {"x": 1, "y": [1, 1]}}
    file.write_bytes(b"# nothing yet\n")
    assert yaml_file.read(file) == {}


def test_a_file_that_is_not_there_says_where_to_find_one(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"there is no config\.yaml here.*bhx init"):
        yaml_file.check_files([Path("config.yaml")])
    with pytest.raises(ConfigError, match="it is a folder: name the file"):
        yaml_file.read(tmp_path)
