"""Generate the page of presets: every key of a stage's model and training, its meaning, and its value in each preset."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from bhx_model import config

_HEAD = """\
# Presets

Generated from `bhx_model/config.py` and `bhx_model/presets/` by `bhx config presets`. `experiments.<name>.preset` chooses a
preset, `experiments.<name>.overrides` changes keys of a stage, e.g. `{function: {train.steps: 20000, model.depth: 6}}`;
`python -m bhx_model.train` has `--preset` and `--set` for the same. What depends on the data has no key: the number of ROIs,
harmonics and gradients, and the grid of the T1.
"""


def page() -> str:
    """The page in Markdown: one table for the model and one for the training of each stage, and one for evaluation."""
    parts = [_HEAD]
    for stage in config.STAGES:
        values = {name: config.load_preset(stage, name).to_dict() for name in config.PRESETS}
        for part, cls in (("model", config.MODELS[stage]), ("train", config.TrainConfig)):
            parts.append(
                f"## `{stage}`: `{part}`\n\n{_table(cls, part, {n: v[part] for n, v in values.items()})}"
            )
    evaluation = {
        name: dataclasses.asdict(config.EvaluationConfig()) | config.preset_evaluation(name)
        for name in config.PRESETS
    }
    text = "Overridden by `endpoints.<name>.finetune`."
    parts.append(f"## `evaluation`\n\n{text}\n\n{_table(config.EvaluationConfig, '', evaluation)}")
    return "\n".join(parts)


def meanings(cls: type) -> dict[str, str]:
    """What each field of a dataclass of `bhx_model.config` means: the text below it in the source."""
    body = next(
        node.body
        for node in ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        if isinstance(node, ast.ClassDef)
    )
    found = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            found[node.target.id] = " ".join(str(following.value.value).split()) if is_text else ""  # type: ignore[union-attr]
    return found


def _table(cls: type, prefix: str, values: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(values)
    rows = [
        f"| key | {' | '.join(f'`{name}`' for name in names)} | meaning |",
        "| --- " * (len(names) + 2) + "|",
    ]
    return "\n".join([*rows, *_rows(cls, prefix, values)]) + "\n"


def _rows(cls: type, prefix: str, values: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for key, meaning in meanings(cls).items():
        cells = [json.dumps(of_preset[key], default=list).replace('"', "") for of_preset in values.values()]
        name = f"{prefix}.{key}" if prefix else key
        yield f"| `{name}` | {' | '.join(cells)} | {meaning.replace('|', 'or')} |"
