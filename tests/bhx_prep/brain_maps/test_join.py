from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bhx_model import contract
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import DataError
from bhx_prep.brain_maps import join

NAMES = [f"17Networks_{h}_ROI_{i}" for h in ("LH", "RH") for i in (1, 2, 3)]


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.parquet" for name in ("harmonics", "gradients", "normaliser")}
    for path in paths.values():
        write(path)
    return paths


def write(path: Path, names: list[str] = NAMES, atlas: str = "A", iqr: float = 2.0) -> None:
    values = np.arange(6.0)
    columns, metadata = {
        "harmonics": (
            # 12 modes: as text, mode_10 would come before mode_2
            {"hemisphere": np.repeat([0, 1], 3)} | {f"mode_{m:03d}": values + 10 * m for m in range(1, 13)},
            {"eigenvalues": {"left": list(range(12)), "right": list(range(1, 13))}},
        ),
        "gradients": ({"gradient_01": values, "gradient_02": -values}, {}),
        "normaliser": ({"median": values, "iqr": np.full(6, iqr), "n": np.full(6, 9)}, {}),
    }[path.stem]
    join.write_table(path, atlas, {"name": names} | columns, metadata)


def test_join_fulfils_the_contract(tables: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "rois.npz"
    args = [word for name, path in tables.items() for word in (f"--{name}", str(path))]
    assert join.main([*args, "--out", str(out)]) == 0
    with np.load(out, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    assert set(arrays) == set(contract.ROI_ARRAYS)
    assert arrays["atlas"].shape == ()
    assert str(arrays["atlas"]) == "A"
    assert arrays["names"].tolist() == NAMES
    assert (arrays["hemisphere"].dtype, arrays["hemisphere"].tolist()) == (np.int8, [0, 0, 0, 1, 1, 1])
    assert (arrays["harmonics"].dtype, arrays["harmonics"].shape) == (np.float32, (6, 12))
    np.testing.assert_array_equal(arrays["harmonics"][0], 10 * np.arange(1, 13))
    np.testing.assert_array_equal(arrays["eigenvalues"], [range(12), range(1, 13)])
    assert arrays["gradients"].shape == (6, 2)
    assert arrays["iqr"].dtype == np.float32
    first = out.read_bytes()
    assert join.main([*args, "--out", str(out)]) == 0
    assert out.read_bytes() == first


@pytest.mark.parametrize("function", ["np.savez", "Path.replace"])
def test_a_killed_join_gives_the_same_bytes_when_run_again(
    tables: dict[str, Path], check_kill, function: str
) -> None:
    words = [word for name, path in tables.items() for word in (f"--{name}", str(path))]
    check_kill("bhx_prep.brain_maps.join", function, 1, lambda out: [*words, "--out", str(out / "rois.npz")])


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        (
            "gradients",
            {"names": [NAMES[1], NAMES[0], *NAMES[2:]]},
            r"different orders \(row 0: 17Networks_LH_ROI_1",
        ),
        ("normaliser", {"names": [*NAMES[:-1], "x"]}, "different ROIs"),
        ("gradients", {"atlas": "B"}, "of atlas A, .* of B"),
        ("normaliser", {"iqr": 0.0}, "not positive"),
        ("normaliser", {"iqr": np.nan}, "no numbers"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    tables: dict[str, Path], table: str, change: dict, words: str
) -> None:
    write(tables[table], **change)
    with pytest.raises(DataError, match=words):
        join.join(**tables)


def test_an_atlas_without_harmonics_is_joined_by_its_description(
    tables: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas = tmp_path / "atlas.json"
    atlas.write_text(json.dumps({"label": "A", "names": NAMES, "hemisphere": [0, 0, 0, 1, 1, -1]}))
    words = ["--gradients", str(tables["gradients"]), "--normaliser", str(tables["normaliser"])]
    out = tmp_path / "rois.npz"
    assert join.main(["--atlas", str(atlas), *words, "--out", str(out)]) == 0
    rois = RoiMetadata.load(out)
    assert (rois.names, rois.n_harmonics, rois.eigenvalues.shape) == (tuple(NAMES), 0, (2, 0))
    assert rois.hemisphere.tolist() == [0, 0, 0, 1, 1, -1]
    atlas.write_text(json.dumps({"label": "A", "names": NAMES[::-1], "hemisphere": [0] * 6}))
    assert join.main(["--atlas", str(atlas), *words, "--out", str(out)]) == 1
    assert "in different orders (row 0" in capsys.readouterr().err


def test_a_damaged_table_is_one_sentence(tables: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    tables["gradients"].write_bytes(b"PAR1 but no more")
    args = [word for name, path in tables.items() for word in (f"--{name}", str(path))]
    assert join.main([*args, "--out", "nowhere.npz"]) == 1
    assert "as Parquet" in capsys.readouterr().err
