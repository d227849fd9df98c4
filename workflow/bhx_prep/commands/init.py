"""``bhx init``: a folder for a study, with the demo's configuration, the profiles and a small Snakefile."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Iterator
from pathlib import Path

import bhx_model
from bhx_model.atomic_write import atomic_write
from bhx_model.errors import ConfigError
from bhx_prep import installation
from bhx_prep.config import pages

logger = logging.getLogger(__name__)

_SNAKEFILE = """\
# The pipeline is that of the installed package: `pip install -U bhx` renews it, and nothing of it is copied here.
# Rules of your own go below; they may read what the pipeline makes, e.g. `rules.collect_table.output`.
from bhx_prep import installation


include: str(installation.file("workflow/Snakefile"))


rule study:
    \"\"\"What `snakemake` makes when nothing else is asked for.\"\"\"
    default_target: True
    input:
        rules.all.input,
"""

_README = """\
# {name}

A study of BHX {version}: from raw BIDS, fMRIPrep's derivatives or time series to tables. Made by `bhx init`.

```bash
bhx synth                  # the data of the demo, which config.yaml is about until you edit it
bhx doctor                 # what this machine lacks, and how to get it
snakemake -n tables        # what would run
snakemake --cores 2 tables # run it; `bhx run ...` is the same without this folder's Snakefile
```

| file | |
| --- | --- |
| `config.yaml` | the cohorts, experiments and endpoints, every key explained; `bhx config check` checks it |
| `profiles/default` | how Snakemake behaves here, read by itself |
| `profiles/slurm`, .. | where it runs: `snakemake --profile slurm`; put your partitions into it |
| `workflow/Snakefile` | the installed pipeline, and rules of your own |
| `results/` | everything that is made |
| `.snakemake/` | how results were made: keep and copy it with `results/`, else changes of the configuration go unseen |
| `.bhx/` | what may be deleted, and is made again |

For your own data replace `cohorts`, `experiments` and `endpoints` in `config.yaml`.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bhx init``."""
    parser.description = (
        "Make a folder for a study: the demo's config.yaml to edit, profiles, a Snakefile that runs the installed pipeline, "
        "and a README. Existing files are not changed."
    )
    parser.epilog = "example: bhx init my-study"
    parser.add_argument("study", type=Path, metavar="STUDY", help="folder of the study, created if absent")


def command(args: argparse.Namespace) -> int:
    """Run ``bhx init``."""
    made, kept = make(args.study)
    for path in kept:
        logger.info("%s exists and is not changed", path)
    logger.info("%s: made %s", args.study, ", ".join(str(p) for p in made) or "nothing")
    enter = "" if args.study.resolve() == Path.cwd() else f"cd {shlex.quote(str(args.study))}, then "
    logger.info("next: %s`bhx synth` for the demo, or edit config.yaml", enter)
    return 0


def make(study: Path) -> tuple[list[Path], list[Path]]:
    """Write the files of a study that are not there.

    Parameters
    ----------
    study : Path
        Its folder.

    Returns
    -------
    made, kept : list of Path
        Files below the folder that were written, and that were there.

    Raises
    ------
    ConfigError
        If there is a file of that name.
    """
    if study.exists() and not study.is_dir():
        raise ConfigError(f"{study} is a file: name a folder for the study")
    made, kept = [], []
    for name, text in _files(study.absolute().name):
        path = study / name
        if path.exists() or path.is_symlink():
            kept.append(name)
            continue
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
        made.append(name)
    link = study / "slurm"  # Snakemake looks for `--profile slurm` here, not below profiles/
    if link.exists() or link.is_symlink():
        kept.append(Path("slurm"))
    else:
        link.symlink_to("profiles/slurm")
        made.append(Path("slurm"))
    return made, kept


def _files(name: str) -> Iterator[tuple[Path, str]]:
    root = installation.folder()
    yield Path("config.yaml"), pages.default_yaml()  # a checkout's file may be edited
    yield (
        Path("workflow/schemas/config.schema.json"),
        pages.json_schema(),
    )  # for editors, named in config.yaml
    for folder in installation.profiles().values():
        file = folder / "config.v8+.yaml"
        yield file.relative_to(root), file.read_text(encoding="utf-8")
    yield Path("workflow/Snakefile"), _SNAKEFILE
    yield Path("README.md"), _README.format(name=name, version=bhx_model.__version__)
