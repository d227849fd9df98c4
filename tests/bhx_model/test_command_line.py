"""Commands log to stderr, also from the module that runs as the command."""

from __future__ import annotations

import logging
import re

import pytest

from bhx_model import command_line
from bhx_model.errors import DataError


@pytest.mark.parametrize("name", ["bhx_prep.shards.pack", "bhx_model.training.train", "__main__"])
def test_events_of_our_modules_reach_stderr_with_time_and_level(name, capsys):
    assert command_line.run_command(lambda: logging.getLogger(name).info("%d scans", 3)) == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO 3 scans\n", capsys.readouterr().err)


def test_errors_of_the_user_are_a_line_and_bugs_keep_their_traceback(capsys):
    def refuse():
        raise DataError("the table has no rows")

    def fail():
        raise ValueError("operands could not be broadcast together")

    assert command_line.run_command(refuse) == 1
    assert capsys.readouterr().err.endswith(" ERROR the table has no rows\n")
    with pytest.raises(ValueError, match="broadcast"):
        command_line.run_command(fail)


def test_what_a_command_has_chosen_stays(capsys):
    def plan():
        command_line.start_logging()
        logging.getLogger("bhx_prep.study").info("indexing")

    assert command_line.run_command(plan, verbosity=-1) == 0
    assert capsys.readouterr().err == ""
