"""Figures show what the arrays hold: parcels in their places, networks in order, colours of the page."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from fake_results import NAMES
from meshes import sphere
from PIL import Image

from bhx_prep.report import cortex, figures


def pixels(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGBA")).astype(
        int
    )


@pytest.fixture(scope="module")
def views():
    """Two spheres: parcel 1 in front (y > 0), 2 behind; right 3 and 4; none on top."""
    vertices, faces = sphere()
    label = np.where(vertices[:, 1] > 1, 1, 2)
    label[vertices[:, 2] > 45] = 0
    return cortex.Cortex([(vertices, faces), (vertices, faces)], [label, np.where(label, label + 2, 0)])


def test_parcels_stand_where_they_belong(views):
    picture = pixels(views.paint(np.array([1.0, 0.0, 0.0, 0.0]), "RdBu_r", 0, 1))
    h, w = cortex.HEIGHT, cortex.WIDTH
    assert picture.shape == (2 * h, 2 * w, 4)
    red = (picture[..., 0] > picture[..., 2] + 30) & (picture[..., 3] > 128)
    # left hemisphere from outside: front on the left; from inside: front on the right; nothing in the right one
    assert red[:h, : w // 2].sum() > 20 * max(1, red[:h, w // 2 + 3 : w].sum())
    assert red[h:, w // 2 : w].sum() > 20 * max(1, red[h:, : w // 2 - 3].sum())
    assert red[:, w:].sum() == 0


def test_cortex_without_value_is_grey_and_the_background_is_clear(views):
    picture = pixels(views.paint(np.array([np.nan, 1.0, 1.0, 1.0]), "viridis", 0, 1))
    assert (picture[0, 0, 3], picture[5, 5, 3]) == (0, 0)
    h, w = cortex.HEIGHT, cortex.WIDTH
    front, behind = picture[h // 2, w // 2 - 40], picture[h // 2, w // 2 + 40]
    assert np.ptp(front[:3]) < 20
    assert np.ptp(behind[:3]) > 80
    top = picture[h // 2 - 102, w // 2 + 4]  # beside parcel 2, but without a parcel
    assert top[3] == 255
    assert np.ptp(top[:3]) < 20


def test_surface_turned_inside_out_looks_the_same(views):
    vertices, faces = sphere()
    one = cortex.view(vertices, faces, 1, 80.0)
    other = cortex.view(vertices, faces[:, ::-1], 1, 80.0)
    np.testing.assert_allclose(one.light, other.light, atol=0.05)


def test_near_side_hides_the_far_side():
    vertices, faces = sphere()
    view = cortex.view(vertices, faces, -1, 80.0)
    seen = np.unique(view.vertex[view.vertex >= 0])
    assert (vertices[seen][:, 0] < 6).all()


def test_networks_come_in_order_left_first():
    order, blocks = figures.network_order([*NAMES, "thalamus"])
    names = [[*NAMES, "thalamus"][i] for i in order]
    assert [b[0] for b in blocks] == ["Vis", "SomMot", "Cont", "Default", "other"]
    assert blocks[0] == ("Vis", 0, 4)
    assert ["_LH_" in n for n in names[:4]] == [True, True, False, False]
    assert figures.families(["7Networks_LH_SalVentAttn_Med_1"]) == ["SalVentAttn"]


def drawings():
    rng = np.random.default_rng(0)
    r = len(NAMES)
    steps = np.arange(1.0, 40)
    return {
        "motion": lambda: figures.motion({"a": rng.random(9), "b": np.array([0.1])}, 0.5),
        "trace": lambda: figures.trace(np.array([np.nan, 0.1, 0.2]), 2.0, 0.5),
        "carpet": lambda: figures.carpet(np.full((r, 30), np.nan), NAMES, 2.0, None),
        "connectivity": lambda: figures.connectivity(np.corrcoef(rng.normal(size=(r, 30))), NAMES),
        "spectrum": lambda: figures.spectrum(np.array([[0, 2e-4, 4e-4]] * 2)),
        "normaliser": lambda: figures.normaliser(rng.random(r), rng.random(r), NAMES),
        "curves": lambda: figures.curves("fusion", {"loss": (steps, 1 / steps)}, None),
        "estimates": lambda: figures.estimates(
            "MAE", [("probe", 1.0, None, None), ("fc", 2.0, 1.0, 3.0)], [("site", 2.5, 2.0, 3.0)]
        ),
    }


@pytest.mark.parametrize("name", drawings())
def test_drawings_are_text_on_the_pages_colours(name):
    svg = drawings()[name]()
    assert svg == drawings()[name]()
    assert svg.startswith("<svg viewBox=")
    assert "<text" in svg
    assert "var(--ink)" in svg
    assert not re.search(r"#0[1-5]050[1-4]|#0[1-4]0[1-4]0[1-4]", svg)
    assert "DejaVu" not in svg
    label = re.search(r'aria-label="([^"]*)"', svg)
    assert label
    assert len(label[1]) > 20


def test_description_gives_the_numbers():
    svg = figures.trace(np.array([np.nan, 0.1, 0.3]), 2.0, 0.5)
    assert "mean 0.20, largest 0.30 mm" in svg
