"""A configuration of an earlier version: every old name is a sentence that gives the new one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bhx_model.errors import ConfigError
from bhx_prep.config import config
from bhx_prep.features import confounds

#: Of the first version, with the names that it had.
EARLIER = """
cohorts:
  people: {door: bids, root: raw}
  ward: {door: fmriprep, root: derivatives}
  town: {door: parcellated, root: tables, taks: [rest]}
  both: {door: bids, input: fmriprep, root: x}
  value: {input: parcellated, root: x}
  wrong: {door: fmripre, root: x}
batch_size: 0
"""


def test_old_keys_and_values_are_named_all_at_once_beside_other_mistakes():
    raw = yaml.safe_load(EARLIER)
    with pytest.raises(ConfigError) as error:
        config.check(raw)
    assert sorted(error.value.mistakes) == [
        "batch_size: Input should be greater than or equal to 1 (is 0)",
        "cohorts.both.door: `door` is called `input` now, which is given too: remove `door`",
        "cohorts.people.door: `door` is called `input` now: write `input: bids`",
        "cohorts.town.door: `door` is called `input` now: write `input: timeseries`",
        "cohorts.town.taks: no such key; did you mean 'tasks'?",
        "cohorts.value.input: `parcellated` is called `timeseries` now: write `input: timeseries`",
        "cohorts.ward.door: `door` is called `input` now: write `input: fmriprep`",
        "cohorts.wrong.door: `door` is called `input` now: write `input: fmripre`",
        "cohorts.wrong.input: Input should be 'bids', 'fmriprep' or 'timeseries' (is 'fmripre'); did you mean 'fmriprep'?",
    ]
    assert str(error.value).splitlines()[0] == "9 mistakes in the configuration:"
    assert raw == yaml.safe_load(EARLIER)


@pytest.mark.parametrize("broken", [3, [], {"a": 3}, {"a": {"door": {"x": 1}}}, {3: {"door": "bids"}}])
def test_old_names_in_no_shape_are_a_traceback(broken):
    with pytest.raises(ConfigError):
        config.check({"cohorts": broken})


def test_a_strategy_file_of_the_first_version_is_read(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nprose: What was done.\ncitation: [me]\n"
        "columns: [global_signal, trans_x, csf*]\nderivatives: [trans_x]\nsquares: [trans_x]\noptional: [csf*]\n"
        "acompcor: 5\nband_pass_hz: [0.009, null]\ndetrend: true\ndespike: true\ncensor_fd_mm: 0.5\n"
        "drop_frames: non_steady_state\n"
    )
    checked = config.check(
        {"cohorts": {"a": {"input": "bids", "root": "x"}}, "features": {"strategy": str(file)}}
    )
    strategy = confounds.load_strategy(checked.features.strategy)
    assert (strategy.name, strategy.acompcor, strategy.censor_fd_mm) == ("mine", 5, 0.5)


def test_a_path_to_a_strategy_of_ours_from_before_gives_its_name():
    with pytest.raises(ConfigError, match="write `paper` for the one that comes with BHX"):
        config.check(
            {
                "cohorts": {"a": {"input": "bids", "root": "x"}},
                "features": {"strategy": "workflow/bhx_prep/strategies/paper.yaml"},
            }
        )
