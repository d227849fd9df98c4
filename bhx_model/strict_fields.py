"""Build dataclasses from plain values strictly: unknown, missing or mistyped fields are errors. Needs no torch."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from bhx_model.errors import ConfigError

#: Largest whole number of a setting: what is computed with it is a finite float, and fits in an array of NumPy.
_LARGEST: Final = 10**15
#: Largest rate of learning or decay: the product of two is still a float32.
_LARGEST_RATE: Final = 1e18


def from_dict(cls: type[Any], raw: Mapping[str, Any], where: str) -> Any:
    """Build dataclass `cls` from `raw`, refusing unknown, missing and mistyped fields.

    Parameters
    ----------
    cls
        Any dataclass whose fields are scalars, Literals, tuples or optional ones of these.
    raw
        Field names and values; lists stand for tuples.
    where
        Name of the section, for messages.

    Raises
    ------
    ConfigError
        With the field, what was expected, and the nearest known name.
    """
    if not isinstance(raw, Mapping):
        msg = f"{where}: expected names and values, got {raw!r}"
        raise ConfigError(msg)
    hints = typing.get_type_hints(cls)
    for name in raw:
        if name not in hints:
            raise ConfigError(unknown_name(str(name), list(hints), where))
    for field in dataclasses.fields(cls):
        if field.name not in raw and field.default is dataclasses.MISSING:
            msg = f"{where}: {field.name} is missing, give it a value"
            raise ConfigError(msg)
    return cls(**{name: _coerce(value, hints[name], f"{where}.{name}") for name, value in raw.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """Return dataclass `config` as plain dicts, lists and scalars."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(config))


def unknown_name(name: str, known: Sequence[str], where: str) -> str:
    """Return the sentence for a name that `where` does not have: with the nearest that it has, else all."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"{where}: {name!r} is unknown, {hint}"


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """Convert `value` to the type `hint`: an int is accepted for a float, a list for a tuple; nothing else is converted."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        # a word may stand for a number
        named = (a for a in args if typing.get_origin(a) is Literal and value in typing.get_args(a))
        rest = [a for a in args if a is not type(None)]
        chosen = next(named, rest[0])
        words = [repr(word) for a in rest if typing.get_origin(a) is Literal for word in typing.get_args(a)]
        if words and chosen is int and type(value) is not int:
            raise ConfigError(f"{where}: expected int or {' or '.join(words)}, got {value!r}")
        return _coerce(value, chosen, where)
    if origin is Literal:
        if value not in args:
            raise ConfigError(unknown_name(str(value), [str(a) for a in args], where))
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(args):
            msg = f"{where}: expected {len(args)} values, got {value!r}"
            raise ConfigError(msg)
        return tuple(_coerce(v, a, where) for v, a in zip(value, args, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    if type(value) is not hint:
        msg = f"{where}: expected {hint.__name__}, got {value!r}"
        if hint is float and isinstance(value, str):
            msg += " (YAML reads 1e-4 as text: write 1.0e-4)"
        raise ConfigError(msg)
    if hint is int and abs(value) > _LARGEST:
        msg = f"{where} is larger than {_LARGEST}: give a smaller number"
        raise ConfigError(msg)
    if hint is float and not math.isfinite(value):
        msg = f"{where} is {value}: give a number that is finite"
        raise ConfigError(msg)
    return value


def check_width(config: Any, width: str, heads: str) -> None:
    """Refuse a field `width` that cannot be cut into as many equal heads, or whose hidden layer would be empty.

    Raises
    ------
    ConfigError
        If it cannot, or `mlp_ratio` is too large.
    """
    w, h = getattr(config, width), getattr(config, heads)
    if h < 1 or w < 1 or w % h:
        msg = f"{type(config).__name__}: {width} {w} is not a multiple of {heads} {h}"
        raise ConfigError(msg)
    if config.mlp_ratio * w > _LARGEST:
        msg = f"{type(config).__name__}: mlp_ratio {config.mlp_ratio:g} of {width} {w} is too much: lower it"
        raise ConfigError(msg)
    if 0 < config.mlp_ratio * w < 1:
        msg = (
            f"{type(config).__name__}: mlp_ratio {config.mlp_ratio} of {width} {w} is less than one: raise it"
        )
        raise ConfigError(msg)


def check_positive(config: Any, *names: str) -> None:
    """Refuse fields of 0 or less.

    Raises
    ------
    ConfigError
        If one is.
    """
    for name in names:
        if getattr(config, name) <= 0:
            msg = f"{type(config).__name__}: {name} is {getattr(config, name)}, it must be positive"
            raise ConfigError(msg)


def check_at_least(config: Any, least: float, *names: str) -> None:
    """Refuse fields below `least`; None passes.

    Raises
    ------
    ConfigError
        If one is.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            msg = f"{type(config).__name__}: {name} is {value}, it must be {least} or more"
            raise ConfigError(msg)


def check_rates(config: Any, *names: str) -> None:
    """Refuse learning rates and weight decays below 0, or too large for float32; None passes.

    Raises
    ------
    ConfigError
        If one is.
    """
    check_at_least(config, 0, *names)
    for name in names:
        value = getattr(config, name)
        if value is not None and value > _LARGEST_RATE:
            msg = f"{type(config).__name__}: {name} is {value:g}, it must be {_LARGEST_RATE:g} or less"
            raise ConfigError(msg)


def check_chance(config: Any, *names: str) -> None:
    """Refuse fields, or pairs of them, outside [0, 1).

    Raises
    ------
    ConfigError
        If one is.
    """
    for name in names:
        value = getattr(config, name)
        if not all(0 <= chance < 1 for chance in (value if isinstance(value, tuple) else (value,))):
            msg = f"{type(config).__name__}: {name} is {value}: choose from [0, 1)"
            raise ConfigError(msg)
