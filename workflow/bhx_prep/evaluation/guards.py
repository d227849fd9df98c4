"""Refuse scores of test subjects that are in the pretraining of the weights that are scored.

The split files of an endpoint hold who is tested, as keys of several kinds (`bhx_prep.evaluation.people`): the subject, the
family, the scans. The list of subjects of the pretraining, or the card of an exported folder, holds the same of those who
were trained on.

Examples
--------
::

    python -m bhx_prep.evaluation.guards --experiment demo --pretraining results/experiments/demo/subjects/pretrain.json
        --splits results/endpoints/diagnosis/seed-0.json --out results/experiments/demo/endpoints/diagnosis/overlap.json
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from bhx_model import contract
from bhx_model.atomic_write import read_json, write_json
from bhx_model.command_line import run_command
from bhx_model.errors import DataError
from bhx_prep.evaluation import people

#: The list of a pretraining of the study; other files are of weights that may have been trained elsewhere.
OF_STUDY: Final = "pretrain.json"
#: Files that may list the subjects of a pretraining, in a folder of weights.
CARDS: Final = ("config.json", "run.json", OF_STUDY)


def read_card(path: Path) -> dict[str, list[str]] | None:
    """Keys of the subjects that weights were trained on, by kind; None where their card lists no people.

    Parameters
    ----------
    path : Path
        ``pretrain.json``, or a folder of weights.

    Raises
    ------
    DataError
        If it is there and no JSON.
    OSError
        If there is no such file.
    """
    files = [path] if not path.is_dir() else [path / name for name in CARDS if (path / name).exists()]
    for file in files:
        listed = read_json(file, "export or train the weights again").get("people")
        if (known := of_card(listed, own=file.name == OF_STUDY)) is not None:
            return known
    return None


def of_card(listed: Any, *, own: bool) -> dict[str, list[str]] | None:
    """The list of a card, None where it names nobody in a way that can be compared.

    What means nothing outside of a study is taken of the study's own alone.
    """
    if not isinstance(listed, dict):
        return None
    known = {
        kind: list(v)
        for kind, v in listed.items()
        if kind in people.KINDS and isinstance(v, list) and (own or kind not in contract.PEOPLE_OF_STUDY)
    }
    return known if any(known.values()) else None


def overlap(split: Mapping[str, Any], card: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Test subjects of a split who are in a pretraining, ``cohort/label``, and what they share with whom is there.

    Raises
    ------
    DataError
        If an earlier version made the split.
    """
    if "tested" not in split:
        raise DataError(
            "the split does not say who its test subjects are, an earlier version made it: split again"
        )
    tested = {person: [(kind, value) for kind, value in own] for person, own in split["tested"].items()}
    return {person: people.KINDS[kind] for person, kind in people.shared(tested, card).items()}


def check(
    experiment: str,
    splits: Sequence[Mapping[str, Any]],
    card: Mapping[str, Sequence[str]] | None,
    allow: Literal["refuse", "mark"],
) -> dict[str, Any]:
    """Compare the test subjects of an endpoint with the pretraining of an experiment.

    Parameters
    ----------
    experiment : str
    splits : sequence of mapping
        Values of ``seed-<k>.json``.
    card : mapping or None
        From `read_card`.
    allow : str
        Whether an overlap is refused, or marks the rows.

    Returns
    -------
    dict
        The value of ``overlap.json``: ``known``, whether the card lists people; and by seed the numbers of test subjects, of
        those in the pretraining, and of what they share with whom is there.

    Raises
    ------
    DataError
        If there is an overlap, or the card lists no people, and neither is allowed.
    """
    seeds: dict[str, dict[str, Any]] = {}
    for split in splits:
        found = {} if card is None else overlap(split, card)
        counts = {
            "n_tested": len(split.get("tested", ())),
            "n_overlap": len(found),
            "shared": Counter(found.values()),
        }
        seeds[str(split["seed"])] = counts
        if allow == "refuse" and found:
            raise DataError(_refusal(experiment, split, found))
    if card is None and allow == "refuse":
        endpoint = splits[0]["endpoint"]
        msg = (
            f"the card of the weights of {experiment} lists no people: whether {endpoint} tests any of them is unknown; "
            f"set endpoints.{endpoint}.pretraining_overlap: mark to score them, marked"
        )
        raise DataError(msg)
    return {"experiment": experiment, "known": card is not None, "seeds": seeds}


def _refusal(experiment: str, split: Mapping[str, Any], found: Mapping[str, str]) -> str:
    endpoint, (person, why) = split["endpoint"], next(iter(found.items()))
    return (
        f"{len(found)} of {len(split['tested'])} test subjects of {endpoint} are in the pretraining of {experiment}, e.g. "
        f"{person} ({why}): set its exclude_test_of, or {endpoint}'s pretraining_overlap: mark"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Check one endpoint and experiment; 0 when checked, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.evaluation.guards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--experiment", required=True, help="its name")
    parser.add_argument("--splits", required=True, nargs="+", type=Path, help="splits of the endpoint")
    parser.add_argument(
        "--pretraining",
        required=True,
        type=Path,
        help="pretrain.json of the experiment, or a folder of weights",
    )
    parser.add_argument(
        "--overlap", choices=("refuse", "mark"), default="refuse", help="what an overlap does"
    )
    parser.add_argument("--out", required=True, type=Path, help="overlap.json to write")
    args = parser.parse_args(argv)

    def run() -> None:
        splits = [read_json(path, "split again") for path in args.splits]
        found = check(args.experiment, splits, read_card(args.pretraining), args.overlap)
        write_json(args.out, found, canonical=True)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
