"""Embed JSON data in an HTML page for its scripts."""

from __future__ import annotations

import json
from typing import Any

import markupsafe


def script_json(value: Any) -> markupsafe.Markup:
    """JSON that cannot close the script element around it, whatever its texts contain."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return markupsafe.Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))
