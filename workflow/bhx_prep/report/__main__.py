"""``python -m bhx_prep.report``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bhx_prep.config.config import Config


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.report",
        description="Write one self-contained page on the whole study; what has not run yet is said to be missing.",
        epilog="example: python -m bhx_prep.report --config-json JSON --results results"
        " --out results/reports/index.html",
    )
    parser.add_argument(
        "--config-json", required=True, metavar="JSON", help="the whole configuration as JSON"
    )
    parser.add_argument("--results", required=True, type=Path, help="folder of the results")
    parser.add_argument("--out", required=True, type=Path, help="the page to write")
    arguments = parser.parse_args(argv)
    try:
        config = Config.model_validate_json(arguments.config_json)
        from bhx_prep.report import page  # after the arguments: the drawing libraries take a second

        html = page.render(config, arguments.results)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        part = arguments.out.with_name(arguments.out.name + ".part")
        part.write_text(html, encoding="utf-8")
        part.replace(arguments.out)
    except (ValueError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(f"report: {arguments.out}, {len(html) / 1e6:.1f} MB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
