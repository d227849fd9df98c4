"""The token cache: valid tokens of both encoders in bf16."""

from __future__ import annotations

import io
import json
import shutil
import signal

import children
import numpy as np
import pytest
import torch
import webdataset as wds
from safetensors.torch import load_file, save_file
from tiny_shards import write_cohort

from bhx_model import contract, device
from bhx_model.data import augment, shard_hashes, shards, token_index
from bhx_model.errors import SiteError
from bhx_model.file_hash import file_sha256
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.training import board, token_files, tokens, train
from bhx_model.training.distributed import ALONE, Processes
from bhx_model.training.encoders import Encoders


def encode_again(trained, run, volume):
    """Tokens of a pair straight from the encoders."""
    encoders = Encoders.open(trained["structure"], trained["function"])
    return encoders.encode(encoders.load([(run, volume)]))


def test_tokens_are_the_encoders_rounded(trained):
    packed = shards.open_index(trained["town"])
    cached = {f.key: (f, s) for f, s in token_index.pairs(token_index.open_tokens(trained["tokens_town"]))}
    pairs, _ = shards.pair(packed.samples["bold"], packed.samples["t1w"])
    assert set(cached) == {run.key for run, _ in pairs}
    for run, volume in pairs[:4]:
        structure, function, weight = encode_again(trained, run, volume)
        read = token_index.read_pairs([cached[run.key]], 20)
        for ours, theirs in ((read["structure"], structure), (read["function"], function)):
            assert ours.dtype == torch.bfloat16
            # the batch is another, so float32 rounds otherwise before it is rounded to bf16
            torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(read["weight"], weight)


def test_only_valid_tokens_are_stored(trained):
    index = token_index.open_tokens(trained["tokens_town"])
    runs = {s.key: s for s in shards.open_index(trained["town"]).samples["bold"]}
    assert set(index.shards) == {"function", "structure"}
    # subject 0 has two runs and one T1
    assert len(index.samples["function"]) == 12
    assert len(index.samples["structure"]) == 11
    for sample in index.samples["function"]:
        run = runs[sample.key]
        frames = round(35.28 / run.tr_s)
        assert sample.n_tokens == 20 * -(-run.n_frames // frames)
        assert sample.last_share == pytest.approx((run.n_frames % frames or frames) / frames)
        assert sample.absent == ((3,) if "sub-001" in sample.key else ())
        assert sample.size == sample.n_tokens * 64 * 2 + 128
    for listed in index.shards.values():
        for shard in listed:
            assert not np.load(io.BytesIO(_first_member(shard.path)), allow_pickle=False).dtype.hasobject


def test_reading_runs_ahead_of_encoding(trained, tmp_path, monkeypatch):
    """While the first batch of a modality is encoded, the second is read; what is written stays the same."""
    monkeypatch.setattr(token_files, "BATCH", 4)
    read = {"bold": 0, "t1w": 0}
    for modality, name in (("bold", "read_bold"), ("t1w", "read_t1w_into")):
        reader = getattr(shards, name)

        def counted(*more, modality=modality, reader=reader):
            read[modality] += 1
            return reader(*more)

        monkeypatch.setattr(shards, name, counted)
    waited = set()
    for encoder, modality in ((StructureMAE, "t1w"), (FunctionJEPA, "bold")):
        encode = encoder.encode

        def waiting(self, *more, modality=modality, encode=encode):
            if modality not in waited:
                waited.add(modality)
                children.wait_for(lambda: read[modality] > 4, 10)
            return encode(self, *more)

        monkeypatch.setattr(encoder, "encode", waiting)
    packed = write_cohort(tmp_path / "town", "town", subjects=12, batches=1)
    words = (trained["structure"], trained["function"], packed, trained["rois"])
    ahead = tokens.write_cache(*words, tmp_path / "ahead")
    assert waited == {"t1w", "bold"}
    plain = tokens.write_cache(*words, tmp_path / "plain", workers=0)
    assert {p.name: p.read_bytes() for p in ahead.parent.iterdir()} == {
        p.name: p.read_bytes() for p in plain.parent.iterdir()
    }


def _first_member(path):
    return next(iter(wds.WebDataset(str(path), shardshuffle=False)))["bf16.npy"]


def test_a_uk_biobank_pair_fits_in_8700_kilobytes(tmp_path):
    base = {stage: train.load_preset(stage, "base").model for stage in ("function", "structure")}
    n_patches = augment.plan_series(0.735, 490, base["function"]).n_patches
    n_tokens = {"function": 400 * n_patches, "structure": 160 * 192 * 160 // base["structure"].patch ** 3}
    assert n_tokens == {"function": 4400, "structure": 1200}
    for modality, n in n_tokens.items():
        row = dict.fromkeys(token_index.LIST_COLUMNS[modality], "x" * 40)
        tokens_ = torch.zeros(n, base[modality].width, dtype=torch.bfloat16)
        token_files._write_tar(
            tmp_path / f"{modality}.tar", tmp_path / f"{modality}.json", modality, "", [(row, tokens_)]
        )
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 8.7e6


def test_excluded_runs_are_listed(trained):
    metadata = json.loads(trained["tokens_town"].read_text())
    excluded = {"subject": "011", "key": "town_sub-011_task-rest_run-1", "reason": "the run has no T1"}
    assert metadata["excluded"] == [excluded]
    assert metadata["synthetic"] is True


def test_a_cohort_without_pairs_is_an_empty_cache(trained, tmp_path, capfd):
    packed = write_cohort(tmp_path / "lone", "lone", subjects=1, batches=1)
    metadata = json.loads(packed.read_text())
    packed.write_text(json.dumps({**metadata, "t1w_shape": None}))
    rois = trained["rois"]
    out = tokens.write_cache(trained["structure"], trained["function"], packed, rois, tmp_path / "tokens")
    index = token_index.open_tokens(out)
    assert token_index.pairs(index) == []
    assert [row["reason"] for row in index.metadata["excluded"]] == ["the run has no T1"] * 2
    assert "learns nothing from this cohort" in capfd.readouterr().err


def test_whole_batches_are_not_encoded_again(trained, tmp_path, monkeypatch):
    out = shutil.copytree(trained["tokens_town"].parent, tmp_path / "tokens")
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    content = bytearray(before["function-00001.tar"])
    content[3000] ^= 1
    (out / "function-00001.tar").write_bytes(content)
    (out / "function-00000.json").write_bytes(b"")  # as a disk may leave it that lost its power
    (out / "index.json").unlink()
    encoded = []
    encode = FunctionJEPA.encode
    monkeypatch.setattr(FunctionJEPA, "encode", lambda *a: encoded.append("function") or encode(*a))
    monkeypatch.setattr(StructureMAE, "encode", lambda *a: pytest.fail("structure tokens were whole"))
    tokens.write_cache(trained["structure"], trained["function"], trained["town"], trained["rois"], out)
    assert set(encoded) == {"function"}
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize(
    "damage",
    [
        {"offset": [0] * 6},
        {"size": [2] * 6},
        {"key": ["town_sub-000"]},
        {"n_tokens": None},
        {"bytes": 1},
        {"more": 1},
    ],
)
def test_a_list_that_says_something_else_than_its_tokens_is_written_again(trained, tmp_path, damage):
    """It is JSON all the same, and would be refused by every training that reads it."""
    out = shutil.copytree(trained["tokens_town"].parent, tmp_path / "tokens")
    listed = out / "structure-00001.json"
    before = listed.read_bytes()
    listed.write_text(json.dumps({**json.loads(before), **damage}))
    tokens.write_cache(trained["structure"], trained["function"], trained["town"], trained["rois"], out)
    assert listed.read_bytes() == before
    token_index.open_tokens(out / "index.json")


def test_tokens_are_computed_on_the_device_that_is_named(trained, tmp_path, monkeypatch, capsys):
    """By several processes, too; and where it is not here nothing is computed on another."""
    on = []
    monkeypatch.setattr(tokens, "write_cache", lambda *_, processes, **__: on.append(processes))
    monkeypatch.setenv(device.DEVICE, "mps")
    assert tokens.main(_command(trained, tmp_path)) == 1
    assert "finds no GPU of Apple here: set device: auto" in capsys.readouterr().err
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert tokens.main(_command(trained, tmp_path)) == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv(device.DEVICE, "cpu")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert tokens.main(_command(trained, tmp_path)) == 0
    assert on == [Processes(0, 1, torch.device("mps")), Processes(1, 2, torch.device("cpu"))]


def _tokens_of(sample) -> torch.Tensor:
    """Tokens of a sample, (N, D) float32."""
    return torch.from_numpy(shards.read_array(sample)).view(torch.bfloat16).float()


def test_tokens_of_other_weights_are_encoded_again(trained, tmp_path):
    out = shutil.copytree(trained["tokens_town"].parent, tmp_path / "tokens")
    function = shutil.copytree(trained["function"], tmp_path / "function")
    weights = load_file(function / "model.safetensors")
    weights["target.norm.bias"] += 1.0
    save_file(weights, function / "model.safetensors")
    before = token_index.open_tokens(out / "index.json").samples["function"]
    read = {sample.key: _tokens_of(sample) for sample in before}
    tokens.write_cache(trained["structure"], function, trained["town"], trained["rois"], out)
    after = token_index.open_tokens(out / "index.json").samples["function"]
    assert {sample.key for sample in after} == read.keys()
    for sample in after:
        moved = _tokens_of(sample) - read[sample.key]
        torch.testing.assert_close(moved, torch.ones_like(moved), rtol=0, atol=0.05)


def test_tokens_of_an_older_version_are_encoded_again(trained, tmp_path, monkeypatch):
    out = shutil.copytree(trained["tokens_town"].parent, tmp_path / "tokens")
    before = {p.name: p.read_bytes() for p in out.glob("*.tar")}
    words = (trained["structure"], trained["function"], trained["town"], trained["rois"], out)
    listed = out / "function-00001.json"
    about = json.loads(listed.read_bytes())
    tar = out / "function-00001.tar"
    tar.write_bytes(tar.read_bytes() + b"by older code")  # beyond the archive's end
    about |= {"sha256": file_sha256(tar), "bytes": tar.stat().st_size}
    listed.write_bytes(contract.canonical_json(about))
    old = tar.read_bytes()
    tokens.write_cache(*words)
    assert tar.read_bytes() == old, "of the same version"
    tokens.write_cache(*words, step_version=7)
    assert {p.name: p.read_bytes() for p in out.glob("*.tar")} == before
    with monkeypatch.context() as newer:
        newer.setattr(token_index, "TOKENS_VERSION", 99)
        encoded = []
        newer.setattr(
            tokens, "write_files", lambda _, files, *more: encoded.extend(f.modality for f in files)
        )
        tokens.write_cache(*words, step_version=7)
        assert set(encoded) == {"function", "structure"}


def test_tokens_of_the_same_weights_with_other_settings_are_encoded_again(trained, tmp_path):
    """As of given weights whose settings were read wrongly before: neither cache nor run is taken for theirs."""
    out = shutil.copytree(trained["tokens_town"].parent, tmp_path / "tokens")
    function = shutil.copytree(trained["function"], tmp_path / "function")
    before = {p.name: p.read_bytes() for p in out.glob("*.tar")}
    run = json.loads((function / "run.json").read_text())
    run["config"]["model"]["checkpointing"] = True
    (function / "run.json").write_text(json.dumps(run))
    times = {p.name: p.stat().st_mtime_ns for p in out.glob("*.tar")}
    tokens.write_cache(trained["structure"], function, trained["town"], trained["rois"], out)
    assert {p.name: p.stat().st_mtime_ns for p in out.glob("*.tar")} == times, "it decides nothing"
    run["config"]["model"]["resize"] = "reference"
    (function / "run.json").write_text(json.dumps(run))
    tokens.write_cache(trained["structure"], function, trained["town"], trained["rois"], out)
    after = {p.name: p.read_bytes() for p in out.glob("*.tar")}
    assert all((after[name] == before[name]) == name.startswith("structure") for name in before)
    one, other = (Encoders.open(trained["structure"], folder) for folder in (trained["function"], function))
    assert one.hashes == other.hashes
    assert one.settings != other.settings


def _command(trained, out):
    words = ["--structure", str(trained["structure"]), "--function", str(trained["function"])]
    words += ["--shards", str(trained["town"]), "--rois", str(trained["rois"])]
    return [*words, "--out", str(out)]


def die_after_a_file():
    write = token_files._write_tar

    def once(*arguments):
        write(*arguments)
        children.die()

    token_files._write_tar = once


def test_several_processes_write_the_files_of_one(trained, tmp_path):
    """Also when one of them is killed, and the same is started again."""
    whole = {p.name: p.read_bytes() for p in trained["tokens_town"].parent.iterdir()}
    out = tmp_path / "tokens"
    pair = children.start_all(_command(trained, out), 2, faults={1: die_after_a_file}, main=tokens.main)
    children.wait_for(lambda: pair[1].exitcode is not None)
    children.kill(pair[0])  # as torchrun does
    assert pair[1].exitcode == -signal.SIGKILL
    assert not (out / "index.json").exists()
    done = {p.name: p.stat().st_mtime_ns for p in out.glob("[!.]*.json")}
    assert done
    pair = children.start_all(_command(trained, out), 2, log=tmp_path / "log", main=tokens.main)
    assert children.end(pair) == [0, 0]
    assert {p.name: p.read_bytes() for p in out.iterdir() if not p.name.startswith(".")} == whole
    assert done.items() <= {p.name: p.stat().st_mtime_ns for p in out.iterdir()}.items()
    # each had a share of it
    assert "4 files, 2 of them by this process" in (tmp_path / "log.0").read_text()


def fill_the_disk():
    token_files._write_tar = lambda *more: children.fill_disk()


@pytest.mark.parametrize("rank", [0, 1])
def test_all_processes_end_with_the_error_of_one(trained, tmp_path, rank):
    faults = {rank: fill_the_disk}
    pair = children.start_all(
        _command(trained, tmp_path / "out"), 2, faults=faults, log=tmp_path / "log", main=tokens.main
    )
    assert children.end(pair)[0] == 1
    (said,) = [line for line in (tmp_path / "log.0").read_text().splitlines() if " ERROR " in line]
    assert "No space left on device" in said
    assert not (tmp_path / "out" / "index.json").exists()


@pytest.mark.parametrize("fault", ["gone", "damaged"])
def test_a_shard_that_is_lost_while_it_is_encoded_is_a_sentence(trained, tmp_path, monkeypatch, capfd, fault):
    town = shutil.copytree(trained["town"].parent, tmp_path / "town") / "index.json"
    monkeypatch.setattr(shard_hashes, "verify", lambda listed: _spoil(town.parent / "t1w-00001.tar", fault))
    assert tokens.main(_command({**trained, "town": town}, tmp_path / "out")) == 1
    (said,) = [line for line in capfd.readouterr().err.splitlines() if " ERROR " in line]
    assert {"gone": "t1w-00001.tar is gone", "damaged": "t1w-00001.tar: no stored T1"}[fault] in said
    assert not (tmp_path / "out" / "structure-00001.tar").exists()
    assert not list((tmp_path / "out").glob(".part*"))


def _spoil(tar, fault):
    size = tar.stat().st_size
    tar.unlink()
    if fault == "damaged":
        tar.write_bytes(bytes(size))


def test_the_first_process_waits_for_all_and_hears_what_went_wrong(monkeypatch):
    monkeypatch.setattr(board, "PAUSE_S", 0.0)
    alone = board.Board(ALONE)
    alone.say()
    alone.wait()
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda *a, **k: iter([(store, 0, 3)]))
    store = torch.distributed.HashStore()
    first, second = (board.Board(Processes(rank, 3, ALONE.device)) for rank in range(2))
    first.say()
    second.say("the disk is full")
    with pytest.raises(SiteError, match="the disk is full"):
        first.wait()  # though the third has not said anything
