"""Checks before the first job, for errors that would stop jobs hours later."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from bhx_model.errors import ConfigError, SiteError
from bhx_prep.config.config import Config
from bhx_prep.slurm import jobs

logger = logging.getLogger(__name__)


def check_start(
    config: Config,
    folder: Path,
    *,
    submits: bool,
    status_command: str | None = None,
    endpoints: Collection[str] = (),
) -> list[str]:
    """Look for what makes jobs fail.

    Parameters
    ----------
    config : Config
    folder : Path
        Where Snakemake works.
    submits : bool
        Whether it submits jobs to Slurm.
    status_command : str, optional
        By which it then asks for their states.
    endpoints : collection of str
        Those whose subjects are going to be split.

    Returns
    -------
    list of str
        Mistakes that stop some of the jobs.

    Raises
    ------
    SiteError
        If Slurm jobs of an earlier Snakemake still run here: after a crash they go on, and nothing may be submitted beside
        them; or if it is to submit where Slurm's commands are not, as in a container.
    ConfigError
        If an endpoint has too few subjects to be split, whatever becomes of their scans; or a training would not fit in the
        memory of its GPUs.
    BhxError
        If the atlas's files are not there and cannot be fetched.
    """
    from bhx_prep.atlas import checks  # not for planning: they take a second
    from bhx_prep.atlas.atlas import DEFAULT_SPACE
    from bhx_prep.atlas.sources import templateflow
    from bhx_prep.evaluation import phenotype_checks, split_checks

    tables = phenotype_checks.check_tables(config)
    warnings = [*checks.mistakes(config), *tables.mistakes]
    if not tables.mistakes and (few := list(split_checks.impossible(config, endpoints))):
        raise ConfigError(few[0])
    _check_memory(config, elsewhere=submits)
    _check_queue(folder, submits=submits, status_command=status_command)
    spaces = config.volume_spaces or (DEFAULT_SPACE,)
    if config.atlas.source == "templateflow" and not checks.is_fetched(
        config.atlas, config.results / "templates", spaces
    ):
        templateflow.templateflow_files(config.atlas, spaces)
    return warnings


def lost_records(results: Path, folder: Path) -> str:
    """Say that nothing is known of how the results were made, so that no change of the configuration is seen; else empty.

    Parameters
    ----------
    results : Path
        Folder of all results.
    folder : Path
        Where Snakemake works, and keeps its records.
    """
    made, known = (results / "logs").glob("*/*.log"), (folder / ".snakemake/metadata").glob("*")
    if next(made, None) is None or next(known, None) is not None:
        return ""
    return (
        f"{results} was made, but Snakemake's records of how (.snakemake/metadata) are not here: changes of the "
        "configuration since then go unseen; bring them, or make everything again with `snakemake --forceall`"
    )


def _check_memory(config: Config, *, elsewhere: bool) -> None:
    """Refuse a training that does not fit in the memory of its GPUs; log what may not."""
    from bhx_prep import memory_plan

    trainings = memory_plan.plans(config, elsewhere=elsewhere)
    if large := list(memory_plan.mistakes(trainings)):
        raise ConfigError(large[0])
    for warning in [*memory_plan.warnings(trainings), *memory_plan.finetuning_warnings(config, trainings)]:
        logger.warning("%s", warning)


def _check_queue(folder: Path, *, submits: bool, status_command: str | None) -> None:
    """Refuse to submit if Slurm's commands are missing, or while jobs of an earlier Snakemake are queued."""
    if submits:
        lacking, notes = jobs.lacking(status_command)
        if lacking:
            raise SiteError(lacking[0])
        for note in notes:
            logger.warning("%s", note)
    if left := jobs.strays(folder, submits=submits):
        raise SiteError(left)
