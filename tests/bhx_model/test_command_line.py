"""Commands log to stderr, also from the module that runs as the command."""

from __future__ import annotations

import argparse
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


def test_numbers_on_the_command_line_are_whole():
    assert command_line.whole_number("12") == 12
    for text in ("-1", "1.5", "a", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="a whole number of 0 or more"):
            command_line.whole_number(text)


def test_a_seed_is_one_that_every_library_takes():
    assert command_line.seed_number("4294967295") == 4294967295
    for text in ("-1", "4294967296", "1.5", "nan", ""):
        with pytest.raises(argparse.ArgumentTypeError, match=r"a whole number|a seed from 0 to 4294967295"):
            command_line.seed_number(text)


def test_minutes_are_a_number_that_ends():
    assert command_line.minutes("1.5") == 1.5
    for text in ("-1", "nan", "inf", "soon", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="expected minutes, 0 or more"):
            command_line.minutes(text)


@pytest.mark.parametrize("text", ["[]", "{'a': 1}", "train.steps=3", ""])
def test_settings_that_are_no_json_object_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected names and values in JSON"):
        command_line.json_object(text)
    assert command_line.json_object('{"train.steps": 3}') == {"train.steps": 3}
