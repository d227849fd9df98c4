"""Series as people have them: tables, tensors, other spellings of names; what cannot be used is one sentence."""

from __future__ import annotations

import gzip
import json
import logging
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow
import pytest
import torch
from tiny_shards import NAMES

from bhx_model.data import roi_names
from bhx_model.errors import ConfigError, DataError, SiteError
from bhx_model.release import image_input


@pytest.fixture(scope="module")
def run(subject):
    series, tr_s, _ = subject
    return series[:, :80].astype(np.float64), tr_s


@pytest.fixture(scope="module")
def tokens(model, run):
    return model.embed(*run, NAMES)


def same(found, tokens, atol=1e-4):
    np.testing.assert_allclose(found, tokens, atol=atol)


def test_names_of_a_table_decide(model, run, tokens, caplog):
    series, tr_s = run
    table = pd.DataFrame(series.T, columns=NAMES)
    with caplog.at_level(logging.WARNING, "bhx_model"):
        same(model.embed(table, tr_s), tokens)
    assert not caplog.records
    order = np.random.default_rng(0).permutation(20)
    with caplog.at_level(logging.WARNING, "bhx_model"):
        same(model.embed(table.iloc[:, order], tr_s), tokens)
    assert "reordered by their names" in caplog.text
    same(model.embed(table.T, tr_s), tokens)  # the index has the names
    same(model.embed(table.rename(columns=lambda name: name.removeprefix("17Networks_")), tr_s), tokens)
    # as many frames as ROIs: the shape says nothing, the names do
    square = model.embed(np.tile(series, 2)[:, :20], tr_s, NAMES)
    same(model.embed(pd.DataFrame(np.tile(series, 2)[:, :20], index=NAMES), tr_s), square)
    same(model.embed(pd.DataFrame(np.tile(series, 2)[:, :20].T, columns=NAMES), tr_s), square)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.rename(columns={NAMES[3]: "other"}), "1 ROIs of Tiny17n20p are not among the names"),
        (
            lambda t: t.iloc[:, 1:],
            f"19 ROIs, but the model knows 20 of atlas .*: '{NAMES[0]}' is missing, give NaN",
        ),
        (lambda t: t.rename(columns={NAMES[3]: NAMES[4]}), "is there twice"),
        (
            lambda t: t.assign(frame=1),
            "21 ROIs, but the model knows 20 of atlas .*: 'frame' is none of them, leave it",
        ),
        (lambda t: t.set_axis(range(20), axis=1), "columns have no names of ROIs, the first is '0'"),
        (lambda t: t > 0, "holds no numbers .they are bool"),
        (lambda t: t.astype("Float64").mask(t > 1010), "NaN or infinite in some frames"),
        (lambda t: t.astype(str).replace(r".*", "x", regex=True), "holds no numbers"),
        (lambda t: pd.concat([t, t.iloc[:, 4:5]], axis=1), f"'{NAMES[4]}' is there twice"),
        (
            lambda t: t.set_axis([str(i / 7) for i in range(20)], axis=1),
            "no names of ROIs, the first is '0.0'",
        ),
        (lambda t: dict(t), "is a dict, whose names are not read"),
        (lambda t: pyarrow.Table.from_pandas(t), "is a Table, whose names are not read"),
        (lambda t: (t / 8).round(), "whole numbers with a standard deviation of .*, too coarse"),
        (
            lambda t: t.set_axis([f"7Networks_LH_Vis_{i}" for i in range(20)], axis=1),
            "of the 7-network order",
        ),
    ],
)
def test_tables_of_other_rois(model, run, change, sentence):
    with pytest.raises(DataError, match=sentence):
        model.embed(change(pd.DataFrame(run[0].T, columns=NAMES)), run[1])


def test_tensors_and_other_numbers(model, run, tokens):
    series, tr_s = run
    same(model.embed(torch.from_numpy(series).requires_grad_(), torch.tensor(tr_s), NAMES), tokens)
    same(model.embed(series.tolist(), np.float32(tr_s), np.array(NAMES)), tokens)
    same(model.embed(np.ma.masked_invalid(series), tr_s, [name.encode() for name in NAMES]), tokens)
    same(model.embed(np.asfortranarray(series)[:, ::-1][:, ::-1], np.array(tr_s), tuple(NAMES)), tokens)
    centred = series - series.mean(axis=1, keepdims=True)
    same(model.embed(centred.astype(np.float16), tr_s, NAMES), tokens, atol=2e-2)
    same(model.embed(torch.from_numpy(centred).bfloat16(), tr_s, NAMES), tokens, atol=0.2)
    absent = np.arange(20)[:, None] == np.full((1, series.shape[1]), 3)
    whole = np.round(1000 * series).astype(np.int64)
    without = model.embed(np.where(absent, np.nan, series), tr_s, NAMES)
    same(model.embed(np.ma.masked_array(whole, absent), tr_s, NAMES), without, atol=1e-3)


def faults(series, tr_s):
    offset = series + 20000
    return {
        "no names": ((series, tr_s), "roi_names is missing"),
        "one text": ((series, tr_s, NAMES[0]), "roi_names is one text"),
        "one bytes": ((series, tr_s, NAMES[0].encode()), "roi_names is one text"),
        "a number": ((series, tr_s, 3), "roi_names is no list"),
        "bytes that are no text": ((series, tr_s, [b"\xff\xfe"] * 20), "no UTF-8"),
        "0-d series": ((np.float32(3), tr_s, NAMES), "check atlas and axes"),
        "0-d tensor": ((torch.tensor(3.0), tr_s, NAMES), "check atlas and axes"),
        "None": ((None, tr_s, NAMES), "check atlas and axes|holds no numbers"),
        "a batch": ((series[None], tr_s, NAMES), "encode_series takes many"),
        "half precision": ((offset.astype(np.float16), tr_s, NAMES), "in half precision has .* steps"),
        "bfloat16": ((torch.from_numpy(series).bfloat16(), tr_s, NAMES), "in half precision has .* steps"),
        "half and too large": ((1e9 * series.astype(np.float32)).astype(np.float16), "NaN or infinite"),
        "texts": ((series.astype(str).astype(object) + "x", tr_s, NAMES), "holds no numbers"),
        "eight bits": (
            (
                torch.from_numpy(series - series.mean(axis=1, keepdims=True)).to(torch.float8_e5m2),
                tr_s,
                NAMES,
            ),
            "in half precision has .* steps",
        ),
        "quantized": (
            (torch.quantize_per_tensor(torch.from_numpy(series).float(), 1.0, 0, torch.qint32), tr_s, NAMES),
            "real numbers in a dense one",
        ),
        "nested": (
            (torch.nested.nested_tensor(list(torch.from_numpy(series))), tr_s, NAMES),
            "real numbers in a dense one",
        ),
        "a duration": ((series, np.timedelta64(2, "s"), NAMES), "tr_s is '2 seconds'"),
        "complex": ((series + 1j, tr_s, NAMES), "holds no numbers"),
        "truth values": ((series > 1000, tr_s, NAMES), "holds no numbers"),
        "a tensor of truth values": ((torch.from_numpy(series > 1000), tr_s, NAMES), "real numbers"),
        "a tensor without data": ((torch.zeros(20, 50, device="meta"), tr_s, NAMES), "real numbers"),
        "squares too large": ((series * 1e30, tr_s, NAMES), "beyond what single precision squares"),
        "squares too small": ((series * 1e-30, tr_s, NAMES), "beyond what single precision squares"),
        "a TR beyond all numbers": ((series, 10**400, NAMES), "between 0.2 and 12"),
        "complex tensor": ((torch.from_numpy(series + 1j), tr_s, NAMES), "real numbers"),
        "ragged": (([[1, 2], [3]], tr_s, NAMES), "holds no numbers"),
        "no TR": ((series, None, NAMES), "as a number"),
        "TR is True": ((series, True, NAMES), "as a number"),
        "two TRs": ((series, np.array([2.0, 2.0]), NAMES), "as a number"),
    }


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("fault", list(faults(np.zeros((20, 30)), 2.0)))
def test_what_cannot_be_used_is_a_sentence(model, run, fault):
    arguments, sentence = faults(*run)[fault]
    if isinstance(arguments, np.ndarray):
        arguments = (arguments, run[1], NAMES)
    with pytest.raises(DataError, match=sentence) as raised:
        model.embed(*arguments)
    assert len(str(raised.value)) <= 200


def test_names_that_state_another_number_of_networks_are_refused_though_all_else_is_the_same():
    wanted = ["17Networks_LH_VisCent_ExStr_1", "17Networks_RH_SomMotA_1"]
    with pytest.raises(DataError, match=r"of the 7-network order .* the model's of the 17-network order"):
        roi_names.match([name.replace("17Networks", "7Networks") for name in wanted], "Schaefer", wanted)
    order, note = roi_names.match([name.removeprefix("17Networks_") for name in wanted], "Schaefer", wanted)
    assert (order.tolist(), note) == ([0, 1], None)


def test_names_of_cbigs_older_lists(shared):
    path = shared("data/atlas/Schaefer2018_400Parcels_17Networks_order.txt")
    names = [line.split("\t")[1] for line in path.open()]
    old = [
        name.replace("LimbicB_OFC", "Limbic_OFC").replace("LimbicA_", "Limbic_").replace("pCunPCC", "PCC")
        for name in names
    ]
    order, note = roi_names.match(old, "Schaefer17n400p", names)
    np.testing.assert_array_equal(order, np.arange(400))
    assert "before September 2019" in note
    bare = [name.removeprefix("17Networks_") for name in names]
    assert roi_names.match(bare[::-1], "a", names)[0][0] == 399
    assert roi_names.match(names, "a", bare)[1] is None
    # in another order than that of the lists nothing says which is which
    with pytest.raises(DataError, match="are not among the names"):
        roi_names.match(old[::-1], "Schaefer17n400p", names)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, run):
    """A BIDS data set of one run, and a label image on a finer grid."""
    folder = tmp_path_factory.mktemp("bids")
    (folder / "dataset_description.json").write_text("{}")
    (folder / "task-rest_bold.json").write_text(json.dumps({"RepetitionTime": run[1]}))
    func = folder / "sub-1" / "func"
    func.mkdir(parents=True)
    labels = np.zeros((8, 8, 8), np.int16)
    blocks = labels.reshape(4, 2, 4, 2, 4, 2)
    for i in range(20):
        blocks[i % 4, :, i // 4 % 4, :, i // 16 + 1] = 10 * (i + 1)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(labels, affine), folder / "labels.nii.gz")
    data = np.zeros((4, 4, 4, run[0].shape[1]), np.float32)
    coarse = labels[::2, ::2, ::2]
    for i in range(20):
        data[coarse == 10 * (i + 1)] = run[0][i]
    data[coarse == 40] = 0  # no signal in parcel 3
    moved = np.diag([4.0, 4.0, 4.0, 1.0])
    moved[:3, 3] = 1.0  # centres of the blocks
    image = nib.Nifti1Image(data, moved)
    nib.save(image, func / "sub-1_task-rest_bold.nii.gz")
    return folder, func / "sub-1_task-rest_bold.nii.gz"


def test_a_bids_path_and_an_image_with_an_atlas(model, run, dataset, caplog):
    folder, bold = dataset
    series = run[0].copy()
    series[3] = np.nan
    expected = model.embed(series, run[1], NAMES)
    with caplog.at_level(logging.WARNING, "bhx_model"):
        same(model.embed(bold, atlas=folder / "labels.nii.gz", roi_names=NAMES), expected)
    assert "denoise it first" in caplog.text
    image, labels = nib.load(bold), nib.load(folder / "labels.nii.gz")
    same(model.embed(image, run[1], NAMES, atlas=labels), expected)
    # names of the labels decide here, too
    turned = nib.Nifti1Image(np.where(labels.get_fdata() > 0, 210 - labels.get_fdata(), 0), labels.affine)
    same(model.embed(str(bold), roi_names=NAMES[::-1], atlas=turned), expected)
    (folder / "templates").mkdir()
    (folder / "templates" / "atlas.json").write_text(json.dumps({"names": NAMES}))
    nib.save(labels, folder / "templates" / "atlas_volume.nii.gz")
    same(model.embed(bold, atlas=folder / "templates"), expected)


def test_images_that_cannot_be_used(model, run, dataset, tmp_path):
    folder, bold = dataset
    labels = nib.load(folder / "labels.nii.gz")
    with pytest.raises(ConfigError, match="is a BOLD image: give atlas="):
        model.embed(bold)
    with pytest.raises(DataError, match="labels of the atlas have no names"):
        model.embed(bold, atlas=labels)
    with pytest.raises(DataError, match="has 20 labels, there are 19 names"):
        model.embed(bold, atlas=labels, roi_names=NAMES[1:])
    away = labels.affine.copy()
    away[0, 3] = 500
    with pytest.raises(DataError, match="0 of 20 parcels of the atlas have a signal"):
        model.embed(bold, atlas=nib.Nifti1Image(labels.get_fdata(), away), roi_names=NAMES)
    image = nib.load(bold)
    image.header["pixdim"][4] = 0
    with pytest.raises(DataError, match="neither sidecar nor header"):
        model.embed(image, atlas=labels, roi_names=NAMES)
    image.header["pixdim"][4] = 1  # what nibabel writes of a repetition time that it was not told
    with pytest.raises(DataError, match="neither sidecar nor header"):
        model.embed(image, atlas=labels, roi_names=NAMES)
    with pytest.raises(DataError, match="4 axes are expected"):
        model.embed(labels, run[1], NAMES, atlas=labels)
    with pytest.raises(ConfigError, match="an atlas is for BOLD images alone"):
        model.embed(*run, NAMES, atlas=labels)
    for atlas in (labels.get_fdata(), 3):
        with pytest.raises(DataError, match=r"an atlas is given as .*: give a path, or an image of nibabel"):
            model.embed(image, run[1], NAMES, atlas=atlas)
    smooth = nib.Nifti1Image(labels.get_fdata() + 0.5, labels.affine)
    with pytest.raises(DataError, match="numbers that are no labels"):
        model.embed(bold, run[1], NAMES, atlas=smooth)
    for voxels, sentence in (
        (np.zeros((4, 4, 4, 0), np.float32), "4 axes are expected"),
        (np.zeros((4, 4, 4, 9), np.complex64), "holds complex64: give real numbers"),
        (np.zeros((4, 4, 4, 9), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "give real numbers"),
    ):
        with pytest.raises(DataError, match=sentence):
            model.embed(nib.Nifti1Image(voxels, np.eye(4)), run[1], NAMES, atlas=labels)
    packed = bytearray(bold.read_bytes())
    packed[2000:2300] = bytes(300)
    (tmp_path / "damaged.nii.gz").write_bytes(packed)
    with pytest.raises(DataError, match="is truncated or damaged"):
        model.embed(tmp_path / "damaged.nii.gz", run[1], NAMES, atlas=labels)
    for name, content, sentence in (
        ("x.tsv.gz", gzip.compress(bytes(range(256)) * 9, mtime=0)[:-20], "cannot be read as a table"),
        ("x.nii.gz", b"no image", "no image that nibabel reads|truncated or damaged"),
        ("x.npy", b"no array", "no .npy of plain numbers"),
        ("x.dtseries.nii", b"", "no image that nibabel reads"),
        ("x.func.gii", b"", "`bhx parcellate` makes a table of other images"),
        ("x.csv", b"a;b\n1,0;2,0\n", "has one column: its name promises commas between columns"),
        ("x.tsv", b"a,b\n1,2\n", "has one column: its name promises tabs between columns"),
        ("x.parquet", b"no table", "cannot be read as a table"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=sentence):
            model.embed(tmp_path / name, run[1], NAMES, atlas=labels if name == "x.nii.gz" else None)
    with pytest.raises(DataError, match="there is no such file"):
        model.embed(tmp_path / "absent.tsv", run[1])
    with pytest.raises(DataError, match="is a folder: name a file in it"):
        model.embed(tmp_path, run[1])


def test_tables_and_arrays_by_path(model, run, tokens, tmp_path):
    series, tr_s = run
    table = pd.DataFrame(series.T, columns=NAMES)
    table.to_csv(tmp_path / "run_timeseries.tsv", sep="\t", index=False)
    (tmp_path / "run_timeseries.json").write_text(json.dumps({"RepetitionTime": tr_s}))
    table.to_parquet(tmp_path / "run.parquet")
    np.save(tmp_path / "run.npy", series)
    same(model.embed(tmp_path / "run_timeseries.tsv"), tokens)
    same(model.embed(str(tmp_path / "run.parquet"), tr_s), tokens)
    same(model.embed(tmp_path / "run.npy", tr_s, NAMES), tokens)
    (tmp_path / "run_timeseries.json").write_text("{")
    same(model.embed(tmp_path / "run_timeseries.tsv", tr_s), tokens)
    with pytest.raises(DataError, match="correct the sidecar"):
        model.embed(tmp_path / "run_timeseries.tsv")


def test_series_of_parcels_as_cifti(model, run, tokens, tmp_path, caplog):
    series, tr_s = run
    order = np.random.default_rng(0).permutation(20)
    cortex = nib.cifti2.BrainModelAxis.from_surface(np.arange(20), 32492, "CIFTI_STRUCTURE_CORTEX_LEFT")
    parcels = nib.cifti2.ParcelsAxis.from_brain_models(
        [(NAMES[i], cortex[place : place + 1]) for place, i in enumerate(order)]
    )
    frames = nib.cifti2.SeriesAxis(0, tr_s, series.shape[1])
    image = nib.Cifti2Image(series[order].T.astype(np.float32), (frames, parcels))
    nib.save(image, tmp_path / "run.ptseries.nii")
    with caplog.at_level(logging.WARNING, "bhx_model"):
        same(model.embed(tmp_path / "run.ptseries.nii"), tokens)
    assert "reordered by their names" in caplog.text
    same(model.embed(image, tr_s, NAMES), tokens)
    with pytest.raises(DataError, match="has names of its own, other than roi_names"):
        model.embed(image, tr_s, [f"a{i}" for i in range(20)])
    dense = nib.Cifti2Image(series.T.astype(np.float32), (frames, cortex))
    nib.save(dense, tmp_path / "run.dtseries.nii")
    surface = nib.GiftiImage(darrays=[nib.gifti.GiftiDataArray(series[0].astype(np.float32))])
    for other in (dense, tmp_path / "run.dtseries.nii", surface):
        with pytest.raises(DataError, match="no volume and no CIFTI series of parcels: `bhx parcellate`"):
            model.embed(other, tr_s)


def test_a_sidecar_that_contradicts_the_header_counts_and_is_said(model, dataset, tmp_path, caplog):
    folder, bold = dataset
    image = nib.load(bold)
    image.header.set_zooms((4, 4, 4, 2.0))
    nib.save(image, tmp_path / "sub-1_bold.nii.gz")
    (tmp_path / "sub-1_bold.json").write_text(json.dumps({"RepetitionTime": 1.5}))
    with caplog.at_level(logging.WARNING, "bhx_model"):
        found = model.embed(tmp_path / "sub-1_bold.nii.gz", None, NAMES, atlas=folder / "labels.nii.gz")
    assert "sidecar states a TR of 1.5 s, header 2: the sidecar counts" in caplog.text
    np.testing.assert_array_equal(found, model.embed(bold, 1.5, NAMES, atlas=folder / "labels.nii.gz"))


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(SiteError, match=r"a BOLD image needs nibabel: pip install nibabel, or 'bhx\[prep\]'"):
        image_input.open_image("x.nii", "a BOLD image")
