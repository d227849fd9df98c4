"""Refuse to score subjects who were in the pretraining of the scored weights.

Scored are the test subjects, and the validation subjects by rows that are chosen on test subjects, as preset
`reference` and the published code do. The split files of an endpoint hold who they are, as keys of several kinds
(`bhx_prep.evaluation.people`): the subject, the family, the scans. The list of subjects of the pretraining, or the card of
an exported folder, holds the same of those who were trained on.

Examples
--------
::

    python -m bhx_prep.evaluation.guards --experiment demo --pretraining results/experiments/demo/subjects/pretrain.json
        --splits results/endpoints/diagnosis/seed-0.json --out results/experiments/demo/endpoints/diagnosis/overlap.json
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from bhx_model import contract
from bhx_model.atomic_write import read_json, write_json
from bhx_model.command_line import run_command
from bhx_model.errors import DataError
from bhx_prep.config.experiments import Part
from bhx_prep.evaluation import people

#: The list of a pretraining of the study; other files belong to weights that may have been trained outside it.
OF_STUDY: Final = "pretrain.json"
#: Files that may list the subjects of a pretraining, in a folder of weights.
#: Part of a split whose subjects may be scored -> key of its file that says who they are.
PEOPLE_OF: Final[Mapping[str, str]] = MappingProxyType({"test": "tested", "val": "validated"})
#: The same -> what they are called.
CALLED: Final[Mapping[str, str]] = MappingProxyType({"test": "test", "val": "validation"})
#: The same -> key of ``overlap.json`` with what was found, by seed.
FOUND: Final[Mapping[str, str]] = MappingProxyType({"test": "seeds", "val": "seeds_of_validation"})
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
    """The list of a card; None if it identifies no subjects, or one of them in a way that cannot be compared.

    What means nothing outside of a study is taken of the study's own alone.
    """
    known = {
        kind: values
        for kind, values in (contract.people_of(listed) or {}).items()
        if kind in people.KINDS and (own or kind not in contract.PEOPLE_OF_STUDY)
    }
    return known if known.keys() - people.FAMILIES else None


def people_of(split: Mapping[str, Any], part: str) -> dict[str, list[people.Key]]:
    """Keys of the test or validation subjects of a split, by ``cohort/label``.

    Raises
    ------
    DataError
        If an earlier version made the split.
    """
    if PEOPLE_OF[part] not in split:
        msg = f"the split does not say who its {CALLED[part]} subjects are, an earlier version made it: split again"
        raise DataError(msg)
    return {person: [(kind, key) for kind, key in own] for person, own in split[PEOPLE_OF[part]].items()}


def overlap(
    split: Mapping[str, Any], card: Mapping[str, Sequence[str]], part: Part = "test"
) -> dict[str, str]:
    """Scored subjects of a split who are in a pretraining, ``cohort/label``, and what they have in common with it.

    Raises
    ------
    DataError
        If an earlier version made the split.
    """
    found = people.shared(people_of(split, part), card)
    return {person: people.KINDS[kind] for person, kind in found.items()}


def check(
    experiment: str,
    splits: Sequence[Mapping[str, Any]],
    card: Mapping[str, Sequence[str]] | None,
    allow: Literal["refuse", "mark"],
    parts: Sequence[Part] = ("test",),
) -> dict[str, Any]:
    """Compare the scored subjects of an endpoint with the pretraining of an experiment.

    Parameters
    ----------
    experiment : str
    splits : sequence of mapping
        Values of ``seed-<k>.json``.
    card : mapping or None
        From `read_card`.
    allow : str
        Whether an overlap is refused, or marks the rows.
    parts : sequence of str
        Whose subjects are scored: ``test``, and ``val`` by rows that are chosen on test subjects.

    Returns
    -------
    dict
        The value of ``overlap.json``: ``known``, whether the card lists people; and by seed the numbers of scored subjects,
        of those in the pretraining, and of what they share with whom is there: of test subjects in ``seeds``, of
        validation subjects in ``seeds_of_validation``.

    Raises
    ------
    DataError
        If there is an overlap, or the card lists no people, and neither is allowed.
    """
    counts: dict[str, dict[str, Any]] = {FOUND[part]: {} for part in parts}
    for split, part in itertools.product(splits, parts):
        scored = people_of(split, part)
        found = {} if card is None else overlap(split, card, part)
        counts[FOUND[part]][str(split["seed"])] = {
            "n_tested": len(scored),
            "n_overlap": len(found),
            "shared": Counter(found.values()),
        }
        if allow == "refuse" and found:
            of = f"{len(found)} of {len(scored)} {CALLED[part]} subjects"
            raise DataError(_refusal(experiment, split["endpoint"], of, found, part))
    if card is None and allow == "refuse":
        endpoint = splits[0]["endpoint"]
        msg = (
            f"the card of the weights of {experiment} lists no people (as hashes): whether {endpoint} tests any is unknown; "
            f"set endpoints.{endpoint}.pretraining_overlap: mark to score them, marked"
        )
        raise DataError(msg)
    return {"experiment": experiment, "known": card is not None, **counts}


def _refusal(experiment: str, endpoint: str, of: str, found: Mapping[str, str], part: Part) -> str:
    person, why = next(iter(found.items()))
    scored = ", which are scored," if part == "val" else ""
    return (
        f"{of} of {endpoint}{scored} are in the pretraining of {experiment}, e.g. {person} ({why}): set its "
        f"exclude_test_of, or {endpoint}'s pretraining_overlap: mark"
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
    parser.add_argument(
        "--scored",
        nargs="+",
        choices=tuple(PEOPLE_OF),
        default=["test"],
        help="whose subjects: also val where rows are chosen on test subjects, as preset `reference` does",
    )
    parser.add_argument("--out", required=True, type=Path, help="overlap.json to write")
    args = parser.parse_args(argv)

    def run() -> None:
        splits = [read_json(path, "split again") for path in args.splits]
        found = check(args.experiment, splits, read_card(args.pretraining), args.overlap, args.scored)
        write_json(args.out, found, canonical=True)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
