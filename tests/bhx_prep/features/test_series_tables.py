"""Tables made elsewhere: order by name, and no guess where names contradict."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from small_templates import N_ROIS, NAMES

from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.features import roi_names, timeseries
from bhx_prep.io import stated_axes


@pytest.fixture
def series(rng):
    return 8000 + rng.standard_normal((N_ROIS, 30))


def with_names(path, series, names, orientation, separator=","):
    if orientation == "rows":
        table = pd.DataFrame(series, columns=[f"t{i}" for i in range(series.shape[1])])
        table.insert(0, "label_name", names)
    else:
        table = pd.DataFrame(series.T, columns=list(names))
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep=separator, index=False)
    return path


@pytest.mark.parametrize("orientation", ["rows", "columns"])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv", ".parquet"])
@pytest.mark.parametrize("bare", [False, True])
def test_names_decide_the_order(tmp_path, atlas, series, rng, orientation, ending, bare):
    order = rng.permutation(N_ROIS)
    names = [NAMES[i].removeprefix("17Networks_") if bare else NAMES[i] for i in order]
    separator = "\t" if "tsv" in ending else ","
    path = with_names(tmp_path / f"s{ending}", series[order], names, orientation, separator)
    found = timeseries.read_series(path, atlas)
    np.testing.assert_allclose(found.parcellated.series, series.astype(np.float32))
    assert "by name" in found.notes[0]


STATED = stated_axes.StatedAxes(None, tuple(NAMES), "names.txt")


@pytest.mark.parametrize("shape", ["roi,frame", "frame,roi"])
@pytest.mark.parametrize("name", ["s.npy", "head.csv", "nohead.csv", "blanks.1D", "s.parquet"])
def test_a_table_without_names_needs_them_from_the_cohort(tmp_path, atlas, series, name, shape):
    values = series if shape == "roi,frame" else series.T
    path = tmp_path / name
    if name == "s.npy":
        np.save(path, values)
    elif name == "s.parquet":
        pd.DataFrame(values).to_parquet(path)
    elif name == "blanks.1D":
        np.savetxt(path, values)
    else:
        pd.DataFrame(values).to_csv(path, index=False, header=name == "head.csv")
    with pytest.raises(DataError, match=r"has no ROI names and is .*give the cohort `names`"):
        timeseries.read_series(path, atlas)
    found = timeseries.read_series(path, atlas, STATED)
    np.testing.assert_allclose(found.parcellated.series, series.astype(np.float32))
    assert "are the ROIs of names.txt, the table names none" in found.notes[0]
    wrong = stated_axes.StatedAxes(
        "frame,roi" if shape == "roi,frame" else "roi,frame", tuple(NAMES), "names.txt"
    )
    with pytest.raises(DataError, match=r"are not the 8 ROIs of names\.txt"):
        timeseries.read_series(path, atlas, wrong)
    with pytest.raises(DataError, match="neither side is the 7 ROIs"):
        timeseries.read_series(path, atlas, stated_axes.StatedAxes(None, tuple(NAMES[1:]), "names.txt"))


def test_a_square_table_needs_its_orientation(tmp_path, atlas, series):
    np.save(tmp_path / "s.npy", series[:, :N_ROIS].T)
    with pytest.raises(
        DataError, match=r"both sides could be the 8 ROIs of names\.txt: set the cohort's `orientation`"
    ):
        timeseries.read_series(tmp_path / "s.npy", atlas, STATED)
    stated = stated_axes.StatedAxes("frame,roi", tuple(NAMES), "names.txt")
    found = timeseries.read_series(tmp_path / "s.npy", atlas, stated)
    np.testing.assert_allclose(found.parcellated.series, series[:, :N_ROIS].astype(np.float32))


def test_the_nearest_list_of_names_counts(tmp_path, atlas, series, rng):
    order = rng.permutation(N_ROIS)
    path = tmp_path / "sub-01_task-rest_atlas-X_timeseries.npy"
    np.save(path, series[order])
    names = [NAMES[i] for i in order]
    rows = [f"{i + 1}\t{name}" for i, name in enumerate(names)]
    lines = ["index\tname", "0\tBackground", *reversed(rows)]
    (tmp_path / "atlas-X_dseg.tsv").write_text("\n".join(lines))
    (tmp_path / "atlas-Y_dseg.tsv").write_text("index\tname\n1\ta\n2\tb\n")

    def read(stated=STATED):
        found = timeseries.read_series(path, atlas, stated)
        np.testing.assert_allclose(found.parcellated.series, series.astype(np.float32))
        return found.notes[0]

    assert "the ROIs of atlas-X_dseg.tsv" in read()
    (tmp_path / "atlas-X_dseg.tsv").write_text("index\tname\n1\ta\n2\tb\n")
    path.with_suffix(".json").write_text(json.dumps({"RepetitionTime": 2, "ROINames": names}))
    stated_axes._of_sidecar.cache_clear()
    assert "the ROIs of sub-01_task-rest_atlas-X_timeseries.json" in read()
    path.with_suffix(".json").write_text(json.dumps({"RepetitionTime": 2, "ROINames": ["a", "b"]}))
    stated_axes._of_sidecar.cache_clear()
    assert "the ROIs of mine.txt" in read(
        stated_axes.StatedAxes(None, tuple(names), "mine.txt", is_explicit=True)
    )


def test_parcellated_cifti(tmp_path, atlas, series):
    parcels = nib.cifti2.ParcelsAxis(NAMES[::-1], [[]] * N_ROIS, [{}] * N_ROIS)
    header = nib.cifti2.Cifti2Header.from_axes((nib.cifti2.SeriesAxis(0, 2, 30), parcels))
    path = tmp_path / "s.ptseries.nii"
    nib.Cifti2Image(series[::-1].T.astype(np.float32), header).to_filename(path)
    found = timeseries.read_series(path, atlas)
    np.testing.assert_array_equal(found.parcellated.series, series.astype(np.float32))


def test_empty_rows_are_uncovered(tmp_path, atlas, series):
    series[2, 5] = np.nan
    series[4] = 7.0
    series[6, 0] = np.inf
    np.save(tmp_path / "s.npy", series)
    found = timeseries.read_series(tmp_path / "s.npy", atlas, STATED).parcellated
    np.testing.assert_array_equal(np.flatnonzero(found.coverage == 0), [2, 4, 6])
    assert np.isnan(found.series[[2, 4, 6]]).all()


def test_what_does_not_fit_is_a_sentence(tmp_path, atlas, series):
    def refused(message, names=NAMES, values=series):
        path = with_names(tmp_path / "s.csv", values, names, "rows")
        with pytest.raises(ValueError, match=message):
            timeseries.read_series(path, atlas)

    refused("7-network order", [n.replace("17", "7") for n in NAMES])
    refused(r"1 missing \('17Networks_LH_Vis_1'\) and 1 unknown \('x'\)", ["x", *NAMES[1:]])
    refused("occurs twice", [NAMES[1], *NAMES[1:]])
    refused(
        r"9 ROIs, Schaefer17n8p has 8: 1 unknown \('HIP-rh'\)",
        [*NAMES, "HIP-rh"],
        np.r_[series, series[:1]],
    )
    refused("no signal", values=np.ones_like(series))
    cases = {
        "450.npy": np.ones((9, 30)),
        "3d.npy": np.ones((8, 30, 2)),
        "one.npy": np.ones((8, 1)),
        "text.npy": np.array([["a", "b"]] * 8),
    }
    for (name, array), message in zip(
        cases.items(),
        [
            "neither side is the 8 ROIs",
            r"shape \(8, 30, 2\)",
            "1 frame",
            "numbers of ROI x time are expected",
        ],
        strict=True,
    ):
        np.save(tmp_path / name, array)
        with pytest.raises(ValueError, match=message):
            timeseries.read_series(tmp_path / name, atlas, STATED)
    np.save(tmp_path / "objects.npy", np.array([{}] * 8, dtype=object), allow_pickle=True)
    for name, content in (
        ("objects.npy", None),
        ("e.csv", b""),
        ("g.csv.gz", b"\x1f\x8b\x08\x00broken"),
        ("p.parquet", b"PAR1"),
        ("t.csv", b"a,b\n1,x\n2,y\n"),
        ("n.npy", b"\x93NUMPY"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name.split(".")[0]):
            timeseries.read_series(tmp_path / name, atlas)


@pytest.mark.parametrize(
    "spell",
    [
        "b'{}'".format,
        lambda name: f"X{name.replace('_', '.')}",
        lambda name: f"lh_{name}",
        lambda name: f"Schaefer2018_400Parcels_{name}",
        lambda name: f"Schaefer400_{name.removeprefix('17Networks_')}",
        lambda name: name.removeprefix("17Networks_").replace("LH_", "LH-").lower(),
        lambda name: f"'{name}'",
    ],
)
def test_names_are_spelt_in_many_ways(tmp_path, atlas, series, rng, spell):
    order = rng.permutation(N_ROIS)
    path = with_names(tmp_path / "s.csv", series[order], [spell(NAMES[i]) for i in order], "columns")
    found = timeseries.read_series(path, atlas)
    np.testing.assert_allclose(found.parcellated.series, series.astype(np.float32))


def test_schaefers_order_of_networks_and_release(shared):
    folder = shared("data/atlas/Schaefer2018_400Parcels_17Networks_order.txt").parent
    names = {
        n: [
            line.split("\t")[1] for line in (folder / f"Schaefer2018_400Parcels_{n}Networks_order.txt").open()
        ]
        for n in (7, 17)
    }
    atlas = Atlas("Schaefer17n400p", tuple(names[17]))
    for given in (names[7], [name.removeprefix("7Networks_") for name in names[7]]):
        with pytest.raises(
            DataError, match=r"names are of the 7-network order .*, the atlas of the 17-network order"
        ):
            roi_names.match_names(given, atlas, "t.csv")
    old = [name.replace("LimbicB_OFC", "Limbic_OFC").replace("pCunPCC", "PCC") for name in names[17]]
    with pytest.raises(
        DataError, match=r"of before September 2019 .*take all 400 by position from the newer list"
    ):
        roi_names.match_names(old, atlas, "t.csv")
    with pytest.raises(DataError, match=r"the atlas has Schaefer's names of before September 2019"):
        roi_names.match_names(names[17], Atlas("Schaefer17n400p", tuple(old)), "t.csv")


def test_names_of_an_atlas_that_differ_in_case_alone_are_compared_as_they_are():
    atlas = Atlas("mine", ("a_1", "A_1", "b"))
    np.testing.assert_array_equal(roi_names.match_names(["b", "A_1", "a_1"], atlas, "t"), [2, 1, 0])


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("name", ["frame", "time", "volume_number"])
def test_a_column_that_counts_frames_is_left_out(tmp_path, atlas, series, name, where):
    values = np.arange(30) * (0.8 if name == "time" else 1)
    table = pd.DataFrame(series.T, columns=NAMES)
    table.insert(0 if where == "first" else N_ROIS, name, values)
    table.to_csv(tmp_path / "s.csv", index=False)
    found = timeseries.read_series(tmp_path / "s.csv", atlas)
    np.testing.assert_allclose(found.parcellated.series, series.astype(np.float32))
    assert "left out" in found.notes[0]


def test_names_of_an_atlas_may_be_numbers(tmp_path, series, rng):
    numbers = ["2001", "2002", "2101", "2102", "2111", "2112", "2201", "2202"]
    order = rng.permutation(N_ROIS)
    for names in ([numbers[i] for i in order], [f"#{numbers[i]}" for i in order]):
        path = with_names(tmp_path / "s.csv", series[order], names, "columns")
        found = timeseries.read_series(path, Atlas("aal", tuple(numbers)))
        np.testing.assert_allclose(found.parcellated.series, series.astype(np.float32))


def test_gaps_are_noted_and_censored_frames_refused(tmp_path, atlas, series):
    series[2, 5] = np.nan
    found = timeseries.read_series(with_names(tmp_path / "s.csv", series, NAMES, "columns"), atlas)
    assert found.notes == ["table read with an assumption: 1 ROIs have gaps and are taken as not covered"]
    series[:, 7] = np.nan
    with pytest.raises(DataError, match=r"frame 7 \(counted from 0\) holds no value"):
        timeseries.read_series(with_names(tmp_path / "s.csv", series, NAMES, "columns"), atlas)


def test_every_reason_is_short(tmp_path, atlas, series):
    path = tmp_path / f"sub-01_task-rest_space-MNI152NLin2009cAsym_{'x' * 60}_timeseries.csv"
    long = [f"{'a' * 90}{letter}" for letter in "abcdefgh"]
    for names in (
        long,
        [n.replace("17", "7") for n in NAMES],
        [n.replace("Vis_4", "Vis_5") for n in NAMES],
        [long[0]] * 8,
    ):
        with_names(path, series, names, "columns")
        with pytest.raises(DataError) as caught:
            timeseries.read_series(path, atlas)
        assert len(str(caught.value)) <= 200, str(caught.value)


def test_names_are_compared_without_punctuation_that_programs_replace():
    atlas = Atlas(
        "ho", ("Inferior Frontal Gyrus, pars triangularis", "Heschl's Gyrus (includes H1 and H2)", "7b")
    )
    of_r = ["X7b", "Heschl.s.Gyrus..includes.H1.and.H2.", "Inferior.Frontal.Gyrus..pars.triangularis"]
    with pytest.raises(DataError, match=r"1 missing .*1 unknown"):
        roi_names.match_names(of_r, atlas, "t")
    np.testing.assert_array_equal(roi_names.match_names(["7b", *of_r[1:]], atlas, "t"), [2, 1, 0])


def test_names_that_are_numbers_are_known_where_the_header_is_all_of_them(tmp_path, series):
    numbers = tuple(str(i + 1) for i in range(N_ROIS))
    path = with_names(tmp_path / "s.csv", series, numbers, "columns")
    found = timeseries.read_series(path, Atlas("power", numbers))
    np.testing.assert_allclose(found.parcellated.series, series.astype(np.float32))
    with pytest.raises(DataError, match="has no ROI names"):
        timeseries.read_series(with_names(path, series, range(N_ROIS), "columns"), Atlas("power", numbers))


def test_the_difference_of_names_fits_in_a_sentence():
    atlas = Atlas("Schaefer17n100p", tuple(f"17Networks_LH_SalVentAttnA_FrMed_{i}" for i in range(100)))
    given = [f"17Networks_RH_SalVentAttnA_FrMed_{i}" for i in range(200)]
    with pytest.raises(DataError) as error:
        roi_names.match_names(given, atlas, "sub-0123456789_task-rest_timeseries.tsv")
    assert len(str(error.value)) <= 200
