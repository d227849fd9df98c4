"""Pictures of scans: what they show, and what they must not."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import review_files
from PIL import Image

from bhx_prep.review import carpet, drawings, panels, svg
from bhx_prep.review.drawings import Brain


def pixels(picture: str) -> np.ndarray:
    data = re.search(r"base64,([^\"]+)", picture)
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))


def paths(picture: str, colour: str) -> int:
    """Commands in the paths of a colour: 0 where nothing is drawn."""
    return sum(len(d) for d in re.findall(rf'<path class="[rt] {colour}" d="([^"]+)"', picture))


@pytest.fixture(scope="module")
def template():
    return review_files.template()


def every_kind(template, face: float) -> dict[str, str]:
    brain = review_files.brain(face)
    return {
        "mask": drawings.mask(brain, template, "x"),
        "normalisation": drawings.normalisation(brain, template, "x"),
        "coregistration": drawings.coregistration(brain, brain, None, template, "x"),
    }


def test_no_picture_shows_a_face(template):
    """A head with a face gives the same pictures as one without, to the byte."""
    assert every_kind(template, review_files.FACE) == every_kind(template, 0.0)


def test_a_mask_that_holds_the_face_shows_none_either(template):
    values = review_files.head()
    everything = Brain(review_files.volume(values), review_files.volume(values > 0))
    brightest = pixels(drawings.mask(everything, template, "x")).max()
    assert brightest <= pixels(every_kind(template, 0.0)["mask"]).max()


def test_of_a_scan_without_a_mask_the_neighbourhood_of_the_template_is_shown(template):
    bare = Brain(review_files.volume(review_files.head()), None)
    picture = drawings.normalisation(bare, template, "x")
    assert pixels(picture).max() > 100
    assert paths(drawings.mask(bare, template, "x"), "m") == 0


def test_pictures_are_svg_and_say_what_they_are(template):
    for kind, picture in every_kind(template, 0.0).items():
        root = ET.fromstring(picture)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(picture) < 200_000, kind
    assert paths(every_kind(template, 0.0)["mask"], "m") > 100
    assert paths(every_kind(template, 0.0)["normalisation"], "s") > 100
    assert paths(every_kind(template, 0.0)["coregistration"], "w") > 50


def test_planes_pass_through_the_ends_of_the_brain():
    mask = review_files.volume(review_files.brain_mask())
    found = panels.landmarks(mask)
    assert found["vertex"][2] == pytest.approx(80 - panels.DEPTH_MM, abs=6)
    assert found["occiput"][1] == pytest.approx(-105 + panels.DEPTH_MM, abs=6)
    assert found["temporal pole"][0] < -22
    assert found["temporal pole"][2] < -25
    rows = panels.through_landmarks(mask)
    assert [(row.name, [p.plane for p in row.panels]) for row in rows] == [
        (name, ["sagittal", "coronal", "axial"]) for name in ("vertex", "temporal pole", "occiput")
    ]
    vertex = rows[0].panels
    assert vertex[2].at_mm == found["vertex"][2]


def test_left_of_a_picture_is_the_left_of_the_subject_and_up_is_up(template):
    axial = template.middle[2].panels[1]
    assert axial.world[0, 0, 0] < axial.world[0, 0, -1]
    assert axial.world[1, 0, 0] > axial.world[1, -1, 0]


def test_texts_from_data_end_nothing(template):
    title = "</title><script>alert(1)</script>\" onload='x' & \x00\n"
    for picture in (
        drawings.mask(review_files.brain(), template, title),
        drawings.carpet(np.zeros((3, 5), np.uint8), 2.0, np.ones(5), np.ones(5), np.ones(5, bool), title),
    ):
        root = ET.fromstring(picture)
        assert [node for node in root.iter() if node.tag.endswith("script")] == []
        assert root.attrib.keys() == {"viewBox", "width", "height", "role", "aria-label"}
    assert svg.escape("\x00<\n") == "&lt;"


@pytest.mark.parametrize("values", [np.zeros(review_files.SHAPE), np.full(review_files.SHAPE, np.nan)])
def test_an_empty_image_is_drawn_black(template, values):
    empty = Brain(review_files.volume(values), review_files.volume(np.zeros(review_files.SHAPE)))
    assert pixels(drawings.normalisation(empty, template, "x")).max() == 0


def test_a_carpet_is_scaled_per_parcel_and_small():
    rng = np.random.default_rng(0)
    series = rng.standard_normal((400, 50)) * 10 ** rng.uniform(-3, 3, (400, 1)) + 1e4
    series += np.linspace(0, 1, 50) * 100 * series.std(axis=1, keepdims=True)
    series[7] = np.nan
    rows = carpet.reduce(series)
    assert rows.shape == (carpet.MOST_ROWS, 50)
    assert rows.dtype == np.uint8
    assert 20 < rows.std() < 80
    again = carpet.image(carpet.row("k", rows))
    np.testing.assert_array_equal(again, rows)
    assert carpet.reduce(np.full((4, 9), np.nan)).shape == (0, 9)


def test_a_carpet_has_traces_and_marks_what_is_not_used():
    rows = np.random.default_rng(0).integers(0, 255, (30, 60)).astype(np.uint8)
    fd = np.r_[np.nan, np.full(59, 0.25)]
    kept = np.arange(60) != 30
    picture = drawings.carpet(rows, 2.0, fd, None, kept, "x")
    assert "max 0.25" in picture
    assert "120 s" in picture
    assert "DVARS" not in picture
    assert paths(picture, "s") > 0
    assert paths(picture, "m") > 0
    assert paths(drawings.carpet(rows, 2.0, fd, None, None, "x"), "m") == 0
    ET.fromstring(drawings.carpet(np.zeros((0, 60), np.uint8), 2.0, None, None, None, "x"))
