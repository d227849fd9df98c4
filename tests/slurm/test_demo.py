"""The demo from end to end: all three inputs, the embedded preprocessing, trainings, tables and the page."""

from __future__ import annotations

import subprocess
import sys

import mini_study
import pytest

#: A small machine shared by all jobs; a cluster would take them all at once.
AT_ONCE = "--jobs=3"


class Demo(mini_study.Study):
    """The demo as `make demo` runs it, on data that several may share."""

    def __init__(self, folder, data):
        super().__init__(folder)
        (folder / "config.yaml").symlink_to(mini_study.ROOT / "config.yaml")
        (folder / ".venv-ants").symlink_to(mini_study.ROOT / ".venv-ants")
        (folder / "demo-data").symlink_to(data)


@pytest.mark.long_scenario
def test_the_demo_gives_the_same_hashes_as_here(slurm, tmp_path):
    data = tmp_path / "demo-data"
    subprocess.run([sys.executable, "-m", "bhx_prep.cli", "synth", "--out", str(data)], check=True)
    folder = tmp_path / "study"  # both are made here: paths of scans stand in results
    here = Demo(folder, data)
    assert here.run(profile=None, seconds=7200) == 0, here.log()[-5000:]
    theirs = here.hashes()
    folder.rename(tmp_path / "here")
    there = Demo(folder, data)
    assert there.run(AT_ONCE, environment=slurm.environment, seconds=7200) == 0, there.log()[-5000:]
    ours = there.hashes()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert there.run("-n", environment=slurm.environment, log="again.log") == 0
    assert "Nothing to be done" in there.log("again.log")
