"""An atlas from TemplateFlow: from the folder of its client, and without network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import templateflow
from atlas_files import SPACE, VOLUME, fill_templateflow
from one_table_study import snakemake
from settings_files import settings_file

from bhx_prep.atlas import checks
from bhx_prep.atlas.atlas import load_atlas
from bhx_prep.atlas.fetch import fetch
from bhx_prep.config.atlas import AtlasSection


@pytest.fixture(scope="module")
def flow(tmp_path_factory) -> Path:
    """A TEMPLATEFLOW_HOME as its client lays it out: the skeleton of empty files that the client ships."""
    home = tmp_path_factory.mktemp("templateflow")
    skeleton = Path(templateflow.__file__).parent / "conf/templateflow-skel.zip"
    with zipfile.ZipFile(skeleton) as archive:
        archive.extractall(home)
    return home


#: Runs the command of the rule with each of the arguments, then what is checked before any job; a line of dashes each.
_OFFLINE = """
import json, sys
from pathlib import Path
from bhx_prep import startup
from bhx_prep.atlas import fetch
from bhx_prep.config import config
from bhx_model.errors import BhxError
commands, study, folder = json.loads(sys.argv[1])
for words in commands:
    print(f"exit {fetch.main(words)}\\n---", file=sys.stderr)
try:
    startup.check_start(config.check(study), Path(folder), submits=False)
except BhxError as error:
    print(f"{type(error).__name__} {error}", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def offline(flow: Path, tmp_path_factory) -> tuple[list[str], Path]:
    """Errors of a process without network: of an atlas that is nowhere, of one in TemplateFlow's folder, before any job.

    One process, since TemplateFlow's client takes seconds to start; and the folder with what it wrote.
    """
    fill_templateflow(flow)
    folder = tmp_path_factory.mktemp("offline")
    shut = {f"{kind}_{case}": "http://127.0.0.1:9" for kind in ("http", "https") for case in ("proxy",)}
    shut |= {name.upper(): value for name, value in shut.items()} | {"NO_PROXY": "", "no_proxy": ""}
    atlases = {
        "nowhere": {"source": "templateflow", "parcels": 200},
        "flow": {"source": "templateflow", "parcels": 100, "networks": 7},
    }
    commands = [
        ["--atlas", settings_file(atlas), "--out", str(folder / name)] for name, atlas in atlases.items()
    ]
    commands[1] += ["--spaces", SPACE, "MNI152NLin6Asym"]
    study = {
        "cohorts": {"a": {"input": "timeseries", "root": "a", "tr_s": 2}},
        "atlas": {"source": "templateflow"},
        "results": str(folder / "results"),
    }
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, json.dumps([commands, study, str(folder)])],
        env=os.environ | shut | {"TEMPLATEFLOW_HOME": str(flow)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr.split("---\n"), folder


def test_without_network_and_files_it_is_one_sentence(offline: tuple[list[str], Path]) -> None:
    (nowhere, _, _), folder = offline
    assert "exit 1\n" in nowhere
    [line] = [line for line in nowhere.splitlines() if " ERROR " in line]
    assert "could not fetch it" in line
    assert "set TEMPLATEFLOW_HOME" in line
    assert "Traceback" not in nowhere
    assert not (folder / "nowhere").exists()


def test_files_in_templateflows_folder_are_used_without_network(
    offline: tuple[list[str], Path], tmp_path: Path
) -> None:
    (_, found, _), folder = offline
    assert "exit 0\n" in found, found
    (tmp_path / "flow").symlink_to(folder / "flow")
    metadata = json.loads((tmp_path / "flow/atlas.json").read_text())
    assert Path(VOLUME).name in metadata["inputs"]
    assert metadata["versions"]["templateflow"] == templateflow.__version__
    packages = fetch(AtlasSection(parcels=100, networks=7), tmp_path / "packages")
    wanted = AtlasSection(source="templateflow", parcels=100, networks=7)
    both = [SPACE, "MNI152NLin6Asym"]
    folders = {
        name: checks.is_fetched(wanted, tmp_path / name, both) for name in ("flow", "packages", "nowhere")
    }
    assert folders == {"flow": True, "packages": False, "nowhere": False}
    assert not checks.is_fetched(wanted.model_copy(update={"parcels": 200}), tmp_path / "flow", both)
    assert not checks.is_fetched(wanted, tmp_path / "flow", ["MNIPediatricAsym"])
    other, first = (load_atlas(tmp_path / "flow", space).volume()[0] for space in (both[1], both[0]))
    np.testing.assert_array_equal(other, np.roll(first, 1, axis=0))
    assert metadata["names"] == packages["names"]
    assert metadata["names"][0].startswith("7Networks_LH")
    for name in ("atlas_volume.nii.gz", "atlas_fsLR.npz", "atlas_fsaverage5.npz"):
        assert metadata["files"][name] == packages["files"][name], name


def test_what_cannot_be_fetched_is_an_error_of_the_machine(offline: tuple[list[str], Path]) -> None:
    (_, _, before), folder = offline
    assert before.splitlines()[-1].startswith("SiteError TemplateFlow has no")
    assert "could not fetch it" in before
    assert not (folder / "results").exists()


def test_what_cannot_be_fetched_is_reported_before_any_job(root: Path, flow: Path, tmp_path: Path) -> None:
    earlier = {"label": "Schaefer7n100p", "source": "packages"}  # templates of before the atlas was changed
    (tmp_path / "results/templates").mkdir(parents=True)
    (tmp_path / "results/templates/atlas.json").write_text(json.dumps(earlier))
    shut = {
        "https_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "TEMPLATEFLOW_HOME": str(flow),
    }
    done = snakemake(root, tmp_path, {"source": "templateflow"}, "cohort_a", environment=os.environ | shut)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "could not fetch it" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "results").rglob("*.log"))
