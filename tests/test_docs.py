"""What the pages show is what the program takes: configurations pass its check, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bhx_prep.config import config

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page: Path) -> list[str]:
    """YAML of a page that is a whole configuration."""
    found = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [text for text in found if re.search(r"^cohorts:", text, flags=re.MULTILINE)]


def test_configurations_on_pages_are_right():
    shown = {page.name: blocks(page) for page in PAGES}
    assert shown["README.md"]
    assert shown["first-cohort.md"]
    for text in (text for of_page in shown.values() for text in of_page):
        assert config.check(yaml.safe_load(text)).experiments


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
