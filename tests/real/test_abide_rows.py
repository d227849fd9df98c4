"""What `tests/real/abide` computes with; its rows take minutes and are not tested here."""

import argparse
import dataclasses

import abide_function
import abide_people
import abide_scores
import abide_table
import numpy as np
import pytest
import tiny_shards
import torch
from sklearn import metrics

from bhx_model.data import shard_hashes, shards
from bhx_model.errors import DataError


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """People of a made cohort, each with the first run, in three sites."""
    index = tiny_shards.write_cohort(
        tmp_path_factory.mktemp("shards"), abide_people.COHORT, subjects=60, t1w_shape=(8, 8, 8)
    )
    opened = shards.open_index(index)
    first = {sample.subject: sample for sample in reversed(opened.samples["bold"])}
    runs = tuple(sorted(first.values(), key=lambda sample: sample.key))
    n_rois = len(opened.metadata["roi_names"])
    return abide_people.People(
        index,
        runs,
        tuple(abide_people.series_sha256(run, n_rois) for run in runs),
        np.arange(len(runs)) % 2,
        np.array([f"site{number % 3}" for number in range(len(runs))]),
        np.linspace(0, 1, len(runs)),
        {},
    )


def test_five_seeds_test_everybody_once_in_parts_that_are_alike(people):
    divisions = [abide_people.divide(people, seed) for seed in range(5)]
    assert (np.sum([labels.of("test") for labels in divisions], axis=0) == 1).all()
    for labels in divisions:
        assert {part: int(labels.of(part).sum()) for part in ("train", "val", "test")} == {
            "train": 38, "val": 10, "test": 12,
        }  # fmt: skip
        for site in np.unique(people.site):
            assert (labels.of("test") & (people.site == site)).sum() == 4
        assert people.dx[labels.of("test")].mean() == 0.5
    assert (abide_people.divide(people, 5).split != divisions[0].split).any()
    np.testing.assert_array_equal(abide_people.divide(people, 3).split, divisions[3].split)


def train_people(labels):
    return [labels.subjects[i] for i in np.flatnonzero(labels.of("train"))]


def test_shards_of_some_hold_these_alone_and_are_whole(people, tmp_path):
    wanted = set(people.subjects[5:40])
    opened = shards.open_index(abide_people.write_shards_of(people.index, wanted, tmp_path / "some"))
    found = {sample.subject: sample for sample in opened.samples["bold"]}
    assert found.keys() == wanted
    for run, digest in zip(people.runs, people.sha256, strict=True):
        if run.subject in wanted:
            assert abide_people.series_sha256(found[run.subject], len(tiny_shards.NAMES)) == digest
    shard_hashes.verify(opened.shards["bold"])


def run_of(index):
    return {"inputs": {"shards": [[abide_people.COHORT, shards.open_index(index).sha256]]}}


def test_weights_of_the_train_people_alone_are_taken(people, tmp_path):
    labels = abide_people.divide(people, 0)
    index = abide_people.write_shards_of(people.index, train_people(labels), tmp_path)
    abide_people.check_trained_on(people, labels, index, run_of(index))


def test_weights_trained_on_a_test_person_are_refused(people, tmp_path):
    labels = abide_people.divide(people, 0)
    tested = people.subjects[int(np.flatnonzero(labels.of("test"))[0])]
    index = abide_people.write_shards_of(people.index, [*train_people(labels), tested], tmp_path)
    with pytest.raises(DataError, match=f"1 of the people .* {tested}"):
        abide_people.check_trained_on(people, labels, index, run_of(index))


def test_weights_trained_on_a_test_persons_series_under_another_id_are_refused(people, tmp_path):
    labels = abide_people.divide(people, 0)
    train, test = (int(np.flatnonzero(labels.of(part))[1]) for part in ("train", "test"))
    digests = list(people.sha256)
    digests[test] = digests[train]
    index = abide_people.write_shards_of(people.index, train_people(labels), tmp_path)
    with pytest.raises(DataError, match="1 of the people"):
        abide_people.check_trained_on(
            dataclasses.replace(people, sha256=tuple(digests)), labels, index, run_of(index)
        )


def test_weights_of_other_shards_are_refused(people, tmp_path):
    labels = abide_people.divide(people, 0)
    index = abide_people.write_shards_of(people.index, train_people(labels), tmp_path)
    with pytest.raises(DataError, match="other shards"):
        abide_people.check_trained_on(people, labels, index, run_of(people.index))


def test_scores_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    target = (random.random(50) < 0.3).astype(int)
    chance = np.round(random.random(50), 1)  # with ties
    who = np.arange(100).astype(str)
    tested = abide_scores.Tested(target, {"row": chance}, who[:50], who[50:])
    np.testing.assert_allclose(
        abide_scores.cells([tested], [("row", None)])[0, :, 0],
        [
            metrics.accuracy_score(target, chance > 0.5),
            metrics.balanced_accuracy_score(target, chance > 0.5),
            metrics.roc_auc_score(target, chance),
        ],
    )
    of_one_class = abide_scores.Tested(np.ones(50, int), {"row": chance}, who[:50], who[50:])
    assert np.isnan(abide_scores.cells([of_one_class], [("row", None)])[0, -1]).all()


def test_intervals_tell_a_better_row_from_one_that_is_not():
    random = np.random.default_rng(1)
    who = np.arange(300).astype(str)
    tested = []
    for test in np.split(who, 5):  # everybody once
        target = random.integers(2, size=60)
        noise = random.random((3, 60))
        rows = {"good": 0.5 * target + 0.5 * noise[0], "chance": noise[1], "same": noise[2]}
        tested.append(abide_scores.Tested(target, rows, test, np.setdiff1d(who, test)))
    found = abide_scores.cells(
        tested, [("chance", None), ("good", "chance"), ("same", "chance"), ("same", "same")]
    )
    assert found.shape == (4, 3, 3)
    assert (found[0, :, 1] < 0.5).all()
    assert (found[0, :, 2] > 0.5).all()
    assert (found[1, :, 1] > 0).all()
    assert (found[2, :, 1] < 0).all()
    assert (found[2, :, 2] > 0).all()
    assert (found[3, :, 0] == 0).all()


def test_components_are_weighted_means_over_rois():
    tokens = torch.randn(2, 20, 4, 3, generator=torch.Generator().manual_seed(2))
    components = torch.eye(20)[:, :18]
    found = abide_function.weighted(tokens, components)
    assert found.shape == (2, 16 * 3)
    torch.testing.assert_close(found[:, 3:6], tokens[:, 1].mean(dim=1))


def test_rows_are_skipped_where_there_are_no_people(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(abide_table, "DATA", tmp_path)
    for given in ({"function": False, "folder": tmp_path}, {"function": True, "folder": None}):
        abide_table.run_table(argparse.Namespace(**given))
        assert capsys.readouterr().out.startswith("skipped: no ")


def test_a_folder_that_was_laid_out_elsewhere_is_taken_as_it_is(monkeypatch, tmp_path):
    index = tmp_path / "results/abide/shards/index.json"
    index.parent.mkdir(parents=True)
    index.touch()
    monkeypatch.setattr(abide_people, "DATA", tmp_path / "absent")
    assert abide_people.lay_out(tmp_path) == index
