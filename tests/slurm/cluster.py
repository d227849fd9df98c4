"""A real Slurm cluster on one machine: munged, slurmctld and several slurmd on loopback, as root, no systemd.

Nodes have more CPUs and memory than the machine (`config_overrides`), and character devices that stand for GPUs,
so that the scheduler is real while the work is small. Needs Debian's `slurm-wlm` and `munge`.

    python tests/slurm/cluster.py run COMMAND...    start, run, always stop; exits with the command's status
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "sinfo")
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

#: Where the plugin's inner `srun` looks: it drops every SLURM_ variable, so SLURM_CONF alone is not enough.
SYSTEM_FOLDER = Path("/etc/slurm")


def why_not() -> str | None:
    """Why no cluster can be started here, or None."""
    absent = [p for p in PROGRAMS if shutil.which(p, path=SEARCH) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)}): apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "a test cluster needs root"
    if any(
        (SYSTEM_FOLDER / f).exists() and not (SYSTEM_FOLDER / f).is_symlink()
        for f in ("slurm.conf", "gres.conf")
    ):
        return f"{SYSTEM_FOLDER} holds a Slurm configuration of this machine's own"
    return None


@dataclass
class Cluster:
    """A cluster below `root`; see the module's docstring."""

    root: Path
    nodes: int = 2
    cpus: int = 4
    memory_mb: int = 20000
    gpus: int = 2
    port: int = 16817
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which Slurm's commands speak to this cluster."""
        return {**os.environ, "PATH": SEARCH, "SLURM_CONF": str(self.root / "slurm.conf")}

    def command(self, *words: str, check: bool = True) -> str:
        """Output of one of Slurm's commands."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def start(self) -> None:
        """Start all daemons and wait until every node is idle."""
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                raise RuntimeError(
                    f"a test cluster runs on port {self.port}: only one can, they share {SYSTEM_FOLDER}"
                )
        self._write_configuration()
        munge = self.root / "munge"
        self._spawn(
            "munged",
            f"--foreground --force --key-file={munge}/key --socket={self.root}/munge.socket --seed-file={munge}/seed"
            f" --pid-file={munge}/pid --log-file={munge}/log",
        )
        self._wait((self.root / "munge.socket").exists, 20, "munge's socket")
        self.start_controller()
        for node in self.node_names():
            self.start_node(node)
        self._wait(lambda: self.idle() == self.nodes, 60, "idle nodes")

    def start_controller(self) -> None:
        """Start slurmctld, with the state it left."""
        self._spawn("slurmctld", "-D")

    def start_node(self, node: str) -> None:
        """Start one node's slurmd."""
        self._spawn(f"slurmd-{node}", f"-D -N {node}", program="slurmd")

    def kill(self, daemon: str, number: int = signal.SIGKILL) -> None:
        """End a daemon (``slurmctld``, ``slurmd-n1``) and wait for it."""
        process = self._daemons.pop(daemon)
        process.send_signal(number)
        process.wait(timeout=30)

    def kill_node(self, node: str, *jobs: str) -> None:
        """Let a node die: its slurmd, and everything that these jobs run on it."""
        self.kill(f"slurmd-{node}")
        for process in psutil.process_iter(["cmdline"]):
            title = " ".join(process.info["cmdline"] or [])
            if any(title.startswith(f"slurmstepd: [{job}.") for job in jobs):
                with contextlib.suppress(psutil.NoSuchProcess):
                    for one in [*process.children(recursive=True), process]:
                        with contextlib.suppress(psutil.NoSuchProcess):
                            one.kill()

    def queue(self, form: str = "%i %T", states: str = "all") -> list[list[str]]:
        """Jobs of these states, one list of words each; `form` as squeue's ``--format``."""
        answer = self.command("squeue", "--noheader", f"--states={states}", f"--format={form}", "--sort=i")
        return [line.split() for line in answer.splitlines()]

    def wait_for_running(self, n: int = 1, seconds: float = 60) -> list[str]:
        """Wait until `n` jobs run; their numbers."""
        end = time.monotonic() + seconds
        while len(running := [job[0] for job in self.queue("%i", "RUNNING")]) < n:
            if time.monotonic() > end:
                raise TimeoutError(f"after {seconds:.0f} s {len(running)} of {n} jobs run: {self.queue()}")
            time.sleep(0.3)
        return running

    def node_names(self) -> list[str]:
        """Names of the nodes."""
        return [f"n{i + 1}" for i in range(self.nodes)]

    def idle(self) -> int:
        """Number of idle nodes."""
        answer = self.command("sinfo", "-h", "-p", "cpu", "-t", "idle", "-o", "%D", check=False).strip()
        return int(answer or 0)

    def stop(self) -> None:
        """Cancel what runs, end every daemon and leave the system folder as it was."""
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            self.command("scancel", "-u", "root")
        for daemon in reversed(list(self._daemons)):
            process = self._daemons.pop(daemon)
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in ("slurm.conf", "gres.conf"):
            link = SYSTEM_FOLDER / name
            if link.is_symlink() and link.readlink() == self.root / name:
                link.unlink()

    def _spawn(self, name: str, arguments: str, program: str | None = None) -> None:
        path = shutil.which(program or name, path=SEARCH)
        assert path, name
        with (self.root / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [path, *arguments.split()],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def _wait(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                logs = "\n".join(
                    p.read_text(errors="replace")[-2000:] for p in sorted(self.root.glob("*.log"))
                )
                self.stop()
                raise RuntimeError(f"waited {seconds:.0f} s for {what}\n{logs}")
            time.sleep(0.2)

    def _write_configuration(self) -> None:
        for folder in ("state", "spool", "gpu", "munge"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        key = self.root / "munge" / "key"
        if not key.exists():
            key.write_bytes(secrets.token_bytes(1024))
            key.chmod(0o400)
        for i in range(
            self.gpus
        ):  # gres.conf takes character devices only: each stands for a GPU and does nothing
            device = self.root / "gpu" / f"nvidia{i}"
            if not device.exists():
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        host = socket.gethostname().split(".")[0]
        settings = {
            "ClusterName": "test",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": self.port,
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.root}/munge.socket",
            "CredType": "cred/munge",
            "StateSaveLocation": self.root / "state",
            "SlurmdSpoolDir": f"{self.root}/spool/%n",
            "SlurmctldPidFile": self.root / "slurmctld.pid",
            "SlurmdPidFile": f"{self.root}/slurmd-%n.pid",
            "SlurmctldLogFile": self.root / "slurmctld.log",
            "SlurmdLogFile": f"{self.root}/slurmd-%n.log",
            "ProctrackType": "proctrack/linuxproc",  # no cgroups in many containers
            "TaskPlugin": "task/none",
            "SwitchType": "switch/none",
            "MpiDefault": "none",
            "MailProg": "/bin/true",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "SchedulerParameters": "batch_sched_delay=0,bf_interval=2,sched_interval=2,sched_min_interval=0",
            "SlurmdParameters": "config_overrides",
            "GresTypes": "gpu",
            "ReturnToService": 2,
            "SlurmdTimeout": 20,  # a dead node is noticed within a test's patience
            "KillWait": 5,
            "EnforcePartLimits": "ALL",  # what can never run is refused at once
            "MinJobAge": 300,  # the plugin asks squeue about jobs that have ended
            "MaxArraySize": 10001,
            "DefMemPerCPU": 500,
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherFrequency": "task=1",
            "JobAcctGatherParams": "OverMemoryKill",
            "AccountingStorageType": "accounting_storage/none",
        }
        lines = [f"{key}={value}" for key, value in settings.items()]
        lines += [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.port + 10 + i} CPUs={self.cpus}"
            f" RealMemory={self.memory_mb} Gres=gpu:{self.gpus} State=UNKNOWN"
            for i, node in enumerate(self.node_names())
        ]
        nodes = ",".join(self.node_names())
        lines += [f"PartitionName=cpu Nodes={nodes} Default=YES MaxTime=2-00:00:00 State=UP"]
        lines += [f"PartitionName=gpu Nodes={nodes} MaxTime=1-00:00:00 State=UP"]
        (self.root / "slurm.conf").write_text("\n".join(lines) + "\n")
        devices = ",".join(str(self.root / "gpu" / f"nvidia{i}") for i in range(self.gpus))
        (self.root / "gres.conf").write_text(f"NodeName={nodes} Name=gpu File={devices}\n")
        SYSTEM_FOLDER.mkdir(exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            link = SYSTEM_FOLDER / name
            link.unlink(missing_ok=True)
            link.symlink_to(self.root / name)


@contextlib.contextmanager
def running(root: Path, **settings: int) -> Iterator[Cluster]:
    """A started cluster, stopped again whatever happens."""
    cluster = Cluster(root, **settings)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


if __name__ == "__main__":
    import tempfile

    reason = why_not()
    if reason or sys.argv[1:2] != ["run"]:
        sys.exit(reason or __doc__)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, running(Path(folder)) as started:
        sys.exit(subprocess.run(sys.argv[2:], env=started.environment, check=False).returncode)
