"""Start a training in several processes: on this machine, or on all nodes of the Slurm job that this runs in.

The number of nodes is the allocation's, so a rule only says how many processes there shall be; where they meet is stated
by Slurm's variables.

    python -m bhx_model.training.launch --processes 16 -m bhx_model.train --stage function ...
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from bhx_model.command_line import run_command
from bhx_model.errors import ConfigError, SiteError

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


def main(argv: Sequence[str] | None = None) -> int:
    """Become torchrun, or Slurm's `srun` of one torchrun a node."""
    parser = argparse.ArgumentParser(prog="python -m bhx_model.training.launch", description=__doc__)
    parser.add_argument("--processes", type=int, required=True, help="of the whole training")
    parser.add_argument("--on-node", action="store_true", help="set by itself: this is one of several nodes")
    args, rest = parser.parse_known_args(argv)

    def become() -> NoReturn:
        if args.on_node:
            _become(on_node(args.processes, rest, os.environ))
        _become(command(args.processes, rest, allocated_nodes(os.environ)))

    return run_command(become)


def _become(words: list[str]) -> NoReturn:
    os.execvp(words[0], words)


def allocated_nodes(environment: Mapping[str, str]) -> int:
    """Nodes of the Slurm job that this runs in; 1 outside of Slurm.

    The variable SLURM_NNODES is not asked: Snakemake's plugin removes it.

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
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        msg = f"Slurm does not say how many nodes job {job} has ({error}): check that `{' '.join(asked)}` works here"
        raise SiteError(msg) from error


def command(processes: int, rest: Sequence[str], nodes: int) -> list[str]:
    """Words that start everything, from the first node.

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
        "--on-node",
        f"--processes={processes // nodes}",
    ]
    return [*srun, *own, *rest]


def on_node(processes: int, rest: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Words that start this node's processes, which meet the others at the node that called `srun`."""
    port = 20000 + int(environment["SLURM_JOB_ID"]) % 20000  # jobs that share a node differ
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
