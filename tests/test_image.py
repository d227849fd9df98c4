"""Image and descriptors: they name what there is, and the commands that they start take their arguments."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import bhx_model
from bhx_prep import cli

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "envs/Dockerfile").read_text()
PIPELINES = sorted(path.parent for path in ROOT.glob("envs/pipelines/*/descriptor.json"))
COMMANDS = {"embed": ["embed"], "parcellate": ["parcellate"], "preproc": ["preproc", "run"]}


def instructions(name: str) -> list[str]:
    """Values of an instruction of the Dockerfile."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(None, 1)[1] for line in joined.splitlines() if line.split(None, 1)[:1] == [name]]


def test_what_is_copied_is_there_and_nothing_else_is_sent():
    sources = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert [name for name in sources if not (ROOT / name).exists()] == []
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(allowed) == sorted(sources)
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    needed = {Path(name).parts[0] for name in [*packed["packages"], *packed["force-include"]]}
    assert needed <= set(sources)


def test_extras_and_pins_are_there():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [extra for found in re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE) for extra in found.split(",")]
    assert len(asked) == len(set(asked)) > 3
    assert set(asked) <= set(declared)
    named = re.findall(r"envs/[\w.-]+\.txt", DOCKERFILE)
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_it_runs_bhx_as_a_user_without_rights():
    assert instructions("ENTRYPOINT") == ['["bhx"]']
    assert instructions("USER") == ["bhx"]
    assert DOCKERFILE.index("USER bhx") < DOCKERFILE.index("ENTRYPOINT")
    assert f"VERSION={bhx_model.__version__}" in DOCKERFILE
    assert "org.opencontainers.image.licenses" in instructions("LABEL")[0]


def test_apptainers_image_has_the_same_environment():
    text = (ROOT / "envs/bhx.def").read_text()
    for name in ("PATH", "BHX_ANTS_PYTHON"):
        value = re.search(rf"\b{name}=(\S+)", " ".join(instructions("ENV")))
        assert value is not None
        assert f"export {name}={value[1]}\n" in text
    assert 'exec bhx "$@"' in text


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.captured_parser(cli.main, words)


def command_line(descriptor: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Words of the command, as Boutiques makes them of an invocation."""
    words = descriptor["command-line"].split()
    for one in descriptor["inputs"]:
        at = words.index(one["value-key"])
        value = values.get(one["id"], [])
        value = value if isinstance(value, list) else [value]
        words[at : at + 1] = [one["command-line-flag"], *map(str, value)] if value else []
    return words


def test_pipelines_are_those_of_three_commands():
    assert [folder.name for folder in PIPELINES] == sorted(COMMANDS)


@pytest.mark.parametrize("folder", PIPELINES, ids=lambda folder: folder.name)
def test_descriptors_are_understood_by_their_commands(folder: Path, capsys):
    descriptor = json.loads((folder / "descriptor.json").read_text())
    values = json.loads((folder / "invocation.json").read_text())
    assert descriptor["tool-version"] == bhx_model.__version__
    assert descriptor["container-image"]["image"] == f"bhx:{bhx_model.__version__}"
    known = {one["id"]: one for one in descriptor["inputs"]}
    assert set(values) <= set(known)
    assert {name for name, one in known.items() if not one["optional"]} <= set(values)
    words = command_line(descriptor, values)
    assert words[: 1 + len(COMMANDS[folder.name])] == ["bhx", *COMMANDS[folder.name]]
    try:
        parser_of(words[1:]).parse_args(words[1:])
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


@pytest.mark.parametrize("folder", PIPELINES, ids=lambda folder: folder.name)
def test_files_of_nipoppy_name_each_other(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    assert config["VERSION"] == bhx_model.__version__
    named = [name for key, name in config["STEPS"][0].items() if key.endswith("_FILE")]
    assert sorted(named) == sorted(path.name for path in folder.iterdir() if path.name != "config.json")
    used = set(re.findall(r"\[\[(BHX_\w+)\]\]", (folder / "invocation.json").read_text()))
    assert used == set(config["VARIABLES"])


@pytest.mark.parametrize("folder", PIPELINES, ids=lambda folder: folder.name)
def test_boutiques_accepts_them(folder: Path):
    boutiques = pytest.importorskip("boutiques", reason="`make environments` installs it")
    boutiques.validate(str(folder / "descriptor.json"))


@pytest.mark.parametrize("folder", PIPELINES, ids=lambda folder: folder.name)
def test_nipoppy_accepts_them(folder: Path):
    """In an environment of its own: nipoppy wants an older pandas than the pins have (docs/how-to/image.md)."""
    validation = pytest.importorskip(
        "nipoppy.pipeline_validation", reason="needs an environment with nipoppy"
    )
    validation.check_pipeline_bundle(folder)
