"""Start a training in several processes: on this machine, or on all nodes of the current Slurm job.

The allocation determines the number of nodes, so a rule only states the number of processes. Several nodes meet at the
first one, at a port that is free there; a single node needs no such port. The GPUs of a node are claimed before anything
starts, so jobs on the same node never share one.

    python -m bhx_model.training.launch --processes 16 -m bhx_model.train --stage function ...
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from bhx_model import gpus
from bhx_model.command_line import run_command
from bhx_model.errors import ConfigError, SiteError

logger = logging.getLogger(__name__)

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
#: Ports that the system gives to connections of its own; a port among them may be taken at any moment.
EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
#: Linux' own range, where that file is absent.
_USUAL: Final = (32768, 60999)
#: First and last port that a user's program may take, without those that well-known services use.
_PORTS: Final = (10000, 65535)


def main(argv: Sequence[str] | None = None) -> int:
    """Become torchrun, or Slurm's `srun` of one torchrun a node."""
    parser = argparse.ArgumentParser(prog="python -m bhx_model.training.launch", description=__doc__)
    parser.add_argument("--processes", type=int, required=True, help="processes of the whole training")
    parser.add_argument(
        "--on-node",
        type=int,
        metavar="PORT",
        help="set by itself: this is one of several nodes, which meet there",
    )
    args, rest = parser.parse_known_args(argv)
    asked = os.environ.pop(gpus.ASKED, None)

    def become() -> NoReturn:
        nodes = 1 if args.on_node is not None else allocated_nodes(os.environ)
        if nodes > 1:
            held = hold_port(os.environ["SLURM_JOB_ID"])  # by what this process becomes, too
            if asked is not None:
                os.environ[gpus.ASKED] = asked
            _become(command(args.processes, rest, nodes, port=held.getsockname()[1]))
        _take_gpus(args.processes, planned=asked)
        if args.on_node is not None:
            _become(on_node(args.processes, rest, os.environ, args.on_node))
        _become(command(args.processes, rest))

    return run_command(become)


def _become(words: list[str]) -> NoReturn:
    try:
        os.execvp(words[0], words)
    except FileNotFoundError as error:
        msg = f"this job has several nodes, and {words[0]} is not here, as in a container: start it outside, or use one node"
        raise SiteError(msg) from error


def _take_gpus(processes: int, planned: str | None) -> None:
    """One GPU for every process of this node, where the job was planned with any; all must be here in any case."""
    if planned is not None:
        gpus.reserve(processes if int(planned) else 0, os.environ, inherited=True)
        return
    here = gpus.present()
    if 0 < len(mine := gpus.visible(here, os.environ)) < processes:
        raise SiteError(gpus.too_few(processes, len(here), len(mine)))


def allocated_nodes(environment: Mapping[str, str]) -> int:
    """Nodes of the Slurm job that this runs in; 1 outside of Slurm.

    Slurm itself is asked: of its variables, Snakemake's plugin removes SLURM_NNODES from jobs of several nodes. They count
    in a container without its commands.

    Raises
    ------
    SiteError
        If Slurm does not answer.
    """
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return 1
    asked = ["squeue", "--noheader", f"--jobs={job}", "--format=%D"]
    try:
        return int(subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout)
    except FileNotFoundError:
        stated = environment.get("SLURM_NNODES") or environment.get("SLURM_JOB_NUM_NODES") or "1"
        nodes = int(stated) if stated.isdecimal() else 1
        logger.info(
            "there is no squeue here, as in a container: job %s is taken to have %d nodes", job, nodes
        )
        return nodes
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        msg = f"Slurm does not say how many nodes job {job} has ({error}): check that `{' '.join(asked)}` works here"
        raise SiteError(msg) from error


def ports() -> list[int]:
    """Ports at which nodes may meet: none that the system gives to connections of its own."""
    try:
        low, high = map(int, EPHEMERAL.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        low, high = _USUAL
    found = [port for port in range(_PORTS[0], _PORTS[1] + 1) if not low <= port <= high]
    return found or list(range(1024, min(low, _PORTS[0])))  # a site that gives away all of them


def hold_port(job: str) -> socket.socket:
    """Reserve a free port of this node until the processes connect to it.

    The socket does not listen, and lets others that share addresses do: PyTorch's rendezvous does, and servers that a user
    starts for this very port. Programs that look for a free one pass it over, as other jobs of this launcher do; these look
    from different ports on, so that two rarely ask for the same.

    Returns
    -------
    socket
        Held until it is closed by this process and the program that it becomes.

    Raises
    ------
    SiteError
        If there is none.
    """
    usable = ports()
    first = (
        int("".join(filter(str.isdecimal, job)) or 0) * 101 % max(len(usable), 1)
    )  # of jobs in a row not neighbours
    for port in usable[first:] + usable[:first]:
        held = socket.socket()
        try:
            held.bind(("", port))
        except OSError:
            held.close()
            continue
        held.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # not before: it would find others' ports free
        held.set_inheritable(True)
        return held
    raise SiteError(
        f"no port outside of those in {EPHEMERAL} is free: narrow that range, or use another node"
    )


def command(processes: int, rest: Sequence[str], nodes: int = 1, port: int = 0) -> list[str]:
    """Words that start everything, from the first node, at whose `port` several nodes meet.

    Raises
    ------
    ConfigError
        If the processes cannot be spread evenly.
    """
    if nodes == 1:
        return [*TORCHRUN, "--standalone", f"--nproc-per-node={processes}", *rest]
    if processes % nodes:
        raise ConfigError(
            f"{processes} processes cannot be spread evenly over {nodes} nodes: change experiments.*.gpus"
        )
    srun = [
        "srun",
        "--overlap",
        f"--nodes={nodes}",
        f"--ntasks={nodes}",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
    ]
    own = [
        sys.executable,
        "-m",
        "bhx_model.training.launch",
        f"--on-node={port}",
        f"--processes={processes // nodes}",
    ]
    return [*srun, *own, *rest]


def on_node(processes: int, rest: Sequence[str], environment: Mapping[str, str], port: int) -> list[str]:
    """Words that start this node's processes, which meet the others at the node that called `srun`."""
    return [
        *TORCHRUN,
        f"--nnodes={environment['SLURM_NNODES']}",
        f"--node-rank={environment['SLURM_NODEID']}",
        f"--master-addr={environment['SLURM_LAUNCH_NODE_IPADDR']}",
        f"--master-port={port}",
        f"--nproc-per-node={processes}",
        *rest,
    ]


if __name__ == "__main__":
    sys.exit(main())
