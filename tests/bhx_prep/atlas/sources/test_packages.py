"""Schaefer's atlas from the files of installed packages."""

from __future__ import annotations

import numpy as np
import pytest

from bhx_prep.atlas.atlas import FILES
from bhx_prep.atlas.sources import packages
from bhx_prep.config.atlas import AtlasSection


@pytest.mark.parametrize("networks", [7, 17])
@pytest.mark.parametrize("parcels", [100, 300, 500, 1000])
def test_any_size_comes_with_its_names_and_says_what_it_lacks(parcels: int, networks: int) -> None:
    found = packages.from_packages(AtlasSection(parcels=parcels, networks=networks))  # type: ignore[arg-type]
    assert len(found.names) == parcels
    assert all(name.startswith(f"{networks}Networks_") for name in found.names)
    assert "fsaverage5" in found.labels_surface
    there = {"volume": found.labels_volume is not None, "fsLR": "fsLR" in found.labels_surface}
    assert set(found.missing) == {FILES[grid] for grid, known in there.items() if not known}
    for labels in found.labels_surface.values():
        assert max(side.max() for side in labels) == parcels


def test_orders_of_7_and_17_networks_name_the_same_places() -> None:
    seven = packages.from_packages(AtlasSection(networks=7))
    seventeen = packages.from_packages(AtlasSection(networks=17))
    to_17 = packages.order_7_to_17(400)
    for a, b in zip(seven.surface("fsLR"), seventeen.surface("fsLR"), strict=True):
        np.testing.assert_array_equal(to_17[a], b)
