"""``bhx config``: check a configuration; print the shipped defaults, the schema and the reference page."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bhx_model.atomic_write import atomic_write
from bhx_model.errors import ConfigError
from bhx_model.evaluation.methods import METHODS
from bhx_prep.config import config, pages, presets_page

if TYPE_CHECKING:
    from bhx_prep.memory_plan import StagePlan

logger = logging.getLogger(__name__)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx config``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str, example: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example: bhx config {name} {example}",
        )

    add("defaults", "print the shipped config.yaml", "> config.yaml")
    add("schema", "print the JSON schema, for editors", "> config.schema.json")
    add("reference", "print the reference page in Markdown", "| less")
    add("presets", "print the page of presets in Markdown: every key of a model and its training", "| less")
    checking = add("check", "check a configuration and list every mistake", "config.yaml")
    checking.add_argument(
        "file", type=Path, nargs="?", default=Path("config.yaml"), help="configuration (config.yaml)"
    )
    writing = add("write", "write the generated files of the checkout: config.yaml, schemas, pages", ".")
    writing.add_argument("folder", type=Path, nargs="?", default=Path(), help="the checkout")
    writing.add_argument(
        "--force", action="store_true", help="replace files that differ from the generated ones"
    )


def write_generated(folder: Path, *, force: bool = False) -> None:
    """Write the files that are generated from the models of the configuration.

    Parameters
    ----------
    folder : Path
        The checkout.
    force : bool
        Also in place of files with other content, such as a configuration of the user's.

    Raises
    ------
    ConfigError
        If a file has other content and `force` is not given; then nothing is written.
    """
    texts = {folder / path: text() for path, text in pages.GENERATED.items()}
    differ = [p for p, text in texts.items() if p.exists() and p.read_bytes() != text.encode()]
    if differ and not force:
        msg = (
            f"{', '.join(map(str, differ))}: the content is not the generated one and would be lost; nothing was written."
            " Name another folder, or add --force to replace it"
        )
        raise ConfigError(msg)
    for path, text in texts.items():
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
    logger.info("%s: wrote %s", folder, ", ".join(map(str, pages.GENERATED)))


def command(args: argparse.Namespace) -> int:
    """Run ``bhx config``."""
    printed = {
        "defaults": pages.default_yaml,
        "schema": pages.json_schema,
        "reference": pages.reference_page,
        "presets": presets_page.page,
    }
    if args.action in printed:
        sys.stdout.write(printed[args.action]())
    elif args.action == "write":
        write_generated(args.folder, force=args.force)
    else:
        check(args.file)
    return 0


def check(file: Path) -> None:
    """Check a configuration, and what it names: the atlas, tables of phenotypes, ROI names, arguments of fMRIPrep.

    Raises
    ------
    ConfigError
        With every mistake that was found.
    """
    from bhx_prep import memory_plan
    from bhx_prep.atlas import checks
    from bhx_prep.evaluation import phenotype_checks, split_checks
    from bhx_prep.ingest.stated_names import stated_names

    checked = config.load(file)
    refused = fmriprep_mistakes(checked)
    trainings = memory_plan.plans(checked)
    tables = phenotype_checks.check_tables(checked)
    for warning in tables.warnings:
        logger.warning("%s", warning)
    names = []
    for name, cohort in checked.cohorts.items():
        try:
            stated_names(cohort, name)
        except ConfigError as error:
            names.append(str(error))
    lines = []
    for what, wrong in (
        ("the atlas does not have", checks.mistakes(checked)),
        ("the tables of phenotypes do not have", tables.mistakes),
        ("the lists of ROI names do not have", names),
        ("fMRIPrep does not take", refused),
        ("the environment of the embedded preprocessing does not have", _without_cat_surf(checked)),
        ("the GPUs do not have", list(memory_plan.mistakes(trainings))),
        ("the table of decisions does not have", _wrong_decisions(checked)),
    ):
        if wrong:
            lines += [f"{what} what the configuration asks for:", *(f"  {w}" for w in wrong)]
    if not tables.mistakes and (wrong := list(split_checks.without_sites(checked))):
        lines += ["there are too few sites to leave one out:", *(f"  {w}" for w in wrong)]
    elif not tables.mistakes and (wrong := list(split_checks.impossible(checked))):
        lines += ["splits cannot be made:", *(f"  {w}" for w in wrong)]
    if wrong := list(split_checks.absent_splits(checked)):
        lines += ["there are fewer splits than the configuration asks for:", *(f"  {w}" for w in wrong)]
    if overlaps := list(split_checks.overlaps(checked)):
        lines += [
            "test subjects are not new to the weights that are scored, or it is not known:",
            *(f"  {w}" for w in overlaps),
        ]
    if lines:
        raise ConfigError("\n".join(lines))
    logger.info("%s is valid", file)
    for kind in ("cohorts", "experiments", "endpoints"):
        logger.info("%s: %s", kind, ", ".join(getattr(checked, kind)) or "none")
    for note in [*tables.notes, *(plan.text for plan in trainings)]:
        logger.info("%s", note)
    _warn(checked, trainings)


def _warn(checked: config.Config, trainings: Sequence[StagePlan]) -> None:
    """Log what may fail later, or is not there yet."""
    from bhx_prep import memory_plan
    from bhx_prep.evaluation import split_checks

    for warning in [*memory_plan.warnings(trainings), *memory_plan.finetuning_warnings(checked, trainings)]:
        logger.warning("%s", warning)
    for few in split_checks.doubtful(checked):
        logger.warning("%s", few)
    for stage, methods in _without_rows(checked).items():
        logger.warning(
            "endpoints: no experiment trains the stage %s, so that %s give no rows", stage, methods
        )
    for name, experiment in checked.experiments.items():
        given = {f"init_from.{stage}": folder for stage, folder in experiment.init_from.items()}
        for where, folder in {**given, "weights": experiment.weights}.items():
            if folder is not None and not folder.is_dir():
                logger.warning("experiments.%s.%s: no folder %s (yet)", name, where, folder)
    for name, cohort in checked.cohorts.items():
        if not cohort.root.is_dir():
            logger.warning("cohorts.%s.root: no folder %s (yet)", name, cohort.root)


def _wrong_decisions(checked: config.Config) -> list[str]:
    """Mistakes of the table of decisions; scans that are not there are found by `bhx qc check`, which reads the index."""
    from bhx_prep.review import decisions

    try:
        decisions.read(checked.qc_decisions, checked.cohorts)
    except ConfigError as error:
        return list(error.mistakes) or [str(error)]
    return []


def _without_rows(checked: config.Config) -> dict[str, str]:
    """Methods of endpoints that no experiment can give, by the stage they read."""
    trained = {stage for experiment in checked.experiments.values() for stage in experiment.stages}
    asked = dict.fromkeys(name for endpoint in checked.endpoints.values() for name in endpoint.methods)
    lacking: dict[str, list[str]] = {}
    for name in asked:
        stage = METHODS[name].stage
        if stage is not None and stage not in trained:
            lacking.setdefault(stage, []).append(name)
    return {stage: ", ".join(names) for stage, names in lacking.items()}


def _without_cat_surf(checked: config.Config) -> list[str]:
    """The library of surfaces, if its environment exists but lacks it."""
    from bhx_prep import installation
    from bhx_prep.preproc.embedded import surfaces_machine

    python = installation.ants_python(Path.cwd())
    if not checked.makes_surfaces or not python.exists() or surfaces_machine.has_cat_surf(python):
        return []
    return [f"preproc.surfaces: {surfaces_machine.how_to_get_cat_surf(python)}"]


def fmriprep_mistakes(checked: config.Config) -> list[str]:
    """What fMRIPrep would not take: by its own parser where it is installed, and paths that are not there.

    Parameters
    ----------
    checked : Config
        Already compared with the table of its options, where its image is of that release.
    """
    from bhx_prep.config import fmriprep_arguments, fmriprep_options, fmriprep_parser
    from bhx_prep.preproc import containers

    preproc = checked.preproc
    if preproc.backend == "embedded" or all(c.input != "bids" for c in checked.cohorts.values()):
        return []
    named = containers.named_paths(fmriprep_arguments.given_words(preproc.model_dump(mode="json")))
    keys = {"--fs-subjects-dir": "preproc.fs_subjects_dir"} if preproc.fs_subjects_dir else {}
    mistakes = [
        f"{keys.get(name, f'preproc.fmriprep_args: {name}')} names {path}, which is not there"
        for name, path in named
        if (name not in containers.WRITTEN or name in keys) and not path.exists()
    ]
    mounted = [*(path for _, path in named), *filter(None, (preproc.fs_license, preproc.templateflow_home))]
    mistakes += [f"preproc: {what}" for path in mounted if (what := containers.unmountable(path))]
    if not fmriprep_arguments.is_of_release(preproc.image):
        for what in (
            *fmriprep_arguments.argument_mistakes(preproc.fmriprep_args),
            *fmriprep_arguments.space_mistakes(preproc.output_spaces or ()),
        ):
            known = fmriprep_options.RELEASE
            logger.warning(
                "preproc: fMRIPrep %s would not take, and the image is of another: %s", known, what
            )
    answer = fmriprep_parser.ask(checked)
    if answer is None or not fmriprep_arguments.is_of_release(preproc.image, answer.release):
        return mistakes
    logger.info("the arguments were read by the parser of fMRIPrep %s", answer.release)
    refused = dict.fromkeys(what for what in answer.refusals if what is not None)
    return [*mistakes, *(f"preproc: fMRIPrep {answer.release}: {what}" for what in refused)]
