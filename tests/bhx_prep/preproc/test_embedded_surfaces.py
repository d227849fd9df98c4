"""Surfaces of the embedded workflow: labels, numbers, files and sampling; cat-surf itself only where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from meshes import ellipsoid, icosphere

from bhx_model.errors import ConfigError, DataError, SiteError
from bhx_prep.atlas.cerebrum import _regions
from bhx_prep.brain_maps.surfaces import read_surface
from bhx_prep.config.config import check
from bhx_prep.features.scans import _status
from bhx_prep.preproc.embedded import surfaces_machine
from bhx_prep.preproc.embedded import surfaces_quality as quality
from bhx_prep.preproc.embedded.surfaces_files import save_map, save_series, save_surface
from bhx_prep.preproc.embedded.surfaces_labels import hemisphere_labels
from bhx_prep.preproc.embedded.surfaces_sampling import DEPTHS, between, sample
from bhx_prep.preproc.embedded.surfaces_start import turned
from bhx_prep.preproc.status import write_status


def folded(shape: tuple[int, int, int] = (64, 72, 64)) -> np.ndarray:
    """Distance (voxels) from a folded closed surface, negative inside: a sphere with ridges."""
    at = np.indices(shape).astype(np.float64) - (np.array(shape)[:, None, None, None] - 1) / 2
    radius = np.maximum(np.linalg.norm(at, axis=0), 1e-6)
    polar, azimuth = np.arccos(np.clip(at[2] / radius, -1, 1)), np.arctan2(at[1], at[0])
    return radius - 20 - 2.5 * np.sin(polar) ** 2 * np.cos(6 * azimuth) - 1.5 * np.cos(5 * polar)


def tissues(distance: np.ndarray) -> dict[str, np.ndarray]:
    """White matter inside, 2.6 mm of grey matter, then fluid, with soft borders."""
    white, brain = np.clip(0.5 - distance, 0, 1), np.clip(0.5 - (distance - 2.6), 0, 1)
    mask = distance < 6
    return {"wm": white * mask, "gm": (brain - white) * mask, "csf": (1 - brain) * mask}


def test_a_hemisphere_is_cut_out_and_filled():
    distance = folded()
    regions = np.where(np.arange(64)[:, None, None] < 40, 1, 2) * np.ones(distance.shape, int)
    regions[30:34, 34:38, 30:34] = 3
    probable = tissues(distance)
    for name, value in (
        ("wm", 0.0),
        ("csf", 1.0),
    ):  # a ventricle in the region to fill, and a lesion that is not
        probable[name][30:34, 34:38, 30:34] = value
        probable[name][24:26, 34:36, 30:32] = value
    probable["gm"][2:4, 2:4, 2:4] = 1  # a piece of the skull
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (-30, -40, -50)
    cut = hemisphere_labels(probable, regions, affine, "left")
    back = np.round(np.linalg.inv(affine) @ cut.affine)[:3, 3].astype(int)
    whole = np.zeros(distance.shape, np.float32)
    whole[tuple(slice(s, s + n) for s, n in zip(back, cut.values.shape, strict=True))] = cut.values
    assert (whole[40:] == 0).all()
    assert (whole[30:34, 34:38, 30:34] == 3).all()
    assert (whole[24:26, 34:36, 30:32] == 3).all()
    assert whole[3, 3, 3] <= 1
    assert whole.max() == 3
    with pytest.raises(DataError, match="no white matter in the right hemisphere"):
        hemisphere_labels(probable, np.ones(distance.shape, int), affine, "right")


def test_numbers_of_a_sphere_are_known():
    vertices, triangles = icosphere(4, 20.0)
    assert quality.euler(vertices, triangles) == 2
    assert quality.euler(vertices, triangles[1:]) == 1  # a hole
    assert quality.volume(vertices, triangles) == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)
    assert quality.volume(vertices, triangles[:, ::-1]) < 0
    assert quality.vertex_areas(vertices, triangles).sum() == pytest.approx(4 * np.pi * 20**2, rel=0.01)
    outwards = (quality.normals(vertices, triangles) * vertices).sum(axis=1) / 20
    assert outwards.min() > 0.99
    assert quality.swapped(-30, 30) == []
    assert "swapped" in quality.swapped(30, -30)[0]


@pytest.mark.parametrize("off", [-1.5, 0.0, 1.0])
def test_where_brightness_falls_is_measured_along_normals(off):
    vertices, triangles = icosphere(3, 20.0)
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])  # stored from right to left
    affine[:3, 3] = (30, -30, -30)
    at = np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices((61, 61, 61)).astype(float))
    distance = np.linalg.norm(at + affine[:3, 3][:, None, None, None], axis=0)
    head = 60 + 40 * np.clip(20 + off - distance + 0.5, 0, 1)
    offset, share = quality.border(vertices, triangles, head, affine, np.ones(len(vertices), bool))
    assert offset == pytest.approx(off, abs=0.3)
    assert share > 0.95
    assert quality.border(vertices, triangles, 160 - head, affine, np.ones(len(vertices), bool))[1] < 0.05


def test_a_sphere_is_turned_by_where_the_brain_lies():
    target, triangles = ellipsoid(3)
    target = target + 0.1 * np.abs(target)  # the left is not the right
    sphere, _ = icosphere(3, 100.0)
    angle = np.radians(40)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    head = np.array([[0.95, -0.2, 0.05], [0.2, 0.97, -0.1], [-0.03, 0.12, 1.0]])
    subject = 1.1 * target @ head.T + [4.0, -20.0, 9.0]
    found = turned(subject, triangles, sphere @ turn, target, sphere)
    off = np.degrees(np.arccos(np.clip((found * sphere).sum(axis=1) / 1e4, -1, 1)))
    assert off.max() < 10


def test_folds_that_do_not_meet_the_templates_are_seen():
    sphere, triangles = icosphere(5, 1.0)
    place = 70.0 * sphere + [35.0, 0.0, 0.0]
    folds = 8.0 * np.cos(9 * sphere[:, 1:2]) * np.cos(7 * sphere[:, 2:])  # of what all heads share
    own = 3.0 * np.cos(23 * sphere[:, :1] + 19 * sphere[:, 1:2])  # and of this one
    template, subject = (place + what * sphere for what in (folds, folds + own))
    cortex = sphere[:, 0] > -0.5
    meets = quality.registration(1.1 * subject + [9.0, 0.0, 4.0], template, triangles, cortex)
    assert min(meets.values()) > 0.8
    near = (np.linalg.norm(template - [40.0, -22.0, 52.0], axis=1) < 35)[:, None]
    local = quality.registration(np.where(near, place - folds * sphere, subject), template, triangles, cortex)
    assert local["central_correlation"] < 0
    assert local["fold_correlation"] > 0.5
    mirrored = np.column_stack([-template[:, 0], template[:, 1:]]), triangles[:, ::-1]
    left = quality.registration(subject, *mirrored, cortex)
    assert set(left) == {"fold_correlation", "central_correlation"} <= set(quality.LIMITS)


def test_what_is_out_of_its_limits_is_said_with_the_limits():
    good = {name: (limit.low + limit.high) / 2 for name, limit in quality.LIMITS.items()}
    assert quality.failures(good) == []
    assert quality.failures({**good, "euler": 4}) == ["euler is 4 (2 to 2)"]
    assert quality.failures({**good, "thickness_mm": float("nan")})[0].startswith("thickness_mm is nan")


def test_files_say_their_side(tmp_path):
    vertices, triangles = icosphere(2, 50.0)
    path = tmp_path / "sub-1_hemi-L_white.surf.gii"
    save_surface(path, vertices, triangles, "left", "white")
    read, faces = read_surface(path, "left")
    assert np.abs(read - vertices).max() < 1e-4
    assert np.array_equal(faces, triangles)
    with pytest.raises(DataError, match="swapped"):
        read_surface(path, "right")
    save_map(tmp_path / "t.shape.gii", vertices[:, 0], "right", "thickness")
    save_series(tmp_path / "s.func.gii", vertices, "right", 2.0)
    series = nib.load(tmp_path / "s.func.gii")
    assert np.abs(series.agg_data() - vertices).max() < 1e-4
    assert series.darrays[0].meta["TimeStep"] == "2000.000000"
    assert series.meta["AnatomicalStructurePrimary"] == "CortexRight"


def test_a_run_is_sampled_where_the_head_was(tmp_path):
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = (-20, -20, -30)
    x, y, z = (
        np.indices((21, 21, 21)) * np.array([2, 2, 3])[:, None, None, None]
        + affine[:3, 3][:, None, None, None]
    )
    frames = np.stack([x + 10 * y + 100 * z + 7000] * 2, axis=3).astype(np.float32)
    white, _ = icosphere(1, 8.0)
    white[0] = (500, 0, 0)  # outside of the measured volume
    pial = white * 1.25
    moved = np.eye(4)
    moved[:3, 3] = (1.0, -2.0, 0.5)
    motion = np.stack([np.eye(4), moved])
    series = sample(np.moveaxis(frames, 3, 0), affine, motion, between(white, pial, np.eye(4)))
    assert len(DEPTHS) > 1
    middle = (white + pial) / 2
    assert np.isnan(series[0]).all()
    for t, shift in enumerate(([0, 0, 0], moved[:3, 3])):
        expected = (middle + shift) @ [1, 10, 100] + 7000
        assert np.abs(series[1:, t] - expected[1:]).max() < 0.01


def test_a_run_is_sampled_where_distortion_has_put_its_signal():
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    x, y, z = np.indices((21, 21, 21)) * np.array([2, 2, 3])[:, None, None, None]
    frames = np.stack([x + 10 * y + 100 * z] * 2).astype(np.float32)
    displacement = (0.1 * np.indices((21, 21, 21))[2]).astype(np.float32)  # voxels along y, larger higher up
    ball, _ = icosphere(1, 8.0)
    white, pial = (size * ball + np.array([20, 20, 30]) for size in (1, 1.25))
    moved = np.eye(4)
    moved[:3, 3] = (1.0, -2.0, 0.5)
    series = sample(
        frames, affine, np.stack([np.eye(4), moved]), between(white, pial, np.eye(4)), displacement, 1
    )
    middle = (white + pial) / 2
    for t, shift in enumerate(([0, 0, 0], moved[:3, 3])):
        expected = (middle + shift) @ [1, 10, 100] + 10 * 2 * 0.1 * middle[:, 2] / 3
        assert np.abs(series[:, t] - expected).max() < 0.01


TO_REFERENCE = """
import sys
import ants
import numpy as np
from bhx_prep.preproc.embedded.surfaces_bold import world_matrix

turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
centre, shift, flip, place = (np.array(v, float) for v in ([5, 6, 7], [1, 2, 3], [-1, -1, 1], [10, -20, 30]))
rigid = ants.create_ants_transform(transform_type="Euler3DTransform", center=(1, 2, 3), translation=(4, 5, 6))
affine = ants.create_ants_transform(transform_type="AffineTransform", matrix=turn, center=centre, translation=shift)
for kind, expected in ((rigid, place + [-4, -5, 6]), (affine, (turn @ (place * flip - centre) + centre + shift) * flip)):
    ants.write_transform(kind, sys.argv[1])
    assert np.abs((world_matrix(sys.argv[1]) @ [*place, 1])[:3] - expected).max() < 1e-4
"""


def test_transforms_of_any_kind_become_matrices(ants_python, tmp_path):
    subprocess.run([ants_python, "-c", TO_REFERENCE, str(tmp_path / "t.mat")], check=True)


CONNECTED = """
import sys
from dataclasses import replace
from pathlib import Path
from bhx_prep.preproc.embedded.field_maps import FieldMap
from bhx_prep.preproc.embedded.raw_files import RawFiles, Scan
from bhx_prep.preproc.embedded.workflow import build

root = Path(sys.argv[1])
for name in ("head_T1w", "head_mask", "t1w", "bold"):
    (root / f"{name}.nii.gz").touch()
anat = Scan(root / "t1w.nii.gz", {"sub": "1"}, {}, (1.0, 1.0, 1.0))
run = Scan(root / "bold.nii.gz", {"sub": "1", "task": "rest"}, {}, (3.0, 3.0, 3.0), tr_s=2.0, shape=(9, 9, 9))
for field_map in (None, FieldMap("fieldmap", "j", 0.04, (str(root / "bold.nii.gz"),), str(root / "t1w.nii.gz"))):
    files = RawFiles("1", [anat], [replace(run, field_map=field_map)])
    graph = build(files, root, root, root / "out", root / "work", 2.0, "cat-surf")
    given = {
        (one.name.partition("_")[0], name)
        for one, node, edge in graph._graph.in_edges(graph.get_node("sample_sub-1_task-rest"), data=True)
        for _, name in edge["connect"]
    }
    wanted = {("distortion", name) for name in ("displacement", "axis", "distortion")}
    assert wanted & given == (wanted if field_map else set()), given
    if not field_map:
        assert graph.get_node("sample_sub-1_task-rest").inputs.distortion["DistortionCorrection"] == "none"
"""


def test_where_there_is_a_field_map_surfaces_are_sampled_by_it(ants_python, tmp_path):
    subprocess.run([ants_python, "-c", CONNECTED, str(tmp_path)], check=True)


FAILED = """
import sys
from pathlib import Path
from types import SimpleNamespace
from bhx_model.errors import DataError, SiteError
from bhx_prep.preproc.embedded import surfaces

surfaces.subprocess = SimpleNamespace(
    run=lambda *_, **__: SimpleNamespace(returncode=1), STDOUT=None, TimeoutExpired=OSError
)
step = surfaces.MakeSurfaces(templates=sys.argv[1])
for full, expected in ((None, DataError), ("the disk is full", SiteError)):
    surfaces.full_disk = lambda folders, full=full: full
    try:
        step._reconstruct(Path(sys.argv[1]), "left")
    except (DataError, SiteError) as error:
        assert type(error) is expected, error
    else:
        raise AssertionError(expected)
"""


def test_a_full_disk_is_no_reason_for_a_subject_without_surfaces(ants_python, tmp_path):
    subprocess.run([ants_python, "-c", FAILED, str(tmp_path)], check=True)


def test_the_templates_hemispheres_leave_cerebellum_and_stem_out():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-50, -70, -70)
    shape = (51, 60, 61)
    x, y, z = (affine[i, i] * np.indices(shape)[i] + affine[i, 3] for i in range(3))
    mask = (x / 46) ** 2 + ((y + 10) / 54) ** 2 + (z / 56) ** 2 < 1
    aal = np.where(mask & (z > 0) & ((x / 40) ** 2 + ((y + 10) / 48) ** 2 + (z / 50) ** 2 > 1), 1, 0)
    aal[mask & (z < -24) & (y < -44)] = 95
    aal[(np.abs(np.abs(x) - 12) < 4) & (np.abs(y + 10) < 8) & (np.abs(z - 8) < 4)] = 121
    ventricle = (np.abs(np.abs(x) - 12) < 8) & (np.abs(y + 10) < 12) & (np.abs(z - 22) < 6)
    head = np.where(mask, np.where(ventricle, 20.0, 90.0), 0).astype(np.float32)
    regions = _regions(head, mask, aal, affine)
    at = {
        "left cortex": ((-40, -10, 20), 1),
        "right cortex": ((40, -10, 20), 2),
        "left ventricle": ((-12, -10, 22), 3),
        "right thalamus": ((12, -10, 8), 4),
        "stem": ((0, -28, -40), 0),
        "cerebellum": ((10, -50, -26), 0),
    }
    for name, (place, region) in at.items():
        voxel = tuple(np.round(np.linalg.inv(affine) @ [*place, 1])[:3].astype(int))
        assert regions[voxel] == region, name


def test_fslr_of_raw_data_needs_surfaces():
    study = {"cohorts": {"a": {"input": "bids", "root": "x", "space": "fsLR"}}}
    with pytest.raises(ConfigError, match=r"fsLR needs preproc\.surfaces: cat-surf"):
        check(study)
    assert check({**study, "preproc": {"surfaces": "cat-surf"}}).makes_surfaces
    with pytest.raises(ConfigError, match="fmriprep-docker makes surfaces of its own"):
        check({**study, "preproc": {"surfaces": "cat-surf", "backend": "fmriprep-docker"}})


def test_a_machine_without_the_library_or_the_templates_is_told_how(tmp_path, monkeypatch):
    assert "pip install 'cat-surf" in surfaces_machine.how_to_get_cat_surf("python")
    assert not surfaces_machine.has_cat_surf(tmp_path / "no-python")
    monkeypatch.setattr(surfaces_machine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SiteError, match=r"cat-surf .* is not installed"):
        surfaces_machine.check_machine(tmp_path)
    monkeypatch.setattr(surfaces_machine.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(SiteError, match="--surfaces"):
        surfaces_machine.check_machine(tmp_path)


def test_a_reason_without_surfaces_is_a_note_of_the_scan(tmp_path):
    status = tmp_path / "sub-1_status.json"
    written = [
        {"file": "sub-1_task-rest_bold.nii.gz", "note": "surfaces not made: left: euler is 4 (2 to 2)"}
    ]
    write_status(
        status, subject="1", reason=None, seconds=1, stages={}, versions={}, log=tmp_path, notes=written
    )
    assert _status(status) == (None, {}, {written[0]["file"]: [written[0]["note"]]})


def python_with_cat_surf(root: Path) -> Path:
    """A Python that has the library: this one, that of BHX_ANTS_PYTHON, or the second environment's."""
    named = os.environ.get("BHX_ANTS_PYTHON")
    for python in filter(None, (sys.executable, named, str(root / ".venv-ants/bin/python"))):
        if surfaces_machine.has_cat_surf(Path(python)):
            return Path(python)
    pytest.skip("cat-surf is not installed: it is the user's to install (extra `surfaces`)")


RECONSTRUCT = """
import sys
import nibabel as nib
import numpy as np
from bhx_prep.preproc.embedded.surfaces_cat import intersections, reconstruct

labels = nib.load(sys.argv[1])
made = reconstruct(np.asarray(labels.dataobj, np.float32), labels.affine, {})
np.savez(sys.argv[2], **made, cut=intersections(made["pial"], made["triangles"]))
"""


def test_a_folded_sphere_becomes_a_surface(root, tmp_path):
    python = python_with_cat_surf(root)
    distance = folded()
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])  # stored from right to left
    affine[:3, 3] = (40, -30, -20)
    cut = hemisphere_labels(tissues(distance), np.ones(distance.shape, int), affine, "left")
    nib.Nifti1Image(cut.values, cut.affine).to_filename(tmp_path / "labels.nii.gz")
    command = [str(python), "-c", RECONSTRUCT, str(tmp_path / "labels.nii.gz"), str(tmp_path / "made.npz")]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(tmp_path / "made.npz", allow_pickle=False) as file:
        made = dict(file)
    triangles = made["triangles"]
    assert quality.euler(made["midthickness"], triangles) == 2
    assert np.median(made["thickness"]) == pytest.approx(2.6, abs=0.4)
    sizes = [quality.volume(made[name], triangles) for name in ("white", "midthickness", "pial")]
    assert 0 < sizes[0] < sizes[1] < sizes[2]
    assert made["cut"] < 0.01 * len(triangles)
    inverse = np.linalg.inv(affine)
    voxels = (made["white"] @ inverse[:3, :3].T + inverse[:3, 3]).round().astype(int)
    assert abs(np.median(distance[tuple(voxels.T)])) < 0.5
    assert np.ptp(np.linalg.norm(made["sphere"], axis=1)) < 1
