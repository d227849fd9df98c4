"""What a result was made with is known in a checkout and left open elsewhere."""

from __future__ import annotations

import platform
import subprocess

import numpy as np

import bhx_model
from bhx_model import made_with


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_versions_are_those_that_are_installed():
    found = made_with.made_with()
    assert found["python"] == platform.python_version()
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"]["bhx"] == bhx_model.__version__
    assert set(found["packages"]) <= {"bhx", *made_with.PACKAGES}


def test_a_commit_says_whether_files_differ_from_it(tmp_path):
    assert made_with.commit(tmp_path) is None
    (tmp_path / "file").write_text("a")
    git(tmp_path, "init", "-q")
    assert made_with.commit.__wrapped__(tmp_path) is None  # nothing is committed
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "one")
    git(tmp_path, "tag", "v1")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert made_with.commit.__wrapped__(tmp_path) == head
    (tmp_path / "file").write_text("b")
    assert made_with.commit.__wrapped__(tmp_path) == f"{head}-dirty"
