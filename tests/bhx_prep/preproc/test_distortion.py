"""Distortion by a planted field, from opposite images and from phases."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import planted_distortion
import pytest

from bhx_model.errors import DataError
from bhx_prep.preproc.embedded import distortion

SHAPE = (30, 36, 20)
MM = 4.0
PLANTED_MM = 7.0


@pytest.mark.parametrize(("axis", "ratio"), [(1, 1.0), (0, 0.5)])
def test_opposite_images_find_a_planted_displacement(axis, ratio):
    image, shape, brain = planted_distortion.head(SHAPE)
    d = shape * PLANTED_MM / MM
    rng = np.random.default_rng(0)
    first, second = (
        planted_distortion.distort(image, factor * d, axis) + rng.normal(0, 5, SHAPE)
        for factor in (1, -ratio)
    )
    found = distortion.opposite_displacement(first, second, axis, ratio)
    far = brain & (np.abs(d) > 0.3 * np.abs(d).max())
    before, after = np.abs(d[far]).mean(), np.abs(found - d)[far].mean()
    assert after < 0.2 * before
    assert np.abs(found - d)[brain].max() * MM < PLANTED_MM / 2


@pytest.mark.parametrize(("direction", "appears_at"), [("j", 12), ("j-", 8)])
def test_the_sign_is_that_of_bids(direction, appears_at):
    readout = distortion.Readout.of(direction, 0.05)
    displacement = np.full(SHAPE, 40.0) * readout.seconds  # 40 Hz
    measured = np.zeros(SHAPE)
    measured[15, appears_at, 10] = 1
    back = distortion.move_along(measured, displacement, readout.axis, order=1)
    assert np.unravel_index(int(np.argmax(back)), SHAPE) == (15, 10, 10)


def test_phases_give_the_field_that_wraps():
    pytest.importorskip("skimage", reason="scikit-image is in the environment of the embedded preprocessing")
    image, shape, _ = planted_distortion.head(SHAPE)
    hertz, delta_s = 300 * shape, 2.46e-3  # more than half a turn
    mask = distortion.head_of(image)
    wrapped = np.angle(np.exp(2j * np.pi * hertz * delta_s))
    assert np.abs(2 * np.pi * hertz[mask] * delta_s).max() > np.pi
    stored = np.round(wrapped / np.pi * 4096)  # as converters write it
    found = distortion.field_of_phase(distortion.to_radians(stored), delta_s, mask)
    np.testing.assert_allclose(found[mask], hertz[mask], atol=0.5)


@pytest.mark.parametrize(
    ("low", "high", "turns"),
    [(-np.pi, np.pi, 1), (0, 2 * np.pi, 1), (0, 4095, 1), (-4096, 4094, 1), (0, 65535, 1)],
)
def test_units_of_phases(low, high, turns):
    radians = distortion.to_radians(np.linspace(low, high, 1000).reshape(10, 10, 10))
    assert np.ptp(radians) == pytest.approx(2 * np.pi * turns, rel=1e-3)


def test_a_field_goes_on_outside_of_the_head_and_loses_its_noise():
    image, shape, brain = planted_distortion.head(SHAPE)
    mask = distortion.head_of(image)
    noisy = np.where(mask, 50 + 20 * shape + np.random.default_rng(0).normal(0, 5, SHAPE), 1e9)
    smooth = distortion.smooth_everywhere(noisy, mask, np.full(3, MM))
    assert np.isfinite(smooth).all()
    assert 25 < smooth.min() <= smooth.max() < 80
    inner = brain & (np.abs(shape) < 0.1)
    assert smooth[inner].std() < 4


def test_empty_images_are_refused():
    with pytest.raises(DataError, match="empty"):
        distortion.head_of(np.zeros(SHAPE))
    with pytest.raises(DataError, match="constant"):
        distortion.to_radians(np.zeros(SHAPE))


ESTIMATE = """
import json, pathlib, sys
import nibabel as nib
import numpy as np
from planted_distortion import distort, head
from bhx_prep.preproc.embedded.distortion_step import EstimateDistortion

folder, kinds = pathlib.Path(sys.argv[1]), sys.argv[2:]
shape, readout_s, delta_s = (30, 36, 20), 0.05, 2.46e-3
image, moved, brain = head(shape)
d = moved * 7 / 4
affine = np.diag([-4.0, 4.0, 4.0, 1.0])
random = np.random.default_rng(0)
def write(name, values):
    path = folder / f"{name}.nii.gz"
    nib.Nifti1Image(np.asarray(values, np.float32), affine).to_filename(path)
    return str(path)
def noisy(values):
    return values + random.normal(0, 5, shape)
# the run is encoded along j-: its voxels move against the field
hertz = -d / readout_s
boldref = write("boldref", noisy(distort(image, d, 1)))
phase = np.angle(np.exp(2j * np.pi * hertz * delta_s)) / np.pi * 4096
maps = {
    "phasediff": {"images": [write("phase", np.where(image > 50, phase, random.uniform(-4096, 4095, shape)))],
                  "magnitude": write("magnitude", noisy(image)), "scale": delta_s},
    "fieldmap": {"images": [write("field", 2 * np.pi * hertz)], "magnitude": write("magnitude", noisy(image)),
                 "scale": 1 / (2 * np.pi)},
    "epi": {"epis": [
        {"path": write("same", noisy(distort(image, d, 1))), "direction": "j-", "readout_s": readout_s},
        {"path": write("opposite", noisy(distort(image, -d, 1))), "direction": "j", "readout_s": readout_s}]},
}
far = brain & (np.abs(d) > 0.3 * np.abs(d).max())
for kind in kinds:
    (folder / kind).mkdir()
    field_map = {"kind": kind.split()[0], "direction": "j" if "wrong" in kind else "j-", "readout_s": readout_s}
    field_map |= maps[kind.split()[0]]
    out = EstimateDistortion(boldref=boldref, field_map=field_map, sources=["x"]).run(cwd=str(folder / kind)).outputs
    found = np.asarray(nib.load(out.displacement).dataobj)
    fixed = np.asarray(nib.load(out.boldref).dataobj)
    print(json.dumps({"kind": kind, "moved": bool(found.any()), "axis": out.axis, **out.metadata,
                      "before": float(4 * np.abs(d[far]).mean()),
                      "after": float(4 * np.abs(found - d)[far].mean()),
                      "like": float(np.corrcoef(fixed[far], image[far])[0, 1]),
                      "unlike": float(np.corrcoef(np.asarray(nib.load(boldref).dataobj)[far], image[far])[0, 1])}))
"""


def test_every_kind_of_field_map_halves_a_planted_distortion_and_a_wrong_direction_is_seen(
    root: Path, ants_python: Path, tmp_path: Path
):
    unwraps = (
        subprocess.run([ants_python, "-c", "import skimage"], capture_output=True, check=False).returncode
        == 0
    )
    kinds = ["fieldmap", "epi", *(["phasediff"] if unwraps else []), "fieldmap wrong"]
    code = f"import sys; sys.path.insert(0, {str(root / 'tests/builders')!r})\n{ESTIMATE}"
    done = subprocess.run(
        [ants_python, "-c", code, str(tmp_path), *kinds], check=True, capture_output=True, text=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["kind"] for row in rows] == kinds
    wrong = rows.pop()
    assert (wrong["DistortionCorrection"], wrong["moved"]) == ("none", False)
    assert "check PhaseEncodingDirection" in wrong["DistortionNote"]
    for row in rows:
        assert row["axis"] == 1
        assert row["DistortionCorrection"] == row["kind"]
        assert row["after"] < row["before"] / 2, row
        assert row["like"] > row["unlike"], row
