"""Print the catalogue of inputs: each case, the expected and the actual result, and how many agree.

Nothing is timed. `--markdown` prints the table of docs/reference/inputs.md.

Examples
--------
::

    PYTHONPATH=tests/builders python tests/benchmarks/inputs.py
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "builders"))

from input_cases import catalogue, markdown, run_case


def main() -> int:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--markdown", action="store_true", help="print the page of the documentation")
    args = parser.parse_args()
    if args.markdown:
        print(markdown(), end="")
        return 0
    logging.disable(logging.WARNING)  # what each case logs is not what it is about
    cases = catalogue()
    right = silent = 0
    for number, entry in enumerate(cases, 1):
        with tempfile.TemporaryDirectory() as folder:
            seen = run_case(entry, Path(folder))
        right += entry.holds(seen)
        silent += seen.behaviour == "wrong values"
        mark = "  " if entry.holds(seen) else "!!"
        print(f"{mark} {number:3d}  {entry.area}: {entry.what}")
        print(
            f"          expected {entry.expected}, seen {seen.behaviour}"
            + (f": {seen.text}" if seen.text else "")
        )
    print(f"{right} of {len(cases)} as expected; {silent} silent errors")
    return int(right < len(cases))


if __name__ == "__main__":
    sys.exit(main())
