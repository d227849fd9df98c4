"""The notebooks of the documentation run from their first to their last cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["embed"])
def test_a_notebook_runs(root, exported, tmp_path, name):
    path = root / "docs" / "notebooks" / f"{name}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code"), "stored without outputs"
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    script = tmp_path / "notebook.py"
    script.write_text(f"{code}\nfigure.savefig({str(tmp_path / 'figure.png')!r})\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", script],
        cwd=path.parent,
        env=os.environ
        | {"BHX_EXPORT": str(exported), "MPLBACKEND": "Agg", "MPLCONFIGDIR": str(tmp_path / "matplotlib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "4 scans, each of 16 hub tokens of width 64" in done.stdout
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_every_notebook_is_tested(root):
    assert [path.stem for path in sorted((root / "docs" / "notebooks").glob("*.ipynb"))] == ["embed"]
