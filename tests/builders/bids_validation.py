"""The validator of BIDS, where it is installed: what it says of a dataset."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def errors(dataset: Path) -> list[str]:
    """Errors of ``bids-validator-deno --max-rows -1``, which ends with 16 where there are any and 0 elsewhere.

    Skips the test where the validator is absent: it is 146 MB, of the extra `dev`.
    """
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    program = shutil.which("bids-validator-deno", path=places)
    if program is None:
        pytest.skip("bids-validator-deno is not installed: pip install 'bhx[dev]'")
    words = [program, "--max-rows", "-1", "--format", "json", str(dataset)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode in (0, 16), done.stderr
    found = [one for one in json.loads(done.stdout)["issues"]["issues"] if one["severity"] == "error"]
    assert bool(found) == (done.returncode == 16)
    return [f"{one['code']} {one.get('subCode') or ''} {one.get('location')}" for one in found]
