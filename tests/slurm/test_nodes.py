"""The launcher on two nodes that are network namespaces, each with an address of its own, over gloo; needs no Slurm.

What Slurm's `srun` says to each node stands in variables, as it does there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import tiny_shards
from safetensors.torch import load_file

from bhx_model.training import checkpoint, launch

ROOT = Path(__file__).resolve().parents[2]
#: Namespaces, and their ends of the cable between them.
NODES = ("bhx-test-0", "bhx-test-1")
ADDRESSES = ("10.213.7.1", "10.213.7.2")


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)


@pytest.fixture
def nodes():
    """Two namespaces with a cable between them; whatever still runs there is ended with them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    try:
        ip("netns", "add", NODES[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        ip("netns", "add", NODES[1])
        ip(
            "link",
            "add",
            "bhx0",
            "netns",
            NODES[0],
            "type",
            "veth",
            "peer",
            "name",
            "bhx1",
            "netns",
            NODES[1],
        )
        for number, (node, address) in enumerate(zip(NODES, ADDRESSES, strict=True)):
            ip("-n", node, "addr", "add", f"{address}/24", "dev", f"bhx{number}")
            for device in ("lo", f"bhx{number}"):
                ip("-n", node, "link", "set", device, "up")
        yield
    finally:
        for node in NODES:
            ip("netns", "del", node, check=False)


class Job:
    """A training on both nodes, one process each."""

    def __init__(
        self, folder: Path, data: dict[str, Path], stage: str, changes: dict[str, object], port: int
    ):
        folder.mkdir(parents=True, exist_ok=True)
        places = {**data, "runs": folder / "runs"}
        words = tiny_shards.words(places, stage, folder / "out", changes)
        self.folder, self.logs = folder, [folder / f"node-{n}.log" for n in range(len(NODES))]
        self.processes = [self._start(number, port, words) for number in range(len(NODES))]

    def _start(self, number: int, port: int, words: list[str]) -> subprocess.Popen[bytes]:
        says = {
            "SLURM_JOB_ID": "7", "SLURM_NNODES": str(len(NODES)), "SLURM_NODEID": str(number),
            "SLURM_LAUNCH_NODE_IPADDR": ADDRESSES[0], "GLOO_SOCKET_IFNAME": f"bhx{number}",
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        command = [sys.executable, "-m", "bhx_model.training.launch", f"--on-node={port}", "--processes=1"]
        with self.logs[number].open("ab") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", NODES[number], *command, "-m", "bhx_model.train", *words],
                env=os.environ | says, stdout=log, stderr=log,
            )  # fmt: skip

    def kill_node(self, number: int) -> None:
        """End all processes of a node at once, as when it loses its power."""
        top = psutil.Process(self.processes[number].pid)
        for process in [top, *top.children(recursive=True)]:
            process.send_signal(signal.SIGKILL)

    def end(self, seconds: float = 120.0) -> list[int]:
        """Exit codes, of processes that end by themselves."""
        limit = time.monotonic() + seconds
        try:
            return [p.wait(max(limit - time.monotonic(), 0.1)) for p in self.processes]
        finally:
            for process in self.processes:
                if process.poll() is None:
                    process.kill()

    def log(self, number: int) -> str:
        return self.logs[number].read_text(errors="replace")

    def wait_for_checkpoint(self, seconds: float = 120.0) -> None:
        limit = time.monotonic() + seconds
        while not any(checkpoint.steps(run) for run in (self.folder / "runs").glob("*-*[0-9a-f]")):
            assert time.monotonic() < limit, self.log(0)
            time.sleep(0.05)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("nodes")
    return {
        "town": tiny_shards.write_cohort(folder / "town", "town", subjects=12),
        "ward": tiny_shards.write_cohort(folder / "ward", "ward", subjects=5, batches=1, trs=(0.8,), seed=1),
        "rois": tiny_shards.write_rois(folder / "rois.npz"),
        "split": tiny_shards.write_split(folder / "pretrain.json", {"town": 12, "ward": 5}),
    }


CHANGES = {"train.deterministic": True, "train.steps": 40, "train.save_every": 5}


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_node_ends_the_job_which_goes_on_to_the_same_weights(nodes, data, tmp_path, lost):
    with launch.hold_port("7") as held:
        port = held.getsockname()[1]
    if lost == 0:  # once is enough
        straight = Job(tmp_path / "straight", data, "function", CHANGES, port)
        assert straight.end() == [0, 0], straight.log(0)
    killed = Job(tmp_path / "killed", data, "function", CHANGES, port)
    killed.wait_for_checkpoint()
    killed.kill_node(lost)
    at = time.monotonic()
    codes = killed.end(60)
    assert time.monotonic() - at < 30
    assert codes[lost] == -signal.SIGKILL
    assert codes[1 - lost] > 0
    said = [line for line in killed.log(1 - lost).splitlines() if " ERROR " in line]
    assert len(said) == 1, killed.log(1 - lost)
    assert "another process of this training is gone" in said[0]
    resumed = Job(tmp_path / "killed", data, "function", CHANGES, port)
    assert resumed.end() == [0, 0], resumed.log(0)
    assert "resuming from" in resumed.log(0)
    if lost == 0:
        ours, theirs = (load_file(job.folder / "out/model.safetensors") for job in (resumed, straight))
        assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)
        assert json.loads((resumed.folder / "out/run.json").read_text())["machine"]["processes"] == 2
