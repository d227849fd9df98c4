"""What is inside the models, on the page."""

from __future__ import annotations

import inside_files
import numpy as np
import pytest
from fake_results import CONFIG, NAMES

from bhx_prep.report import inside, inside_figures


@pytest.fixture
def root(tmp_path):
    return tmp_path / "results"


def endpoint(root, shares, name="diagnosis", **more):
    inside_files.write_endpoint(root / "experiments/demo/inspection" / f"{name}.npz", NAMES, shares, **more)
    (part,) = inside.find(CONFIG, root, None)
    return part


def test_hub_tokens_are_counted_by_a_stated_rule(root):
    part = endpoint(root, [0.9, 0.67, 0.66, 0.5, 0.34, 0.33, 0.1])
    said = " ".join(part.sentences)
    assert part.title == "demo, diagnosis: mean hub token"
    assert "In the last layer 2 of 7 hub tokens attend to fMRI, 2 to T1, 3 to both" in said
    assert "Untrained weights of the same seed: 0 of 7 hub tokens attend to fMRI, 0 to T1, 7 to both" in said
    assert "from 67 % of the attention" in said
    assert "even attention would give fMRI 50 %" in said
    assert (
        "The paper reports 93 hub tokens for fMRI, 30 for T1 and 5 for both of 128; its rule was not recovered"
        in said
    )
    assert "Half of the hub tokens start from means of function tokens" in said


def test_attention_is_shown_once_for_a_cohort(root):
    for name in CONFIG.endpoints:
        inside_files.write_endpoint(root / "experiments/demo/inspection" / f"{name}.npz", NAMES, [0.9, 0.1])
    said = [" ".join(part.sentences) for part in inside.find(CONFIG, root, None)]
    assert ["In the last layer" in text for text in said] == [True, False]


def test_attention_to_hub_tokens_counts_for_neither_modality():
    attention = inside_files.attention([0.25, 0.75], hub=0.9)
    np.testing.assert_allclose(inside.function_share(attention), [[0.25, 0.75]] * 2)


def test_without_hub_tokens_there_is_saliency_and_a_plane(root):
    part = endpoint(root, None)
    said = " ".join(part.sentences)
    assert "hub" not in said
    assert f"Largest: {NAMES[-1]}" in said
    assert "Even saliency would give each 6.2 %" in said
    assert [p.caption.split(":")[0] for p in part.pictures] == ["Subjects by diagnosis"]


def test_the_plane_says_how_far_groups_lie_apart_and_what_chance_gives(root):
    part = endpoint(root, None)
    (said,) = [s for s in part.sentences if s.startswith("In this plane")]
    assert "2 groups drawn at random explain 5.3 % on average" in said
    points = np.array([[0.0, 0], [0, 0], [1, 0], [1, 0]])
    assert inside.explained_by(points, ["a", "a", "b", "b"]) == 1
    assert inside.explained_by(points, ["a", "b", "a", "b"]) == pytest.approx(0)
    assert inside.explained_by(np.zeros((2, 2)), ["a", "b"]) == 0


def test_a_value_has_no_groups(root):
    part = endpoint(root, None, "cognition", classes=())
    assert not any(s.startswith("In this plane") for s in part.sentences)
    assert len(part.pictures) == 1


def test_sites_colour_the_same_subjects(root, tmp_path):
    table = tmp_path / "participants.tsv"
    rows = [f"secret{i}\tsite{i % 3}" for i in range(19)]
    table.write_text("\n".join(["participant_id\tsite", *rows]) + "\n")
    values = CONFIG.model_dump(mode="json")
    values["cohorts"]["patients"]["participants"] = str(table)
    values["endpoints"]["diagnosis"]["stratify"] = ["site"]
    config = type(CONFIG).model_validate(values)
    inside_files.write_endpoint(root / "experiments/demo/inspection/diagnosis.npz", NAMES, None)
    (part,) = inside.find(config, root, None)
    assert part.pictures[-1].caption == "The same subjects by site (4 sites)."  # one has no row: unknown
    assert "secret" not in "".join(p.svg for p in part.pictures)
    table.unlink()
    (part,) = inside.find(config, root, None)
    assert len(part.pictures) == 1


def test_volumes_are_shown_as_means_of_enough_subjects(root):
    path = root / "experiments/demo/reconstructions.npz"
    inside_files.write_reconstructions(path)
    (part,) = inside.find(CONFIG, root, None)
    assert "Means over 12 held-out subjects" in part.sentences[0]
    assert "by 0.25, the median over subjects" in part.sentences[0]
    assert part.pictures[0].svg.count("<image") == 9
    inside_files.write_reconstructions(path, n=9)
    (part,) = inside.find(CONFIG, root, None)
    assert part.sentences == [
        "No pictures: 9 held-out subjects have a T1 volume, and a mean that is nobody's takes 10."
    ]
    assert part.pictures == []


def test_a_pattern_is_averaged_over_pairs_of_networks(root):
    families = np.array([0, 0, 1, 1, 2, 2, 3, 3] * 2)  # of NAMES: visual, somatomotor, default, control
    matrix = np.where((families[:, None] == 0) & (families[None] == 2), 1.0, 0.0)
    matrix += matrix.T
    means, names = inside_figures.network_means(matrix, NAMES)
    assert names == ["Vis", "SomMot", "Cont", "Default"]
    wanted = np.zeros((4, 4))
    wanted[0, 3] = wanted[3, 0] = 1
    np.testing.assert_allclose(means, wanted)
    inside_files.write_pattern(root / "endpoints/diagnosis/connectivity_pattern.npz", matrix, NAMES)
    (part,) = inside.find(CONFIG, root, None)
    assert "towards patient, away from control" in part.sentences[0]
    assert "mean of 3 splits; the patterns of two splits correlate by 0.75" in part.sentences[0]
    assert "largest for Vis and Default" in part.pictures[0].svg


def test_a_pattern_without_networks_shows_all_pairs(root):
    names = [f"region{i}" for i in range(6)]
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    inside_files.write_pattern(root / "endpoints/cognition/connectivity_pattern.npz", matrix, names, splits=1)
    (part,) = inside.find(CONFIG, root, None)
    assert "towards higher values" in part.sentences[0]
    assert "mean of one split." in part.sentences[0]
    assert part.pictures[0].caption.endswith("all pairs of ROIs.")
    np.testing.assert_allclose(inside.square(np.arange(3.0), 3), [[0, 0, 1], [0, 0, 2], [1, 2, 0]])


def test_nothing_looked_at_is_nothing(root):
    assert inside.find(CONFIG, root, None) == []


def test_names_of_groups_are_no_formulas_and_no_markup():
    svg = inside_figures.plane(np.eye(4)[:, :2], ["$A^$", "<script>"] * 2, [0.5, 0.3])
    assert "$A^$" in svg
    assert "&lt;script&gt;" in svg
    assert "<script>" not in svg
