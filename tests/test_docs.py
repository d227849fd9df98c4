"""What the pages show is what the program takes: configurations pass its check, links lead somewhere, lists are whole."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import bhx_model
from bhx_model import contract
from bhx_prep import cli
from bhx_prep.config import config
from bhx_prep.features import store, table_columns
from bhx_prep.ingest import index
from bhx_prep.step_versions import STEPS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page: Path) -> list[str]:
    """YAML of a page that is a whole configuration."""
    found = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [text for text in found if re.search(r"^cohorts:", text, flags=re.MULTILINE)]


def site() -> ModuleType:
    """The hook that makes pages of the site from the sources."""
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_configurations_on_pages_are_right():
    shown = {page.name: blocks(page) for page in PAGES}
    assert shown["README.md"]
    assert shown["first-cohort.md"]
    for page, of_page in shown.items():
        for text in of_page:
            checked = config.check(yaml.safe_load(text))
            # the pages of a kind of data show its cohort alone
            assert checked.experiments or page in (
                "known-cohorts.md",
                "methods.md",
                "phenotypes.md",
                "series-tables.md",
            ), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    made = re.compile(r"reference/(cli|api/[\w-]+)\.md|changelog\.md|contributing\.md|notebooks/\w+\.md")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists() and not made.search(link)] == []


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "CHANGELOG.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_files_that_are_named_exist(page: Path):
    named = re.findall(r"`((?:workflow|bhx_model|rules|docs|tests|envs|profiles)/[\w./-]+)`", text(str(page)))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_is_in_the_navigation_of_the_site():
    hook = site()
    nav = re.findall(r"[\w/-]+\.md", str(yaml.safe_load(text("mkdocs.yml"))["nav"]))
    made = {"reference/cli.md", "changelog.md", "contributing.md"}
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
    assert sorted(nav) == sorted(pages | made)
    assert all(hook.notebook_page(path).startswith("# ") for path in hook.notebooks())


def test_the_page_of_commands_shows_each_with_its_own():
    page = site().cli_page()
    assert [name for name in cli.COMMANDS if f"### bhx {name}\n" not in page] == []
    assert "#### bhx shards verify\n" in page
    assert "## python -m bhx_model.train\n" in page
    assert "### python -m bhx_model.compat check\n" in page


def commands(page: Path) -> list[str]:
    """Command lines of `bhx` in a page's blocks, without what is piped or compared with them."""
    found = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for block in found for line in re.sub(r"\\\n", " ", block).splitlines()]
    parts = [part.strip() for line in lines for part in re.split(r"&&|\|| #", line)]
    return [part for part in parts if part.startswith("bhx ")]


def test_commands_on_pages_are_understood(capsys):
    hook, shown = site(), [line for page in PAGES for line in commands(page)]
    assert len(shown) > 20
    for line in shown:
        arguments = shlex.split(line)[1:]
        parser = hook.captured_parser(cli.main, arguments)
        try:
            parser.parse_args(cli.split_passed(arguments)[0])  # the rest of `bhx run` is Snakemake's
        except SystemExit:
            pytest.fail(f"{line}: {capsys.readouterr().err}")


def test_pages_of_the_api_name_every_module():
    hook = site()
    named = set()
    for package, folder in hook.PACKAGES.items():
        for part in hook.parts(folder):
            named |= set(re.findall(r"^::: (\S+)$", hook.api_page(package, part), flags=re.MULTILINE))
        modules = {
            ".".join([package, *path.relative_to(folder).with_suffix("").parts])
            for path in folder.rglob("*.py")
            if path.stem not in ("__init__", "__main__")
        }
        assert sorted(modules - named) == []


def test_columns_of_tables_are_explained():
    page, shards = text("docs/reference/files.md"), text("docs/reference/shards.md")
    columns = {*index.SCHEMA.names, *table_columns.QC_SCHEMA.names, *table_columns.SERIES_SCHEMA.names}
    columns |= {name for of_modality in store.COLUMNS.values() for name in of_modality}
    assert [name for name in sorted(columns) if f"`{name}`" not in page] == []
    fields = {*contract.BOLD_META, *contract.T1W_META, *contract.ROI_ARRAYS}
    fields |= {name for columns in contract.LIST_COLUMNS.values() for name in columns}
    assert [name for name in sorted(fields) if f"`{name}`" not in shards] == []
    assert f"version {contract.CONTRACT_VERSION}." in shards


def test_typical_changes_start_where_the_guide_says():
    rows = re.findall(
        r"^\| (?!change|---)(.+?) \| (.+?) \| (.+?) \|$", text("CONTRIBUTING.md"), flags=re.MULTILINE
    )
    assert len(rows) == 23
    for change, start, _ in rows:
        assert (ROOT / start.strip("`")).exists(), change


@pytest.mark.parametrize("page", ["README.md", "docs/explanation/architecture.md"])
def test_drawings_of_folders_are_the_folders(page: str):
    drawing = re.search(
        r"^workflow/bhx_prep/.*?\n(.*?)^bhx_model/", text(page), flags=re.MULTILINE | re.DOTALL
    )
    assert drawing is not None
    names = [re.split(r" {3,}", line.strip())[0] for line in drawing[1].splitlines()]
    drawn = {name.rstrip("/") for line in names for name in line.split("  ")}
    ours = {path.name for path in (ROOT / "workflow/bhx_prep").iterdir()} - {
        "__init__.py",
        "__pycache__",
        "py.typed",
    }
    assert drawn == ours


def test_the_version_is_one():
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert bhx_model.__version__ == version
    assert yaml.safe_load(text("CITATION.cff"))["version"] == version
    assert re.findall(r"^## (\d\S*) ", text("CHANGELOG.md"), flags=re.MULTILINE)[0] == version


def test_the_changelog_names_steps_with_their_present_numbers():
    newest = text("CHANGELOG.md").split("\n## ")[1]
    named = re.findall(r"`(\w+)` (\d+)[,.]", newest.split("\n### ")[0])
    assert {step: int(number) for step, number in named} == {step: STEPS[step] for step, _ in named}
    assert named or not newest.startswith("Unreleased")


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.yml")), ids=lambda path: path.name)
def test_workflows_and_forms_can_be_read(path: Path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))
