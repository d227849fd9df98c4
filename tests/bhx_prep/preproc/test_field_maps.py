"""Which field map a run is corrected by, and what is said where there is none."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
from small_bids import write_image, write_json

from bhx_prep.ingest.metadata import Sidecars
from bhx_prep.preproc.embedded.field_maps import find_field_map

RUN = "sub-01/func/sub-01_task-rest_bold.nii.gz"
ENCODED = {"PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.05}
FOR_IT = {"IntendedFor": "func/sub-01_task-rest_bold.nii.gz"}
ECHOES = {"EchoTime1": 0.00492, "EchoTime2": 0.00738}


def _fmap(root, name, **fields):
    values = np.random.default_rng(0).integers(0, 4000, (12, 12, 12)).astype(np.int16)
    image = nib.Nifti1Image(values, np.diag([17.0, 17.0, 17.0, 1.0]))
    (root / "sub-01/fmap").mkdir(parents=True, exist_ok=True)
    image.to_filename(root / f"sub-01/fmap/sub-01_{name}.nii.gz")
    write_json(root / f"sub-01/fmap/sub-01_{name}.json", **fields)


def _found(root, sidecar=ENCODED, run=RUN) -> Any:
    write_image(root / run, frames=10)
    return find_field_map(root, root / run, sidecar, (4, 4, 4), Sidecars(root))


def _phasediff(root, **fields):
    _fmap(root, "phasediff", **{**ECHOES, **FOR_IT, **fields})
    _fmap(root, "magnitude1")


@pytest.mark.parametrize(
    "meant",
    [
        "func/sub-01_task-rest_bold.nii.gz",
        ["sub-01/func/sub-01_task-rest_bold.nii.gz"],
        ["bids::sub-01/func/sub-01_task-rest_bold.nii.gz", "bids::sub-01/func/sub-01_task-n_bold.nii.gz"],
    ],
)
def test_ways_to_intend_a_field_map(meant, tmp_path):
    _phasediff(tmp_path, IntendedFor=meant)
    found, said = _found(tmp_path)
    assert said is None
    assert (found.kind, found.direction, found.readout_s) == ("phasediff", "j-", 0.05)
    assert found.scale == pytest.approx(2.46e-3)
    assert found.magnitude.endswith("_magnitude1.nii.gz")


def test_identifiers_of_fields_override_what_is_intended(tmp_path):
    _phasediff(tmp_path)
    for direction, sign in (("AP", "j-"), ("PA", "j")):
        _fmap(
            tmp_path,
            f"dir-{direction}_epi",
            B0FieldIdentifier="pair",
            PhaseEncodingDirection=sign,
            TotalReadoutTime=0.06,
        )
    found, _ = _found(tmp_path, {**ENCODED, "B0FieldSource": ["pair"]})
    assert found.kind == "epi"
    assert [(epi.direction, epi.readout_s) for epi in found.epis] == [("j-", 0.06), ("j", 0.06)]
    assert _found(tmp_path)[0].kind == "phasediff"
    _, said = _found(tmp_path, {**ENCODED, "B0FieldSource": "other"})
    assert "B0FieldIdentifier of no field map" in said


def test_two_phases_a_field_and_one_opposite_image(tmp_path):
    _fmap(tmp_path, "dir-PA_epi", **FOR_IT, PhaseEncodingDirection="j", EffectiveEchoSpacing=0.005)
    found, _ = _found(tmp_path)
    assert (found.kind, [(e.direction, round(e.readout_s, 3)) for e in found.epis]) == ("epi", [("j", 0.055)])
    _fmap(tmp_path, "fieldmap", **FOR_IT, Units="rad/s")
    _fmap(tmp_path, "magnitude")
    found, _ = _found(tmp_path)
    assert (found.kind, found.scale) == ("fieldmap", pytest.approx(0.159155, rel=1e-5))
    for i, echo in ((1, 0.005), (2, 0.0075)):
        _fmap(tmp_path, f"phase{i}", **FOR_IT, EchoTime=echo)
    _fmap(tmp_path, "magnitude1")
    found, _ = _found(tmp_path)
    assert (found.kind, found.scale) == ("phases", pytest.approx(0.0025))


def test_a_session_has_its_own(tmp_path):
    _phasediff(tmp_path)
    found, said = _found(tmp_path, run="sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz")
    assert found is None
    assert said.endswith("there is no field map of its session")


def _pd(**fields):
    return lambda root: _phasediff(root, **fields)


def _one(name, **fields):
    return lambda root: _fmap(root, name, **fields)


NOTES = {
    "nothing": (lambda root: None, ENCODED, "there is no field map"),
    "intended for nothing": (_pd(IntendedFor=None), ENCODED, "sub-01_phasediff.nii.gz has no IntendedFor and no B0Field"),
    "for what is absent": (_pd(IntendedFor="func/x.nii.gz"), ENCODED, "names func/x.nii.gz, which does not exist"),
    "for another": (_pd(IntendedFor="fmap/sub-01_magnitude1.nii.gz"), ENCODED, "no field map is intended for it"),
    "no direction": (_pd(), {"TotalReadoutTime": 0.05}, "its PhaseEncodingDirection is missing"),
    "a direction of the body": (_pd(), {**ENCODED, "PhaseEncodingDirection": "AP"}, "is AP: expected i, j or k"),
    "no readout": (_pd(), {"PhaseEncodingDirection": "j"}, "its TotalReadoutTime is missing"),
    "readout in ms": (_pd(), {**ENCODED, "TotalReadoutTime": 46.7}, "makes a readout of 46.7 s"),
    "readout as a text": (_pd(), {**ENCODED, "TotalReadoutTime": "0.05"}, "is '0.05': expected a number of seconds"),
    "readout 0": (_pd(), {**ENCODED, "TotalReadoutTime": 0}, "makes a readout of 0 s"),
    "no echo times": (_pd(EchoTime2=None), ENCODED, "states no two echo times"),
    "echo times in ms": (_pd(EchoTime1=4.92, EchoTime2=7.38), ENCODED, "are 4.92 and 7.38: expected seconds"),
    "echo times that are one": (_pd(EchoTime1=0.00738), ENCODED, "are 0.00738 and 0.00738"),
    "no magnitude": (_one("phasediff", **ECHOES, **FOR_IT), ENCODED, "has no magnitude image"),
    "only its own direction": (_one("dir-AP_epi", **FOR_IT, **ENCODED), ENCODED, "opposite phase-encoding direction j"),
    "an epi that says nothing": (_one("dir-PA_epi", **FOR_IT), ENCODED, "epi.nii.gz: PhaseEncodingDirection is missing"),
    "a field without unit": (_one("fieldmap", **FOR_IT), ENCODED, "expected Hz, rad/s or T"),
    "units in a list": (_one("fieldmap", Units=["Hz"], **FOR_IT), ENCODED, "expected Hz, rad/s or T"),
    "a readout of any length": (_pd(), {**ENCODED, "TotalReadoutTime": 10**400}, "expected a number of seconds"),
    "for a name that no file has": (_pd(IntendedFor="x" * 5000), ENCODED, "which does not exist"),
    "a magnitude alone": (_one("magnitude1", **FOR_IT), ENCODED, "alone makes no field map"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTES)
def test_what_is_said_of_a_run_that_is_not_corrected(name, tmp_path):
    make, sidecar, words = NOTES[name]
    make(tmp_path)
    found, said = _found(tmp_path, sidecar)
    assert found is None
    assert said.startswith("distortion not corrected: ")
    assert words in said
    assert len(said) <= 200


def test_images_of_two_grids_are_no_field_map(tmp_path):
    _phasediff(tmp_path)
    path = tmp_path / "sub-01/fmap/sub-01_magnitude1.nii.gz"
    values = np.arange(11 * 12 * 12, dtype=np.int16).reshape(11, 12, 12)
    nib.Nifti1Image(values, np.diag([17.0, 17.0, 17.0, 1.0])).to_filename(path)
    found, said = _found(tmp_path)
    assert found is None
    assert (
        "sub-01_magnitude1.nii.gz and sub-01_phasediff.nii.gz differ in their voxels (11x12x12 and 12x12x12)"
        in said
    )


@pytest.mark.parametrize("which", ["phasediff", "magnitude1"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda path: path.write_bytes(b"\x1f\x8b"), "not a readable NIfTI image"),
        (lambda path: path.write_bytes(path.read_bytes()[:-60]), "damaged or cut short"),
        (lambda path: write_image(path), "all voxels are the same"),
        (lambda path: write_image(path, zooms=(1, 1, 1)), "field of view"),
    ],
    ids=["no image", "cut", "empty", "too small"],
)
def test_a_field_map_that_cannot_be_read_is_said_and_not_used(fault, words, which, tmp_path):
    _phasediff(tmp_path)
    fault(tmp_path / f"sub-01/fmap/sub-01_{which}.nii.gz")
    found, said = _found(tmp_path)
    assert found is None
    assert f"sub-01_{which}.nii.gz: " in said
    assert words in said
