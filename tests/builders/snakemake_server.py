"""Runs of Snakemake from a process that has it imported: importing it takes longer than planning a small study.

The server has a single thread, and every run is a fork of it, so that none sees what another did.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_SERVER = """
import atexit, json, os, sys
import snakemake.cli
import bhx_prep.config.config, bhx_prep.ingest.index, bhx_prep.study, bhx_prep.startup  # what the Snakefile imports
import smart_open  # what Snakemake imports when it reads the first rule, with the libraries of all clouds
snakemake.cli.get_argument_parser()  # imports Snakemake's plugins
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["environment"], PWD=job["folder"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT), number)
        sys.argv = ["snakemake", *job["arguments"]]
        code = 1
        try:
            snakemake.cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        finally:
            atexit._run_exitfuncs()  # Snakemake's log is written by a thread
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


def run(
    folder: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a folder as ``python -m snakemake`` does."""
    server = _server()
    with tempfile.TemporaryDirectory() as place:
        job = {
            "folder": str(folder), "arguments": list(arguments), "out": f"{place}/out", "err": f"{place}/err",
            "environment": dict(os.environ if environment is None else environment),
        }  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        printed = [Path(job[name]).read_text(encoding="utf-8") for name in ("out", "err")]
    return subprocess.CompletedProcess(["snakemake", *arguments], code, *printed)


@functools.cache
def _server() -> subprocess.Popen[str]:
    words = [sys.executable, "-c", _SERVER]
    server = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    server.wait(timeout=60)
