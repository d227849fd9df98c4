"""A real Slurm cluster on one machine: munged, slurmctld and several slurmd on loopback, as root, no systemd.

Nodes have more CPUs and memory than the machine (`config_overrides`), and character devices that stand for GPUs,
so that the scheduler is real while the work is small. Needs Debian's `slurm-wlm` and `munge`; with accounting
`slurmdbd` and `mariadb-server` too.

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
from typing import TypeVar

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "sinfo")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db", "mariadb-admin")
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

#: Seconds after which a wait is given up: a busy machine may take long over what an idle one does at once.
PATIENCE = 300.0
T = TypeVar("T")

#: Where the plugin's inner `srun` looks: it drops every SLURM_ variable, so SLURM_CONF alone is not enough.
SYSTEM_FOLDER = Path("/etc/slurm")


def why_not() -> str | None:
    """Why no cluster can be started here, or None."""
    absent = [p for p in PROGRAMS + ACCOUNTING_PROGRAMS if shutil.which(p, path=SEARCH) is None]
    if absent:
        packages = "slurm-wlm munge slurmdbd mariadb-server"
        return f"Slurm is not installed ({', '.join(absent)}): apt-get install {packages}"
    if os.geteuid() != 0:
        return "a test cluster needs root"
    if any(
        (SYSTEM_FOLDER / f).exists() and not (SYSTEM_FOLDER / f).is_symlink()
        for f in ("slurm.conf", "gres.conf")
    ):
        return f"{SYSTEM_FOLDER} holds a Slurm configuration of this machine's own"
    return None


def wait_until(ready: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """Ask until the answer is not empty, and give it back."""
    end = time.monotonic() + seconds
    while not (answer := ready()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)
    return answer


@dataclass
class Cluster:
    """A cluster below `root`; see the module's docstring."""

    root: Path
    nodes: int = 2
    cpus: int = 4
    memory_mb: int = 20000
    gpus: int = 2
    accounting: bool = False
    port: int = 16817
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which Slurm's commands speak to this cluster."""
        return {
            **os.environ,
            "PATH": SEARCH,
            "SLURM_CONF": str(self.root / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(self.root / "mysql.socket"),
        }

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
        self._wait((self.root / "munge.socket").exists, "munge's socket")
        if self.accounting:
            self._start_database()
            self.start_accounting()
            for what in ("cluster test", "account lab", "user root account=lab"):
                self.command("sacctmgr", "--immediate", "add", *what.split())
        self.start_controller()
        for node in self.node_names():
            self.start_node(node)
        self._wait(lambda: self.idle() == self.nodes, "idle nodes")

    def start_accounting(self) -> None:
        """Start slurmdbd and wait until it answers."""
        self._spawn("slurmdbd", "-D")
        self._wait(lambda: self._answers("sacctmgr", "-n", "show", "cluster"), "slurmdbd")

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
        """Jobs of these states, one list of fields each, some of them empty; `form` as squeue's ``--format``."""
        fields = form.replace(" ", "|")
        answer = self.command("squeue", "--noheader", f"--states={states}", f"--format={fields}", "--sort=i")
        return [line.split("|") for line in answer.splitlines()]

    def wait_for_running(self, n: int = 1) -> list[str]:
        """Wait until `n` jobs run; their numbers."""

        def enough() -> list[str]:
            running = [job[0] for job in self.queue("%i", "RUNNING")]
            return running if len(running) >= n else []

        return wait_until(enough, f"{n} running jobs")

    def state(self, job: str) -> str:
        """State of a job, ended or not."""
        return dict(self.queue())[job]

    @contextlib.contextmanager
    def paused(self, *jobs: str) -> Iterator[None]:
        """Stop jobs where they are, so that they cannot end before a test has done what it does to them."""
        for job in jobs:
            self.command("scontrol", "suspend", job)
        try:
            yield
        finally:
            for job in jobs:  # one that was cancelled meanwhile cannot go on
                self.command("scontrol", "resume", job, check=False)

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

    def _start_database(self) -> None:
        made = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={self.root}/mysql"]
        self.command(
            *made,
            "--auth-root-authentication-method=socket",
            "--auth-root-socket-user=root",
            "--skip-test-db",
        )
        self._spawn(
            "mariadbd",
            f"--no-defaults --user=root --datadir={self.root}/mysql --skip-networking --socket={self.root}/mysql.socket"
            f" --pid-file={self.root}/mysql.pid --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900",
        )
        self._wait(lambda: self._answers("mariadb-admin", "--no-defaults", "ping"), "MariaDB")

    def _answers(self, *words: str) -> bool:
        try:
            self.command(*words)
        except (RuntimeError, subprocess.TimeoutExpired):
            return False
        return True

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

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        try:
            wait_until(ready, what)
        except TimeoutError as error:
            logs = "\n".join(p.read_text(errors="replace")[-2000:] for p in sorted(self.root.glob("*.log")))
            self.stop()
            raise RuntimeError(f"{error}\n{logs}") from None

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
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            "SlurmdTimeout": 20,  # a dead node is noticed within a test's patience
            "KillWait": 5,
            "EnforcePartLimits": "ALL",  # what can never run is refused at once
            "MinJobAge": 300,  # the plugin asks squeue about jobs that have ended
            "MaxArraySize": 10001,
            "DefMemPerCPU": 500,
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherFrequency": "task=1",
            "JobAcctGatherParams": "OverMemoryKill",
            "AccountingStorageType": f"accounting_storage/{'slurmdbd' if self.accounting else 'none'}",
        }
        if self.accounting:
            settings |= {
                "AccountingStorageHost": "127.0.0.1",
                "AccountingStoragePort": self.port + 2,
                "AccountingStoragePass": f"{self.root}/munge.socket",
                "AccountingStorageEnforce": "associations",  # a job of an unknown account is refused
                "AccountingStorageTRES": "gres/gpu",
            }
            self._write_database_configuration(host)
        lines = [f"{key}={value}" for key, value in settings.items()]
        lines += [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.port + 10 + i} CPUs={self.cpus}"
            f" RealMemory={self.memory_mb} Gres=gpu:{self.gpus} State=UNKNOWN"
            for i, node in enumerate(self.node_names())
        ]
        nodes = ",".join(self.node_names())
        # jobs of the first two make room for those of the third, and have a while to save what they have
        lines += [f"PartitionName=cpu Nodes={nodes} Default=YES MaxTime=2-00:00:00 GraceTime=60 State=UP"]
        lines += [f"PartitionName=gpu Nodes={nodes} MaxTime=1-00:00:00 GraceTime=60 State=UP"]
        lines += [f"PartitionName=urgent Nodes={nodes} PriorityTier=10 PreemptMode=OFF State=UP"]
        (self.root / "slurm.conf").write_text("\n".join(lines) + "\n")
        devices = ",".join(str(self.root / "gpu" / f"nvidia{i}") for i in range(self.gpus))
        (self.root / "gres.conf").write_text(f"NodeName={nodes} Name=gpu File={devices}\n")
        SYSTEM_FOLDER.mkdir(exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            link = SYSTEM_FOLDER / name
            link.unlink(missing_ok=True)
            link.symlink_to(self.root / name)

    def _write_database_configuration(self, host: str) -> None:
        settings = {
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.root}/munge.socket",
            "DbdHost": host,
            "DbdAddr": "127.0.0.1",
            "DbdPort": self.port + 2,
            "SlurmUser": "root",
            "PidFile": self.root / "slurmdbd.pid",
            "LogFile": self.root / "slurmdbd.log",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "localhost",
            "StorageUser": "root",
            "StorageLoc": "slurm",
        }
        file = self.root / "slurmdbd.conf"
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        file.chmod(0o600)


@contextlib.contextmanager
def running(root: Path, **settings: int) -> Iterator[Cluster]:
    """A started cluster, stopped again whatever happens; SIGTERM ends the work like Ctrl-C."""
    cluster = Cluster(root, **settings)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    import tempfile

    reason = why_not()
    if reason or sys.argv[1:2] != ["run"]:
        sys.exit(reason or __doc__)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, running(Path(folder)) as started:
        sys.exit(subprocess.run(sys.argv[2:], env=started.environment, check=False).returncode)
