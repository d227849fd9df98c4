"""Validate argument lists with the parser of an installed fMRIPrep. Runs in fMRIPrep's own environment.

Lists of words come in as JSON on standard input; the release and, for every list, the refusal or null go out as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys


def main() -> None:
    """Answer on standard output."""
    try:
        asked = json.load(sys.stdin)
    except ValueError:
        sys.exit("expected lists of words, as JSON on standard input")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        from fmriprep import __version__
        from fmriprep.cli.parser import _build_parser

        parser = _build_parser(prog="fmriprep")
        answers = [_refusal(parser, words) for words in asked]
    json.dump({"release": __version__, "refusals": answers}, sys.stdout)


def _refusal(parser, words: list[str]) -> str | None:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser.parse_args([".", "out", "participant", *words])
    except SystemExit as error:
        found = re.search(r"error: (.*)", said.getvalue())
        return None if error.code == 0 else (found[1] if found else said.getvalue().strip())
    except (ValueError, AttributeError) as error:  # of actions that check what argparse does not
        return str(error).splitlines()[0]
    return None


if __name__ == "__main__":
    main()
