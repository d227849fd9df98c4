"""``bhx push``: upload an export to a repository of the Hugging Face Hub."""

from __future__ import annotations

import argparse
import importlib
import logging
from pathlib import Path

from bhx_model.errors import SiteError

logger = logging.getLogger(__name__)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("weights", type=Path, metavar="EXPORT", help="folder of an export")
    parser.add_argument("name", metavar="ORG/NAME", help="repository, created if absent")
    parser.add_argument(
        "--private", action="store_true", help="make a repository that only its owners can see"
    )
    parser.add_argument(
        "--terms-allow",
        action="store_true",
        help="confirm that the terms of the data allow it, if the export does not state them",
    )


def command(args: argparse.Namespace) -> int:
    """Run ``bhx push``."""
    try:
        hub = importlib.import_module("bhx_model.release.hub")
        url = hub.push(args.weights, args.name, private=args.private, terms_allow=args.terms_allow)
    except ImportError as error:
        msg = f"an export is checked with the model's packages ({error.name} is missing): pip install 'bhx[model,hub]'"
        raise SiteError(msg) from error
    logger.info("uploaded: %s", url)
    return 0
