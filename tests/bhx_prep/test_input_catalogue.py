"""Every input of the catalogue is read right, refused in one sentence, or noted."""

from __future__ import annotations

import pytest
from input_cases import catalogue, markdown, run_case


@pytest.mark.parametrize("entry", catalogue(), ids=lambda entry: f"{entry.area}: {entry.what}")
def test_input(entry, tmp_path):
    seen = run_case(entry, tmp_path)
    assert entry.holds(seen), f"expected {entry.expected} ({entry.says!r}), seen {seen}"


def test_the_page_of_the_documentation_is_the_catalogue(root):
    page = (root / "docs" / "reference" / "inputs.md").read_text(encoding="utf-8")
    assert page == markdown(), "python tests/benchmarks/inputs.py --markdown > docs/reference/inputs.md"
