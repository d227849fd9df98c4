"""A hook of MkDocs: pages that are made from the sources when the site is built, and a check that it loads nothing.

Commands from their argparse parsers, the Python API from the folders of both packages, notebooks from their cells, and
the guides that lie at the top of the checkout.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:  # the tests read the commands' page without MkDocs
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
os.environ |= {"COLUMNS": "82", "NO_COLOR": "1"}  # of help texts

#: Commands beside `bhx`, by the module that is run with `python -m`, and the module that holds its `main`.
MODEL_COMMANDS = {
    "bhx_model.train": "bhx_model.train",
    "bhx_model.training.launch": "bhx_model.training.launch",
    "bhx_model.evaluation.function_tokens": "bhx_model.evaluation.function_tokens",
    "bhx_model.evaluation": "bhx_model.evaluation.__main__",
    "bhx_model.inspection": "bhx_model.inspection.__main__",
    "bhx_model.release.export": "bhx_model.release.export",
    "bhx_model.compat": "bhx_model.compat.__main__",
}

#: Package -> folder of its sources.
PACKAGES = {"bhx_model": ROOT / "bhx_model", "bhx_prep": ROOT / "workflow" / "bhx_prep"}

#: A page of the site may link to other sites, but loads nothing from them.
LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]*\ssrc=\"?(https?://[^\s\">]+)"
    r"|<link[^>]*rel=\"?(?:stylesheet|preconnect)[^>]*href=\"?(https?://[^\s\">]+)"
)


def on_config(config: MkDocsConfig) -> None:
    """Put the pages that are made here into the navigation."""
    _section(config.nav, "Reference")["Reference"].append({"Python API": api_pages()})
    tutorial = _section(config.nav, "Tutorial")["Tutorial"]
    tutorial += [f"notebooks/{path.stem}.md" for path in notebooks()]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Make the pages."""
    from mkdocs.structure.files import File

    pages = {
        "reference/cli.md": cli_page(),
        "changelog.md": top_page("CHANGELOG.md"),
        "contributing.md": top_page("CONTRIBUTING.md"),
    }
    pages |= {f"notebooks/{path.stem}.md": notebook_page(path) for path in notebooks()}
    for package, folder in PACKAGES.items():
        for part in parts(folder):
            pages[_api_file(package, part)] = api_page(package, part)
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that loads something from another machine."""
    from mkdocs.exceptions import PluginError

    for page in Path(config.site_dir).rglob("*.html"):
        if found := LOADED.search(page.read_text(encoding="utf-8")):
            msg = f"{page} loads {found[1] or found[2]}: the site has to work without a network"
            raise PluginError(msg)


def cli_page() -> str:
    """Every command's help, as it prints it."""
    from bhx_prep import cli

    text = ["# Commands\n", "What `--help` prints.\n", "## bhx\n", _help(captured_parser(cli.main, []))]
    for command in cli.COMMANDS:
        text += _helps(_subcommands(captured_parser(cli.main, [command]))[command], level=3)
    for name, module in MODEL_COMMANDS.items():
        text += _helps(
            captured_parser(importlib.import_module(module).main, []), level=2, title=f"python -m {name}"
        )
    return "\n".join(text)


class _Captured(Exception):
    """Carries a parser out of the command that made it."""


def captured_parser(main: Callable[[Sequence[str]], Any], argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser with which a command would read its arguments."""
    parse = argparse.ArgumentParser.parse_known_args

    def capture(parser: argparse.ArgumentParser, *args: Any, **options: Any) -> Any:
        if not parser.add_help:  # takes out what all commands share
            return parse(parser, *args, **options)
        raise _Captured(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", capture):
        try:
            main(argv)
        except _Captured as captured:
            return captured.args[0]
    msg = f"{main.__module__} reads no arguments"
    raise AssertionError(msg)


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _helps(parser: argparse.ArgumentParser, level: int, title: str = "") -> Iterator[str]:
    yield f"{'#' * level} {title or parser.prog}\n"
    yield _help(parser)
    for sub in _subcommands(parser).values():
        yield from _helps(sub, level + 1)


def _help(parser: argparse.ArgumentParser) -> str:
    return f"```text\n{parser.format_help().strip()}\n```\n"


def parts(folder: Path) -> list[str]:
    """Subfolders of a package that hold modules; an empty name for the modules beside them."""
    return ["", *sorted(path.parent.name for path in folder.glob("*/__init__.py"))]


def api_pages() -> list[dict[str, Any]]:
    """Navigation of the API: a list of pages per package."""
    return [
        {package: [{part or package: _api_file(package, part)} for part in parts(folder)]}
        for package, folder in PACKAGES.items()
    ]


def api_page(package: str, part: str) -> str:
    """Page of one folder of a package, all of its modules; of the package itself where `part` is empty."""
    folder = PACKAGES[package] / part
    name = f"{package}.{part}" if part else package
    modules = [
        f"{name}.{path.stem}"
        for path in sorted(folder.glob("*.py"))
        if path.stem not in ("__init__", "__main__")
    ]
    if part:
        modules += [f"{name}.{path.parent.name}.{path.stem}" for path in sorted(folder.glob("*/[a-z]*.py"))]
    elif package == "bhx_model":
        modules.insert(0, package)
    return f"# {name}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"


def _api_file(package: str, part: str) -> str:
    return f"reference/api/{package}{'-' + part if part else ''}.md"


def notebooks() -> list[Path]:
    """Notebooks that are shown."""
    return sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def notebook_page(path: Path) -> str:
    """Cells of a notebook as a page; outputs are those of the reader's own run."""
    text = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        text.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
    text.append(
        f"This page is the notebook [`docs/notebooks/{path.name}`]({path.name}), without its outputs."
    )
    return "\n\n".join(text) + "\n"


def top_page(name: str) -> str:
    """A guide from the top of the checkout; its links lead to the pages of the site."""
    return (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")


def _section(nav: Any, title: str) -> dict[str, list[Any]]:
    return next(entry for entry in nav if title in entry)
