"""Strategies are strict, and design matrices are what fMRIPrep's own columns hold."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from bhx_prep.config.features import STRATEGIES
from bhx_prep.features import confounds
from bhx_prep.io import motion

SHIPPED = ("24p+gsr", "acompcor", "none", "paper")


@pytest.fixture
def v21(shared):
    return shared("data/fmriprep/confounds_v21.tsv")


def strategy(**fields):
    return confounds.Strategy.model_validate({"name": "t", "prose": "p", "citation": ["c"], **fields})


def write(path, n=30, **columns):
    rng = np.random.default_rng(5)
    names = ("global_signal", "white_matter", "csf", *motion.NAMES)
    table = pd.DataFrame({name: rng.standard_normal(n) for name in names} | columns)
    table.to_csv(path, sep="\t", na_rep="n/a", index=False)
    return path


def test_shipped_strategies_load_by_the_name_they_give_themselves():
    files = sorted(p.stem for p in STRATEGIES.glob("*.yaml"))
    assert files == sorted(name.replace("+", "-") for name in SHIPPED)
    for name in SHIPPED:
        loaded = confounds.load_strategy(name)
        assert loaded.name == name
        assert len(loaded.prose) > 40
        assert loaded.citation or name == "none"


def test_paper_strategy_on_a_real_table(v21):
    found = confounds.select(confounds.load_strategy("paper"), v21, 30)
    assert found.dropped == 3  # three frames are marked as non-steady
    assert found.design.shape == (27, 18)
    assert found.keep.all()
    assert found.fd_mm.shape == (30,)
    assert np.isnan(found.fd_mm[0])
    assert np.isfinite(found.fd_mm[1:]).all()


def test_differences_and_squares_are_fmripreps_own_columns(v21):
    table = confounds.read_table(v21)[0]
    chosen = confounds.load_strategy("24p+gsr").model_copy(update={"drop_frames": None})
    found = confounds.select(chosen, v21, 30)
    assert len(found.names) == 25
    for name, values in zip(found.names, found.design.T, strict=True):
        theirs = table[name].to_numpy()
        first = 0 if np.isfinite(theirs[0]) else 1
        np.testing.assert_allclose(values[first:], theirs[first:], rtol=1e-6, atol=1e-12, err_msg=name)
        if first:
            assert values[0] == pytest.approx(values[1:].mean())


def test_acompcor_takes_each_tissue_by_column_name(v21):
    found = confounds.select(strategy(acompcor=3), v21, 30)
    assert found.names == tuple(f"{t}_comp_cor_{i:02d}" for t in "wc" for i in range(3))
    assert not found.notes
    found = confounds.select(strategy(acompcor=5), v21, 30)
    assert found.names == (
        *(f"w_comp_cor_{i:02d}" for i in range(4)),
        *(f"c_comp_cor_{i:02d}" for i in range(3)),
    )
    assert [n.split(": ")[1] for n in found.notes] == [
        "4 aCompCor components of WM where 5 are asked for",
        "3 aCompCor components of CSF where 5 are asked for",
    ]


def test_acompcor_of_fmriprep_20_takes_each_tissue_by_the_sidecar(tmp_path, shared):
    real = json.loads(shared("data/fmriprep/confounds_ds000001.json").read_text())
    names = [name for name in real if name.startswith("a_comp_cor")]
    path = write(tmp_path / "c.tsv", **{name: np.arange(30.0) ** i for i, name in enumerate(names)})
    with pytest.raises(
        ValueError, match=r"its \.json, which would name the mask .* put fMRIPrep's own beside it"
    ):
        confounds.select(strategy(acompcor=2), path, 30)
    (tmp_path / "c.json").write_text(json.dumps(real))
    with pytest.raises(ValueError, match="0 aCompCor components of WM"):  # this sidecar knows CSF only
        confounds.select(strategy(acompcor=2), path, 30)
    real |= {name: real[name] | {"Mask": "WM"} for name in names[4:]}
    (tmp_path / "c.json").write_text(json.dumps(real))
    assert confounds.select(strategy(acompcor=2), path, 30).names == (*names[4:6], *names[:2])


def test_old_and_new_tables_have_the_columns(shared):
    for name, rows in (("confounds_v20_all_columns.tsv", None), ("confounds_v21.tsv", 30)):
        table = confounds.read_table(shared(f"data/fmriprep/{name}"))[0]
        for wanted in ("paper", "24p+gsr"):
            assert set(confounds.load_strategy(wanted).columns) <= set(table.columns)
        assert rows is None or len(table) == rows


def test_a_table_of_one_line_is_refused(tmp_path):
    path = tmp_path / "c.tsv"
    path.write_text("trans_x\ttrans_y\n")
    with pytest.raises(ValueError, match="it has one line"):
        confounds.select(strategy(columns=["trans_x"]), path, 9)


def test_missing_columns_are_all_named(tmp_path):
    path = tmp_path / "c.tsv"
    pd.DataFrame({"trans_x": np.arange(9.0), "csf": 1.0}).to_csv(path, sep="\t", index=False)
    with pytest.raises(
        ValueError, match=r"lacks global_signal, white_matter, trans_y.*it has 'trans_x, csf'"
    ):
        confounds.select(confounds.load_strategy("paper"), path, 9)
    chosen = strategy(columns=["csf", "global_signal", "cosine*"], optional=["global_signal", "cosine*"])
    found = confounds.select(chosen, path, 9)
    assert found.names == ("csf",)
    assert found.without == ("global_signal", "cosine*")


def test_wrong_tables_are_sentences(tmp_path):
    paper = confounds.load_strategy("paper")
    with pytest.raises(ValueError, match="30 rows, the series 31 frames"):
        confounds.select(paper, write(tmp_path / "a.tsv"), 31)
    gap = np.arange(30.0)
    gap[7] = np.nan
    with pytest.raises(ValueError, match="'csf' is not finite"):
        confounds.select(paper, write(tmp_path / "b.tsv", csf=gap), 30)
    (tmp_path / "c.tsv").write_text("")
    with pytest.raises(ValueError, match="no table of confounds"):
        confounds.read_table(tmp_path / "c.tsv")
    (tmp_path / "d.tsv").write_text("csf\tname\n1\tx\n")
    with pytest.raises(ValueError, match="'name' holds text"):
        confounds.read_table(tmp_path / "d.tsv")
    (tmp_path / "e.tsv").write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(ValueError, match="no table of confounds"):
        confounds.read_table(tmp_path / "e.tsv")
    for name, columns, message in (
        ("f", {"trans_x": ["0,1"] * 30}, "column 'trans_x' holds text, '0,1' in row 1"),
        ("g", {"csf": np.r_[np.inf, np.arange(29.0)], "global_signal": np.r_[1, np.inf, np.arange(28.0)]},
         "'global_signal' is not finite in 1 of 30 frames"),
        ("h", {"white_matter": np.nan}, "'white_matter' is not finite in 30 of 30 frames"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message) as caught:
            confounds.select(paper, write(tmp_path / f"{name}.tsv", **columns), 30)
        assert len(str(caught.value)) <= 200
    (tmp_path / "i.tsv").write_text("csf\tcsf\n1\t2\n")
    with pytest.raises(ValueError, match="'csf' occurs twice"):
        confounds.read_table(tmp_path / "i.tsv")
    (tmp_path / "j.tsv").write_text("csf,trans_x\n1,2\n")
    with pytest.raises(ValueError, match="separated by ',', not by tabs"):
        confounds.read_table(tmp_path / "j.tsv")
    (tmp_path / "k.tsv").write_text("csf\n1\t2\n")
    with pytest.raises(ValueError, match="1 names, 2 columns"):
        confounds.read_table(tmp_path / "k.tsv")
    with pytest.raises(ValueError, match="needs a confounds table"):
        confounds.without_table(paper, 30)


def test_censoring_drops_nothing_but_marks(tmp_path):
    fd = np.full(30, 0.1)
    fd[0], fd[[10, 20]] = np.nan, 0.7
    marks = {f"non_steady_state_outlier{i:02d}": np.eye(30)[i] for i in range(2)}
    path = write(tmp_path / "a.tsv", framewise_displacement=fd, **marks)
    found = confounds.select(strategy(censor_fd_mm=0.5, drop_frames="non_steady_state"), path, 30)
    assert found.dropped == 2
    np.testing.assert_array_equal(np.flatnonzero(~found.keep), [8, 18])
    path = tmp_path / "b.tsv"
    pd.DataFrame({"csf": np.arange(30.0)}).to_csv(path, sep="\t", index=False)
    with pytest.raises(ValueError, match="cannot be censored"):
        confounds.select(strategy(censor_fd_mm=0.5), path, 30)


def test_names_of_before_1_2_are_todays(tmp_path, v21):
    today = pd.read_csv(v21, sep="\t")
    old = {
        "framewise_displacement": "FramewiseDisplacement", "global_signal": "GlobalSignal", "csf": "CSF",
        "white_matter": "WhiteMatter", "trans_x": "X", "trans_y": "Y", "trans_z": "Z", "rot_x": "RotX",
        "rot_y": "RotY", "rot_z": "RotZ", "cosine00": "Cosine00", "a_comp_cor_00": "aCompCor00",
        "non_steady_state_outlier00": "NonSteadyStateOutlier00", "non_steady_state_outlier01":
        "NonSteadyStateOutlier01", "non_steady_state_outlier02": "NonSteadyStateOutlier02",
    }  # fmt: skip
    path = tmp_path / "sub-1_task-rest_bold_confounds.tsv"
    today[list(old)].rename(columns=old).to_csv(path, sep="\t", na_rep="n/a", index=False)
    paper = confounds.load_strategy("paper")
    found, theirs = confounds.select(paper, path, 30), confounds.select(paper, v21, 30)
    np.testing.assert_array_equal(found.design, theirs.design)
    np.testing.assert_array_equal(found.fd_mm, theirs.fd_mm)
    assert found.dropped == 3
    assert [n for n in found.notes if "fMRIPrep before 1.2, 15 columns" in n]


def test_components_are_counted_as_numbers(shared):
    table, _ = confounds.read_table(shared("data/fmriprep/confounds_v20_all_columns.tsv"))
    names = confounds.matching("a_comp_cor_*", table.columns)
    assert names == [c for c in table.columns if c.startswith("a_comp_cor")]
    assert names[99:102] == ["a_comp_cor_99", "a_comp_cor_100", "a_comp_cor_101"]


def test_frames_marked_later_are_censored(tmp_path):
    marks = {f"non_steady_state_outlier{i:02d}": np.eye(30)[frame] for i, frame in enumerate((0, 1, 20))}
    path = write(tmp_path / "a.tsv", framewise_displacement=np.full(30, 0.1), **marks)
    found = confounds.select(strategy(drop_frames="non_steady_state"), path, 30)
    assert found.dropped == 2
    assert np.flatnonzero(~found.keep).tolist() == [18]
    assert confounds.select(strategy(), path, 30).keep.all()


def test_displacement_counts_the_used_frames(tmp_path):
    fd = np.r_[np.nan, [15.0] * 4, [0.1] * 25]
    fd[12] = 3.0
    marks = {f"non_steady_state_outlier{i:02d}": np.eye(30)[i] for i in range(4)}
    path = write(tmp_path / "a.tsv", framewise_displacement=fd, **marks)
    found = confounds.select(strategy(drop_frames="non_steady_state", censor_fd_mm=0.5), path, 30)
    np.testing.assert_array_equal(found.fd_mm, fd)
    # 15 mm in frame 4 is measured from a frame that is dropped: it neither counts nor censors
    assert found.keep.tolist() == [i != 8 for i in range(26)]
    np.testing.assert_allclose(found.fd_counted_mm, 0.1)
    assert len(found.fd_counted_mm) == 24
    whole = confounds.select(strategy(), path, 30)
    np.testing.assert_array_equal(whole.fd_counted_mm, fd[1:])
    lost = write(tmp_path / "b.tsv", framewise_displacement=np.r_[fd[:27], [np.nan] * 3])
    table = pd.read_csv(lost, sep="\t").drop(columns="rot_x")
    table.to_csv(lost, sep="\t", na_rep="n/a", index=False)
    with pytest.raises(ValueError, match="not known in 3 of 30 frames"):
        confounds.select(strategy(censor_fd_mm=0.5), lost, 30)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"band_pas_hz": [0.01, 0.1]}, "no such key; did you mean 'band_pass_hz'"),
        ({"derivatives": ["csf"]}, "names 'csf', which is not among columns: add it there"),
        ({"band_pass_hz": [0.1, 0.01]}, "0 < lower < upper"),
        ({"band_pass_hz": [0.1]}, "band_pass_hz"),
        ({"drop_frames": "4"}, "drop_frames"),
        ({"censor_fd_mm": -1}, "censor_fd_mm"),
    ],
)
def test_wrong_strategies_are_sentences(tmp_path, fields, message):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"name": "own", "prose": "p", "citation": [], **fields}))
    with pytest.raises(ValueError, match=message):
        confounds.load_strategy(str(path))


def test_unknown_strategies_are_sentences(tmp_path):
    with pytest.raises(ValueError, match="no denoising strategy 'papers'; did you mean 'paper'"):
        confounds.load_strategy("papers")
    path = tmp_path / "own.yaml"
    path.write_text("just text")
    with pytest.raises(ValueError, match="holds no strategy"):
        confounds.load_strategy(str(path))
    path.write_text("a: [")
    with pytest.raises(ValueError, match=r"own\.yaml, line 2: not YAML"):
        confounds.load_strategy(str(path))
