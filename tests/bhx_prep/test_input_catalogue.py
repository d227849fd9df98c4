"""Every input of the catalogue is read right, refused in one sentence, or noted."""

from __future__ import annotations

import pytest
from input_cases import catalogue, run_case


@pytest.mark.parametrize("entry", catalogue(), ids=lambda entry: f"{entry.area}: {entry.what}")
def test_input(entry, tmp_path):
    seen = run_case(entry, tmp_path)
    assert entry.holds(seen), f"expected {entry.expected} ({entry.says!r}), seen {seen}"
