"""The template folder: equal bytes from equal input, also after a kill, and by the workflow's rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from atlas_files import with_subcortex
from one_table_study import snakemake
from settings_files import settings_file

from bhx_prep.atlas.fetch import fetch
from bhx_prep.atlas.sources import packages
from bhx_prep.brain_maps import harmonics
from bhx_prep.config.atlas import AtlasSection


def test_the_rule_makes_what_the_named_files_give(root: Path, tmp_path: Path) -> None:
    volume, _, names = with_subcortex(tmp_path)
    atlas = {"source": "files", "parcels": 100, "networks": 7, "subcortex": "S1"}
    atlas |= {"volume": str(volume), "names": str(names)}
    done = snakemake(root, tmp_path, atlas, "results/templates/atlas.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/templates/atlas_volume.nii.gz").exists()
    with pytest.raises(ValueError, match=r"not available on fsLR-32k.*set atlas\.cifti"):
        harmonics.compute(tmp_path / "results/templates", 3)


def test_a_killed_fetch_gives_the_same_bytes_when_run_again(check_kill) -> None:
    atlas = settings_file({"parcels": 100, "networks": 7})
    check_kill("bhx_prep.atlas.fetch", "Path.replace", 9, lambda out: ["--atlas", atlas, "--out", str(out)])


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    first = fetch(AtlasSection(parcels=100), tmp_path / "a")
    for kept in (packages.head_mask, packages.read_annot, packages.order_7_to_17):
        kept.cache_clear()
    assert fetch(AtlasSection(parcels=100), tmp_path / "b") == first
    assert (tmp_path / "a/atlas.json").read_bytes() == (tmp_path / "b/atlas.json").read_bytes()
