"""Starting a training in several processes."""

from __future__ import annotations

import os
import socket
import subprocess
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from bhx_model import gpus
from bhx_model.errors import ConfigError, SiteError
from bhx_model.training import launch


def test_one_node_needs_no_slurm():
    assert launch.allocated_nodes({}) == 1
    assert "--nproc-per-node=4" in launch.command(4, ["-m", "bhx_model.train"], 1)


def test_processes_are_spread_evenly():
    words = launch.command(8, ["-m", "bhx_model.train"], 2, 61234)
    assert words[0] == "srun"
    assert {"--processes=4", "--on-node=61234"} <= set(words)
    with pytest.raises(ConfigError, match="7 processes cannot be spread evenly over 2 nodes"):
        launch.command(7, [], 2)


@pytest.mark.parametrize(
    "answer", [PermissionError("squeue"), subprocess.TimeoutExpired("squeue", 60), "slurm_load_jobs error"]
)
def test_a_slurm_that_does_not_answer_is_a_sentence(monkeypatch, capsys, answer):
    def run(command, **more):
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess(command, 0, stdout=answer)

    monkeypatch.setattr(launch.subprocess, "run", run)
    with pytest.raises(SiteError, match="how many nodes job 7 has"):
        launch.allocated_nodes({"SLURM_JOB_ID": "7"})
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert launch.main(["--processes", "4", "-m", "bhx_model.train"]) == 1
    assert "ERROR Slurm does not say how many nodes job 7 has" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stated", "nodes"), [({}, 1), ({"SLURM_NNODES": "2"}, 2), ({"SLURM_JOB_NUM_NODES": "3"}, 3)]
)
def test_a_container_without_squeue_counts_by_variables(monkeypatch, caplog, stated, nodes):
    monkeypatch.setenv("PATH", "/nonexistent")
    with caplog.at_level("INFO"):
        assert launch.allocated_nodes({"SLURM_JOB_ID": "7", **stated}) == nodes
    assert f"there is no squeue here, as in a container: job 7 is taken to have {nodes} nodes" in caplog.text


def test_several_nodes_without_srun_are_a_sentence(monkeypatch, capsys):
    for name, value in (("PATH", "/nonexistent"), ("SLURM_JOB_ID", "7"), ("SLURM_NNODES", "2")):
        monkeypatch.setenv(name, value)
    assert launch.main(["--processes", "4", "-m", "bhx_model.train"]) == 1
    assert "this job has several nodes, and srun is not here" in capsys.readouterr().err


def test_nodes_meet_where_the_system_opens_no_connections_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "EPHEMERAL", tmp_path / "range")
    (tmp_path / "range").write_text("32768\t60999\n")
    assert {10000, 32767, 61000, 65535} <= set(launch.ports())
    assert not set(range(32768, 61000)) & set(launch.ports())
    (tmp_path / "range").write_text("1024 65535\n")
    assert launch.ports() == []
    with pytest.raises(SiteError, match="no port outside of those in"):
        launch.hold_port("7")
    (tmp_path / "range").unlink()
    assert not set(range(32768, 61000)) & set(launch.ports()), "Linux' own range where none is stated"


def test_jobs_of_one_node_meet_at_different_ports_and_taken_ones_are_passed_over():
    with launch.hold_port("4711") as first:
        found = first.getsockname()[1]
        assert found in launch.ports()
        with launch.hold_port("4711") as second, launch.hold_port("4712") as third:
            assert len({found, second.getsockname()[1], third.getsockname()[1]}) == 3
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", found))
        listener.listen()
        with launch.hold_port("4711") as held:
            assert held.getsockname()[1] != found


def test_processes_meet_at_a_port_that_is_held():
    """It is taken for everybody else from the moment it was chosen."""
    with launch.hold_port("4711") as held:
        port = held.getsockname()[1]
        assert held.get_inheritable(), "the program that the launcher becomes holds it on"
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind(("", port))
        store = TCPStore("127.0.0.1", port, 1, is_master=True, timeout=timedelta(seconds=20))
        store.set("name", "value")
        assert store.get("name") == b"value"
        del store


@pytest.fixture
def became(monkeypatch):
    """Words that the launcher becomes, and the GPUs it sees then; nothing is started."""
    words = []

    def become(name, command):
        words.append((command, os.environ.get(gpus.VISIBLE)))
        raise SystemExit(0)

    monkeypatch.setattr(launch.os, "execvp", become)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return words


@pytest.mark.parametrize(
    ("planned", "processes", "seen"),
    [("2", 2, "GPU-a,GPU-b"), ("0", 2, ""), (None, 2, None), (None, 3, None)],
)
def test_a_launcher_takes_the_gpus_of_its_node(
    pretended_gpus, became, monkeypatch, capsys, planned, processes, seen
):
    pretended_gpus("GPU-a", "GPU-b")
    if planned is not None:
        monkeypatch.setenv(gpus.ASKED, planned)
    if processes == 3:
        assert launch.main(["--processes", "3", "-m", "x"]) == 1
        assert "3 GPUs asked for, and there are 2 here" in capsys.readouterr().err
        return
    with pytest.raises(SystemExit):
        launch.main([f"--processes={processes}", "-m", "x"])
    ((words, visible),) = became
    assert f"--nproc-per-node={processes}" in words
    assert visible == seen
    assert gpus.ASKED not in os.environ, "torchrun's processes share what the launcher took"


def test_every_node_takes_its_own_gpus(pretended_gpus, became, monkeypatch):
    pretended_gpus("GPU-a", "GPU-b")
    variables = {gpus.ASKED: "4", "SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NODEID": "1",
                 "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"}  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        launch.main(["--on-node=61234", "--processes=2", "-m", "x"])
    ((words, visible),) = became
    assert {"--master-port=61234", "--node-rank=1", "--nproc-per-node=2"} <= set(words)
    assert visible == "GPU-a,GPU-b"
