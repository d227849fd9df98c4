from __future__ import annotations

from pathlib import Path

import pytest
from clinic_shards import flip, truncate
from feature_files import volume, write_features

from bhx_model.atomic_write import write_json
from bhx_prep.shards import command, index_json, pack, verify


def test_verify_is_content_with_good_shards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out.strip().endswith("ok")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "bold-00000.tar").unlink(), "bold-00000.tar"),
        (lambda f: flip(f / "t1w-00000.tar", 600), "not those that index.json hashes"),
        (lambda f: (f / "t1w-00000.json").write_text("{}"), "not the file that its index.json hashes"),
        (lambda f: (f / "index.json").write_text("{"), "not JSON"),
        (lambda f: (f / "index.json").unlink(), "cannot read the shard index"),
        (lambda f: truncate(f / "bold-00000.tar"), "not those that index.json hashes"),
    ],
)
def test_verify_finds_damage(folder: Path, damage, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    damage(folder)
    assert command.main(["verify", str(folder)]) == 1
    assert says in capsys.readouterr().err


def test_verify_finds_a_t1_that_is_nowhere(folder: Path, features: Path, tmp_path: Path) -> None:
    # T1 tar of a batch that lacks subject 1, hashed by a fresh index: every file is sound, the pairs are not
    other = write_features(tmp_path / "other", "clinic", {}, {"sub-4": volume(2)})
    pack.pack("clinic", 0, other, tmp_path / "b")
    for name in ("t1w-00000.tar", "t1w-00000.json"):
        (folder / name).write_bytes((tmp_path / "b" / name).read_bytes())
    write_json(folder / "index.json", index_json.collect("clinic", folder, range(1)), canonical=True)
    faults = verify.verify(folder)
    assert "clinic_sub-1_task-rest_run-1: its T1 clinic_sub-1 is in no shard" in faults
    assert len(faults) == 3
