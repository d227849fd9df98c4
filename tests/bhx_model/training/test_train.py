"""The loop: resumed runs, several processes, stops and errors."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import children
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_shards import write_cohort, write_rois, write_split

from bhx_model.nets import factory
from bhx_model.training import checkpoint, loop, runlog, stages, train
from bhx_model.training.run_folder import lock_run_dir

SIX = {
    "train.steps": 6,
    "train.warmup_steps": 2,
    "train.batch_size": 4,
    "train.save_every": 3,
    "train.log_every": 2,
}


def arguments(house, folder, stage, changes=SIX, **more):
    words = ["--stage", stage, "--preset", "tiny", "--set", json.dumps(changes)]
    words += ["--shards", str(house["town"]), str(house["ward"])]
    words += ["--split", str(house["split"]), "--rois", str(house["rois"])]
    words += ["--run-root", str(folder / "runs"), "--out", str(folder / "out")]
    for name, value in more.items():
        words += [f"--{name}", *([value] if isinstance(value, str) else value)]
    return words


def run_folder(folder):
    (found,) = (folder / "runs").iterdir()
    return found


def stopped_after(steps):
    """A should_stop that is true after so many calls."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) == steps


def train_here(house, folder, stage, changes=SIX, should_stop=lambda: False, **more):
    """Run the loop in this process."""
    words = train._parse(arguments(house, folder, stage, changes, **more))
    config = train.load_preset(stage, "tiny").override(changes)
    sources = stages.Sources(shards=words.shards, split=words.split, rois=words.rois, tokens=words.tokens)
    return train.train(
        config, sources, seed=0, run_root=words.run_root, out=words.out, workers=words.workers,
        processes=train.Processes(0, 1, torch.device("cpu")), should_stop=should_stop,
    )  # fmt: skip


def same_weights(one, other):
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def straight(house, tmp_path_factory):
    """Six steps without a stop, of both encoders."""
    folder = tmp_path_factory.mktemp("straight")
    for stage in ("structure", "function"):
        assert train_here(house, folder / stage, stage) == 0
    return folder


@pytest.mark.parametrize("stage", ["structure", "function"])
@pytest.mark.parametrize("steps", [2, 3, 4])
def test_stopped_and_resumed_equals_straight_bit_for_bit(house, straight, tmp_path, stage, steps):
    assert train_here(house, tmp_path, stage, should_stop=stopped_after(steps)) == 75
    assert not (tmp_path / "out").exists()
    assert checkpoint.steps(run_folder(tmp_path))[-1] == steps
    assert train_here(house, tmp_path, stage) == 0
    same_weights(tmp_path / "out", straight / stage / "out")
    assert lines(tmp_path / "out/metrics.jsonl") == lines(straight / stage / "out/metrics.jsonl")
    ours, theirs = (
        json.loads((f / "run.json").read_text()) for f in (tmp_path / "out", straight / stage / "out")
    )
    assert {k: v for k, v in ours.items() if k != "seconds"} == {
        k: v for k, v in theirs.items() if k != "seconds"
    }
    assert ours["counts"]["samples_seen"] == {"structure": 22, "function": 18}[stage]


def test_killed_and_started_again_equals_straight(house, tmp_path):
    changes = {**SIX, "train.steps": 40, "train.save_every": 2, "train.log_every": 1}
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    child = children.start(arguments(house, killed, "function", changes))
    places = list(killed.glob("runs/*/metrics.jsonl"))
    children.wait_for(lambda: places or places.extend(killed.glob("runs/*/metrics.jsonl")))
    children.wait_for(lambda: places[0].read_text().count('"lr"') >= np.random.default_rng().integers(5, 20))
    children.kill(child)
    assert child.exitcode == -signal.SIGKILL
    assert not (killed / "out").exists()
    reached = checkpoint.steps(run_folder(killed))
    assert reached
    assert reached[-1] < 40
    assert children.end([children.start(arguments(house, killed, "function", changes))]) == [0]
    assert train_here(house, straight, "function", changes) == 0
    same_weights(killed / "out", straight / "out")
    assert lines(killed / "out/metrics.jsonl") == lines(straight / "out/metrics.jsonl")


def test_sigterm_saves_and_exits_75(house, tmp_path):
    changes = {**SIX, "train.steps": 5000, "train.save_every": 5000, "train.log_every": 1}
    child = children.start(arguments(house, tmp_path, "structure", changes))
    places = []
    children.wait_for(lambda: places or places.extend(tmp_path.glob("runs/*/metrics.jsonl")))
    children.wait_for(lambda: places[0].read_text().count("\n") >= 2)
    child.terminate()
    assert children.end([child]) == [75]
    (step,) = checkpoint.steps(run_folder(tmp_path))
    assert 2 <= step < 5000


def test_processes_whose_torchrun_was_killed_save_and_end(house, tmp_path, monkeypatch):
    """Else they would train on, beside the ones that are started next."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    parents = iter([7, 7, 7])
    monkeypatch.setattr(train.os, "getppid", lambda: next(parents, 1))
    assert train.main(arguments(house, tmp_path, "structure")) == 75
    assert checkpoint.steps(run_folder(tmp_path)) == [3]
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    parents = iter([7])  # a shell that is gone is none of its business
    assert train.main(arguments(house, tmp_path, "structure")) == 0


def test_a_run_waits_for_the_process_that_is_at_it(house, straight, tmp_path, capfd):
    shutil.copytree(straight / "structure", tmp_path, dirs_exist_ok=True)
    with ThreadPoolExecutor(1) as pool:
        with lock_run_dir(run_folder(tmp_path), lambda: False) as ours:
            assert ours
            stopped = train_here(house, tmp_path, "structure", should_stop=lambda: True)
            assert stopped == 75, "it may be asked to stop while it waits"
            second = pool.submit(train_here, house, tmp_path, "structure")
            said = []
            children.wait_for(
                lambda: said.append(capfd.readouterr().err) or "waiting for it" in "".join(said)
            )
            assert not second.done()
        assert second.result(60) == 0


def test_a_time_limit_saves_and_exits_75(house, tmp_path, capsys):
    assert train.main([*arguments(house, tmp_path, "structure"), "--max-minutes", "0"]) == 75
    assert checkpoint.steps(run_folder(tmp_path)) == [1]
    assert "the same command resumes" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 3])
def test_workers_change_nothing(house, straight, tmp_path, workers):
    assert train_here(house, tmp_path, "function", workers=str(workers)) == 0
    same_weights(tmp_path / "out", straight / "function" / "out")


def test_the_order_of_cohorts_changes_nothing(house, straight, tmp_path):
    swapped = {**house, "town": house["ward"], "ward": house["town"]}
    assert train_here(swapped, tmp_path, "function") == 0
    same_weights(tmp_path / "out", straight / "function" / "out")


def test_a_finished_run_only_writes_its_outputs_again(house, tmp_path, capsys):
    assert train_here(house, tmp_path, "structure") == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "out")
    assert train_here(house, tmp_path, "structure") == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert "is finished" in capsys.readouterr().err
    assert set(before) == {"model.safetensors", "run.json", "metrics.jsonl"}


def test_accumulation_changes_nothing_but_rounding(house, straight, tmp_path):
    assert train_here(house, tmp_path, "function", {**SIX, "train.accumulate": 4}) == 0
    a = lines(tmp_path / "out/metrics.jsonl")
    b = lines(straight / "function" / "out/metrics.jsonl")
    for ours, theirs in zip(a, b, strict=True):
        for name in {"loss", "holdout_loss", "holdout_mean_predictor_loss"} & ours.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)


@pytest.mark.parametrize("stage", ["structure", "function", "fusion"])
def test_two_processes_have_the_gradients_of_one(trained, tmp_path, stage):
    sources = stages.Sources(
        shards=[trained["town"], trained["ward"]], split=trained["split"], rois=trained["rois"],
        tokens=[trained["tokens_town"], trained["tokens_ward"]],
    )  # fmt: skip
    found = {}
    for world, accumulate in ((1, 1), (2, 3)):
        # the step mixes buckets, and accumulation cuts them further
        preset = {"stage": stage, "set": {"train.batch_size": 6, "train.accumulate": accumulate}}
        found_here, reports = children.gradients_of(world, preset, sources, 1, tmp_path / str(world))
        assert [t["parts"] > 1 for t in reports] == [world > 1 or stage == "function"] * world
        found[world] = (found_here, children.keys_of(reports), reports[0]["loss"])
    assert found[1][1] == found[2][1]
    assert len(found[1][1]) in (5, 6)
    assert found[1][2] == pytest.approx(found[2][2], rel=1e-6)
    assert found[1][0].keys() == found[2][0].keys()
    largest = max(float(gradient.abs().max()) for gradient in found[1][0].values())
    for name, ours in found[2][0].items():
        theirs = found[1][0][name]
        assert float((ours - theirs).abs().max()) <= 1e-6 * max(float(theirs.abs().max()), 0.05 * largest), (
            name
        )


@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_stopped_or_killed_end_where_an_uninterrupted_pair_ends(house, tmp_path, killed):
    """Both stop together when one is asked to; killed, they resume from the last checkpoint."""
    changes = {**SIX, "train.steps": 30, "train.save_every": 10, "train.log_every": 1}
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert children.end(children.start_all(arguments(house, straight, "function", changes), 2)) == [0, 0]
    pair = children.start_all(arguments(house, broken, "function", changes), 2)
    places = []
    children.wait_for(lambda: places or places.extend(broken.glob("runs/*/metrics.jsonl")))
    if killed:
        children.wait_for(lambda: checkpoint.steps(run_folder(broken)))
        for child in pair:
            child.kill()
        assert children.end(pair) == [-signal.SIGKILL] * 2
        assert checkpoint.steps(run_folder(broken))[-1] < 30
    else:
        children.wait_for(lambda: places[0].read_text().count("\n") >= 3)
        pair[1].terminate()
        assert children.end(pair) == [75, 75]
    assert children.end(children.start_all(arguments(house, broken, "function", changes), 2)) == [0, 0]
    same_weights(straight / "out", broken / "out")


# --- errors


def test_a_loss_that_is_not_finite_names_step_and_samples(house, tmp_path, monkeypatch):
    forward = stages.StructureMAE.forward

    def spoilt(self, volume, visible):
        loss, stats = forward(self, volume, visible)
        return loss * (float("nan") if spoilt.calls == 2 else 1.0), stats

    spoilt.calls = 0
    load = stages.StructureStage.load

    def counted(self, numbers, step, epoch):
        spoilt.calls = step
        return load(self, numbers, step, epoch)

    monkeypatch.setattr(stages.StructureMAE, "forward", spoilt)
    monkeypatch.setattr(stages.StructureStage, "load", counted)
    with pytest.raises(ValueError, match=r"the loss of step 3 is not finite, samples: (town|ward)_sub-\d+, "):
        train_here(house, tmp_path, "structure", {**SIX, "train.save_every": 1}, workers="0")
    # the weights that were saved before are still good
    assert checkpoint.steps(run_folder(tmp_path)) == [1, 2]


def test_a_holdout_loss_that_is_not_finite_names_step_and_samples(house, tmp_path):
    """The step before went well, but left weights with which nothing can be computed."""
    changes = {**SIX, "train.warmup_steps": 0, "train.lr": 1e18, "train.clip": None, "train.save_every": 1}
    named = r"the holdout's loss of step 1 is not finite, samples: (town|ward)_sub-\d+, "
    with pytest.raises(ValueError, match=named):
        train_here(house, tmp_path, "structure", changes)
    assert checkpoint.steps(run_folder(tmp_path)) == []


@pytest.fixture
def flatter(monkeypatch):
    """Sets how much of the targets differs from token to token."""
    layer_norm = torch.nn.functional.layer_norm

    def by(share):
        def flat(x, shape, *args, **kwargs):
            y = layer_norm(x, shape, *args, **kwargs)
            return y[:1, :1].expand_as(y) + share * y if not args and not kwargs else y

        monkeypatch.setattr("bhx_model.nets.jepa.F.layer_norm", flat)

    return by


def test_collapsed_targets_stop_the_run(house, tmp_path, flatter):
    flatter(1e-4)
    with pytest.raises(ValueError, match="targets have collapsed at step 2"):
        train_here(house, tmp_path, "function")


def test_a_jepa_that_collapses_is_stopped(house, tmp_path):
    """Its target follows at once, so it learns that all tokens shall be the same."""
    changes = {**SIX, "train.steps": 80, "train.ema": [0.0, 0.0], "train.lr": 0.01, "train.save_every": 80}
    with pytest.raises(ValueError, match="targets have collapsed at step"):
        train_here(house, tmp_path, "function", changes)


def test_shrinking_targets_are_logged_once(house, tmp_path, flatter, capsys):
    flatter(0.2)
    assert train_here(house, tmp_path, "function") == 0
    assert capsys.readouterr().err.count("on the way to collapse: check the normaliser, raise train.ema") == 1


@pytest.mark.parametrize("file", ["model.safetensors", "optim.safetensors", "state.json"])
def test_killed_while_a_checkpoint_is_written_resumes_from_the_one_before(
    house, straight, tmp_path, monkeypatch, file
):
    class Killed(BaseException):
        """Nothing catches it, as nothing catches a kill."""

    def dying(write):
        def writes(*arguments):
            write(*arguments)
            path = next(argument for argument in arguments if isinstance(argument, Path))
            if path.name == file and path.parent.name.endswith("step-0000006"):
                path.write_bytes(path.read_bytes()[:20])
                raise Killed

        return writes

    with monkeypatch.context() as patched:
        for name in ("save_tensors", "write_json"):
            patched.setattr(checkpoint, name, dying(getattr(checkpoint, name)))
        with pytest.raises(Killed):
            train_here(house, tmp_path, "function")
    assert checkpoint.steps(run_folder(tmp_path)) == [3]
    assert train_here(house, tmp_path, "function") == 0
    same_weights(tmp_path / "out", straight / "function" / "out")
    assert not list(run_folder(tmp_path).glob(f"{checkpoint._UNFINISHED}*"))


def test_a_broken_checkpoint_is_fatal(house, tmp_path):
    assert train_here(house, tmp_path, "structure", should_stop=stopped_after(3)) == 75
    weights = checkpoint.folder(run_folder(tmp_path), 3) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is broken"):
        train_here(house, tmp_path, "structure")


def test_a_checkpoint_of_another_model_is_fatal(house, tmp_path):
    assert train_here(house, tmp_path, "structure", should_stop=stopped_after(3)) == 75
    config = train.load_preset("structure", "tiny").override({"model.width": 32})
    model = factory.build_model(config.model, {"grid": [32, 48, 32]})
    with pytest.raises(ValueError, match="another configuration"):
        checkpoint.load_weights(model, checkpoint.folder(run_folder(tmp_path), 3) / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train.step": 3}, "did you mean 'train.steps'"),
        ({"model.patch": 10}, "does not divide into patches of 10"),
        ({"train.lr": "fast"}, "expected float"),
        ({"train.lr": float("nan")}, "give a number that is finite"),
    ],
)
def test_bad_settings_are_a_sentence(house, tmp_path, capsys, changes, sentence):
    assert train.main(arguments(house, tmp_path, "structure", changes)) == 1
    assert sentence in capsys.readouterr().err


def test_another_roi_order_is_refused(house, tmp_path, capsys):
    from tiny_shards import NAMES

    swapped = write_rois(tmp_path / "rois.npz", [NAMES[1], NAMES[0], *NAMES[2:]])
    assert train.main(arguments({**house, "rois": swapped}, tmp_path, "function")) == 1
    assert f"row 0 is '{NAMES[0]}', the model's is '{NAMES[1]}'" in capsys.readouterr().err


def test_cohorts_of_different_grids_are_refused(house, tmp_path, capsys):
    other = write_cohort(tmp_path / "ward", "ward", subjects=5, batches=1, t1w_shape=(32, 32, 32))
    assert train.main(arguments({**house, "ward": other}, tmp_path, "structure")) == 1
    assert "on one grid, there are: town (32, 48, 32), ward (32, 32, 32)" in capsys.readouterr().err


def test_a_cohort_that_is_named_twice_is_refused(house, tmp_path, capsys):
    assert train.main(arguments({**house, "ward": house["town"]}, tmp_path, "function")) == 1
    assert "the index of town is named twice, or two cohorts have its name" in capsys.readouterr().err


def test_subjects_outside_the_split_are_refused(house, tmp_path, capsys):
    short = write_split(tmp_path / "split.json", {"town": 12, "ward": 4})
    assert train.main(arguments({**house, "split": short}, tmp_path, "function")) == 1
    assert "ward/004 and 0 more subjects are not in the split" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [[], {}, {"train": None, "holdout": []}, {"train": [["a"]], "holdout": []}]
)
def test_a_split_that_is_none_is_a_sentence(house, tmp_path, capsys, content):
    (tmp_path / "split.json").write_text(json.dumps(content))
    places = {**house, "split": tmp_path / "split.json"}
    assert train.main(arguments(places, tmp_path, "function")) == 1
    assert "is no split with the lists train and holdout" in capsys.readouterr().err


def test_a_subject_on_both_sides_of_the_split_is_refused(house, tmp_path, capsys):
    split = json.loads(house["split"].read_text())
    (tmp_path / "split.json").write_text(json.dumps({**split, "holdout": [split["train"][0]]}))
    assert train.main(arguments({**house, "split": tmp_path / "split.json"}, tmp_path, "function")) == 1
    assert "names a subject twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("constant", "never changes"),
        ("short", "shorter than one patch"),
        ("tr", "TR is -2.0 s"),
    ],
)
def test_unusable_series_are_named(house, tmp_path, capsys, fault, sentence):
    from tiny_shards import spoil_series

    town = spoil_series(house["town"], tmp_path / "shards", fault)
    assert train.main(arguments({**house, "town": town}, tmp_path, "function")) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert "town_sub-002_task-rest_run-1" in said


def test_an_altered_shard_stops_the_training(house, tmp_path, capsys):
    town = shutil.copytree(house["town"].parent, tmp_path / "shards") / "index.json"
    tar = town.parent / "t1w-00000.tar"
    content = bytearray(tar.read_bytes())
    content[-3000] ^= 1
    tar.write_bytes(content)
    assert train.main(arguments({**house, "town": town}, tmp_path, "structure")) == 1
    assert "t1w-00000.tar is not the one the index was made of" in capsys.readouterr().err


def test_metrics_past_the_checkpoint_of_a_killed_run_go(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 3}\n{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
    metrics = runlog.Metrics(path, 3)
    metrics.write(4, {"loss": float("inf"), "lr": 0.5})
    metrics.close()
    assert lines(path) == [{"step": 2}, {"step": 3}, {"step": 4, "loss": None, "lr": 0.5}]


# --- switches


def test_tensorboard_has_the_numbers_of_the_metrics(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    metrics = runlog.Metrics(tmp_path / "metrics.jsonl", 3, tmp_path / "board")
    metrics.write(4, {"loss": 0.5, "note": "text"})
    metrics.close()
    assert written == [(str(tmp_path / "board"), 4), ("loss", 0.5, 4), "closed"]


def test_tensorboard_that_is_not_there_is_a_sentence(house, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train.main([*arguments(house, tmp_path, "structure"), "--tensorboard"]) == 1
    assert "pip install 'bhx[tensorboard]'" in capsys.readouterr().err


def test_deterministic_mode_reaches_the_steps_and_ends_with_them(house, straight, tmp_path, monkeypatch):
    seen = []
    backward = loop.backward
    monkeypatch.setattr(
        loop,
        "backward",
        lambda *a, **k: seen.append(torch.are_deterministic_algorithms_enabled()) or backward(*a, **k),
    )
    assert train.main(arguments(house, tmp_path, "function", {**SIX, "train.deterministic": True})) == 0
    assert seen == [True] * 6
    assert not torch.are_deterministic_algorithms_enabled()
    same_weights(tmp_path / "out", straight / "function" / "out")


def test_compiled_training_computes_the_same(house, straight, tmp_path, monkeypatch):
    compiled = []
    compile_ = torch.compile

    def quickly(model):
        compiled.append(model)
        # without code generation, which takes minutes on a busy machine and is not ours
        return compile_(model, backend="eager")

    monkeypatch.setattr(torch, "compile", quickly)
    assert train_here(house, tmp_path, "structure", {**SIX, "train.compile": True}) == 0
    assert len(compiled) == 1
    ours, theirs = (load_file(f / "out/model.safetensors") for f in (tmp_path, straight / "structure"))
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, rtol=1e-4, atol=1e-5)
