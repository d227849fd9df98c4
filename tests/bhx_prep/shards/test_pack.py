from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from feature_files import GRID, read, volume, write_features
from settings_files import settings_file

from bhx_model import contract
from bhx_model.atomic_write import write_json
from bhx_model.data import timeseries
from bhx_model.data.volumes import encode
from bhx_prep.shards import command, index_json, pack, verify


def series(seed: int, frames: int = 20, rois: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rois, frames)).astype(np.float32)


def index_words(out: Path) -> list[str]:
    return [
        "index",
        "--cohort",
        "clinic",
        "--shards",
        str(out),
        "--batches",
        settings_file(["00000"]),
        "--out",
        str(out / "index.json"),
    ]


@pytest.fixture
def features(tmp_path: Path) -> Path:
    uncovered = series(3)
    uncovered[4] = np.nan
    return write_features(
        tmp_path / "features",
        "clinic",
        # not in order; person 3 has no T1, person 4 no BOLD, person 1 two runs
        {"sub-3_task-rest": series(2), "sub-10_task-rest": uncovered, "sub-1_task-rest_run-2": series(1, 33)}
        | {"sub-1_task-rest_run-1": series(0)},
        {"sub-10": volume(1), "sub-4": volume(2), "sub-1": volume(0)},
    )


@pytest.fixture
def folder(features: Path, tmp_path: Path) -> Path:
    out = tmp_path / "shards"
    pack.pack("clinic", 0, features, out)
    write_json(out / "index.json", index_json.collect("clinic", out, range(1)), canonical=True)
    return out


def test_order_is_by_subject_then_key(folder: Path) -> None:
    bold, t1w = (json.loads((folder / f"{m}-00000.json").read_text()) for m in contract.MODALITIES)
    assert bold["key"] == [
        "clinic_sub-1_task-rest_run-1",
        "clinic_sub-1_task-rest_run-2",
        "clinic_sub-10_task-rest",
        "clinic_sub-3_task-rest",
    ]
    assert t1w["key"] == ["clinic_sub-1", "clinic_sub-10", "clinic_sub-4"]
    both = [s for s in dict.fromkeys(bold["subject"]) if s in t1w["subject"]]
    assert both == [s for s in t1w["subject"] if s in bold["subject"]]
    assert bold["anat"] == ["clinic_sub-1", "clinic_sub-1", "clinic_sub-10", None]


def test_lists_hold_the_contracts_columns_and_true_places(folder: Path) -> None:
    for modality in contract.MODALITIES:
        listed = json.loads((folder / f"{modality}-00000.json").read_text())
        assert set(listed) == {*contract.LIST_COLUMNS[modality], "about"}
        raw = (folder / f"{modality}-00000.tar").read_bytes()
        for i, key in enumerate(listed["key"]):
            array = read(modality, raw[listed["offset"][i] :][: listed["size"][i]])
            meta = json.loads(raw[listed["meta_offset"][i] :][: listed["meta_size"][i]])
            assert array.dtype == contract.ARRAYS[modality][1]
            assert meta["subject"] == listed["subject"][i]
            assert key.startswith(f"clinic_sub-{meta['subject']}")


def test_values_survive(folder: Path) -> None:
    listed = json.loads((folder / "bold-00000.json").read_text())
    i = listed["key"].index("clinic_sub-1_task-rest_run-2")
    raw = (folder / "bold-00000.tar").read_bytes()
    array = read("bold", raw[listed["offset"][i] :][: listed["size"][i]])
    np.testing.assert_allclose(array, series(1, 33), atol=series(1, 33).std(1).max() / 4096)


def test_equal_inputs_give_equal_bytes(features: Path, folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    pack.pack("clinic", 0, features, again)
    for name in ("bold-00000.tar", "bold-00000.json", "t1w-00000.tar", "t1w-00000.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    with tarfile.open(folder / "t1w-00000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "bhx")


@pytest.mark.parametrize(
    ("function", "call"),
    [("_Tar.add", 3), ("_Tar.close", 2), ("Path.replace", 1), ("write_json", 1), ("write_json", 2)],
)
def test_a_killed_packing_gives_the_same_bytes_when_run_again(
    features: Path, folder: Path, tmp_path: Path, kill_at, function: str, call: int
) -> None:
    # over the shards of an earlier packing, which had other subjects
    out = tmp_path / "again"
    earlier = write_features(
        tmp_path / "earlier", "clinic", {"sub-7_task-rest": series(9)}, {"sub-7": volume(9)}
    )
    pack.pack("clinic", 0, earlier, out)
    words = ["pack", "--cohort", "clinic", "--batch", "0", "--features", str(features), "--out", str(out)]
    kill_at("bhx_prep.shards.command", f"pack.{function}", call, words)
    assert command.main(words) == 0
    names = {"bold-00000.tar", "bold-00000.json", "t1w-00000.tar", "t1w-00000.json"}
    assert {path.name for path in out.iterdir()} == names
    for name in names:
        assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_a_killed_index_gives_the_same_bytes_when_run_again(features: Path, check_kill) -> None:
    def words(out: Path) -> list[str]:
        if not out.exists():
            pack.pack("clinic", 0, features, out)
        return index_words(out)

    check_kill("bhx_prep.shards.command", "Path.replace", 1, words)


@pytest.mark.parametrize("name", ["bold.arrow", "t1w.arrow"])
def test_features_whose_bytes_went_bad_are_refused(features: Path, tmp_path: Path, name: str) -> None:
    raw = (features / name).read_bytes()
    arrays = {"bold.arrow": timeseries.encode(series(2)), "t1w.arrow": encode(volume(2))}
    _flip(features / name, raw.index(arrays[name]) + 40)
    with pytest.raises(
        ValueError, match=rf"{name} .*another checksum.*: extract the features of this batch again"
    ):
        pack.pack("clinic", 0, features, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".part*"))


def test_bytes_of_a_tar_are_those_of_this_commit(tmp_path: Path) -> None:
    # a change of these bytes retrains every model: raise the step version and say why
    fixed = {"sub-1_task-rest": np.arange(24, dtype=np.float32).reshape(6, 4)}
    features = write_features(tmp_path / "f", "clinic", fixed, {"sub-1": np.zeros(GRID, np.float32)})
    bold, t1w = pack.pack("clinic", 7, features, tmp_path / "out")
    assert [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (bold, t1w)] == [
        "1f08d3b7a6f0f3b6",
        "adce033c69845af1",
    ]


def test_webdataset_reads_them(folder: Path) -> None:
    import webdataset

    for modality, n in (("bold", 4), ("t1w", 3)):
        found = list(webdataset.WebDataset(str(folder / f"{modality}-00000.tar"), shardshuffle=False))
        listed = json.loads((folder / f"{modality}-00000.json").read_text())
        assert [sample["__key__"] for sample in found] == listed["key"]
        assert len(found) == n
        for sample in found:
            array = read(modality, sample[contract.ARRAYS[modality][0]])
            assert array.ndim == len(contract.ARRAYS[modality][2])
            assert json.loads(sample["meta.json"])["cohort"] == "clinic"


def test_bytes_are_those_of_webdatasets_writer(folder: Path, tmp_path: Path) -> None:
    from webdataset import TarWriter

    for modality in contract.MODALITIES:
        tar = folder / f"{modality}-00000.tar"
        with tarfile.open(tar) as archive:
            members = {info.name: archive.extractfile(info).read() for info in archive}
        with TarWriter(str(tmp_path / tar.name), encoder=False, mtime=0, user="bhx", group="bhx") as writer:
            for key in json.loads(tar.with_suffix(".json").read_text())["key"]:
                parts = {
                    name.split(".", 1)[1]: raw
                    for name, raw in members.items()
                    if name.split(".", 1)[0] == key
                }
                writer.write({"__key__": key} | parts)
        assert (tmp_path / tar.name).read_bytes() == tar.read_bytes()


def test_index_satisfies_the_contract(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    contract.check_index(index)
    assert index["t1w_shape"] == list(GRID)
    assert index["t1w_zooms_mm"] == [2.0, 2.0, 2.0]
    assert index["synthetic"] is True
    for modality in contract.MODALITIES:
        (shard,) = index["shards"][modality]
        assert set(shard) == {"file", "sha256", "bytes", "n", "list", "list_sha256"}
        for name, sha in (("file", "sha256"), ("list", "list_sha256")):
            assert hashlib.sha256((folder / shard[name]).read_bytes()).hexdigest() == shard[sha]


def test_index_of_two_thousand_batches_stays_below_a_megabyte(folder: Path, tmp_path: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    index["roi_names"] = [f"17Networks_LH_SalVentAttnA_FrOperIns_{i}" for i in range(1000)]
    for modality in contract.MODALITIES:
        (shard,) = index["shards"][modality]
        index["shards"][modality] = [
            shard
            | {"file": f"{modality}-{i:05d}.tar", "list": f"{modality}-{i:05d}.json", "bytes": 10**9, "n": 20}
            for i in range(2000)
        ]
    write_json(tmp_path / "large.json", index, canonical=True)
    assert (tmp_path / "large.json").stat().st_size < 1_000_000


def test_empty_batch_is_a_batch(tmp_path: Path) -> None:
    features = write_features(tmp_path / "f", "clinic", {}, {})
    pack.pack("clinic", 0, features, tmp_path / "s")
    full = write_features(tmp_path / "g", "clinic", {"sub-1_task-rest": series(0)}, {"sub-1": volume(0)})
    pack.pack("clinic", 1, full, tmp_path / "s")
    index = index_json.collect("clinic", tmp_path / "s", range(2))
    assert [s["n"] for s in index["shards"]["bold"]] == [0, 1]
    assert index["t1w_shape"] == list(GRID)
    write_json(tmp_path / "s" / "index.json", index, canonical=True)
    assert verify.verify(tmp_path / "s") == []


def test_verify_is_content_with_good_shards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out.strip().endswith("ok")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "bold-00000.tar").unlink(), "bold-00000.tar"),
        (lambda f: _flip(f / "t1w-00000.tar", 600), "not those that index.json hashes"),
        (lambda f: (f / "t1w-00000.json").write_text("{}"), "not the file that its index.json hashes"),
        (lambda f: (f / "index.json").write_text("{"), "not JSON"),
        (lambda f: (f / "index.json").unlink(), "cannot read the shard index"),
        (lambda f: _truncate(f / "bold-00000.tar"), "not those that index.json hashes"),
    ],
)
def test_verify_finds_damage(folder: Path, damage, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    damage(folder)
    assert command.main(["verify", str(folder)]) == 1
    assert says in capsys.readouterr().err


def _flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2048])


def test_verify_finds_a_t1_that_is_nowhere(folder: Path, features: Path, tmp_path: Path) -> None:
    # T1 tar of a batch that lacks person 1, hashed by a fresh index: every file is sound, the pairs are not
    other = write_features(tmp_path / "other", "clinic", {}, {"sub-4": volume(2)})
    pack.pack("clinic", 0, other, tmp_path / "b")
    for name in ("t1w-00000.tar", "t1w-00000.json"):
        (folder / name).write_bytes((tmp_path / "b" / name).read_bytes())
    write_json(folder / "index.json", index_json.collect("clinic", folder, range(1)), canonical=True)
    faults = verify.verify(folder)
    assert "clinic_sub-1_task-rest_run-1: its T1 clinic_sub-1 is in no shard" in faults
    assert len(faults) == 3


def test_index_names_a_missing_batch(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"bold-00001.json is missing .*: pack this batch first"):
        index_json.collect("clinic", folder, range(2))


def test_index_refuses_batches_of_two_atlases(folder: Path, tmp_path: Path) -> None:
    features = write_features(tmp_path / "g", "clinic", {"sub-9_task-rest": series(0, rois=8)}, {}, n_rois=8)
    pack.pack("clinic", 1, features, folder)
    with pytest.raises(ValueError, match=r"bold-00000.json and bold-00001.json differ in roi_names"):
        index_json.collect("clinic", folder, range(2))


def test_index_refuses_a_tar_that_is_not_its_lists(folder: Path) -> None:
    _truncate(folder / "t1w-00000.tar")
    with pytest.raises(ValueError, match=r"bytes, its list says .*: pack this batch again"):
        index_json.collect("clinic", folder, range(1))


@pytest.mark.parametrize(
    ("bold", "t1w", "says"),
    [
        ({}, {"sub-1": volume(0), "sub-2": np.zeros((4, 4, 4), np.float32)}, "volumes of several grids"),
        ({f"sub-1_task-{'a' * 90}": np.zeros((6, 9), np.float32)}, {}, "a tar takes 85"),
    ],
)
def test_features_that_break_the_contract_are_refused(tmp_path: Path, bold, t1w, says: str) -> None:
    features = write_features(tmp_path / "f", "clinic", bold, t1w)
    with pytest.raises(ValueError, match=says):
        pack.pack("clinic", 0, features, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".part*"))


def test_key_of_another_cohort_is_refused(features: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a key of cohort town"):
        pack.pack("town", 0, features, tmp_path / "out")


def test_command_line_packs_indexes_lists_and_shows(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cli"
    assert (
        command.main(
            ["pack", "--cohort", "clinic", "--batch", "0", "--features", str(features), "--out", str(out)]
        )
        == 0
    )
    assert command.main(index_words(out)) == 0
    assert command.main(["ls", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "bold-00000.tar\tclinic_sub-1_task-rest_run-2\t33 x 2 s\tclinic_sub-1"
    assert len(lines) == 7
    assert command.main(["cat", str(out), "clinic_sub-10_task-rest"]) == 0
    text = capsys.readouterr().out
    assert "bold-00000.tar\troi x frame: 6 x 20\t" in text
    assert "16.7% NaN" in text
    assert command.main(["cat", str(out), "clinic_sub-10"]) == 0
    assert f"t1w-00000.tar\tx x y x z: {GRID[0]} x {GRID[1]} x {GRID[2]}\t" in capsys.readouterr().out
    assert command.main(["cat", str(out), "clinic_sub-99"]) == 1
    assert "bhx shards ls" in capsys.readouterr().err


def test_a_fault_is_one_sentence_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bhx_prep.shards.command", "verify", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_reading_shards_needs_no_torch() -> None:
    modules = "bhx_prep.shards.command, bhx_prep.evaluation.baselines, bhx_prep.evaluation.splits"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
