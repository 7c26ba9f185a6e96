"""What Jinja rendered, turned back into what was meant.

Unless a DAG renders natively, every templated value reaches an operator as text: `60` as "60", no value as "None", a
list as its Python notation. Here such text becomes the type that `vae_ops.settings` declares; whether the value makes
sense is then judged there, in one place for all callers.
"""

import ast
import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from vae_ops.errors import SettingsError
from vae_ops.settings import GateSettings, RunSettings

__all__ = ["Layer", "named_settings", "parse_choice", "parse_integer", "parse_names", "parse_settings", "parse_text"]

Layer = Mapping[str, Any] | str
"""Settings by section, such as `{"train": {"seed": 1}}`; the whole or any value of it may be a template."""

_NOTHING = ("", "None", "null")
# What `from_dict` takes beside the fields of a record.
_SHORTHANDS: Mapping[type, Mapping[str, Any]] = {GateSettings: {"strictness": str | None}}


def parse_text(value: str | None) -> str | None:
    """The text, or None where a template rendered to nothing."""
    return None if value is None or value.strip() in _NOTHING else value


def parse_integer(value: int | str, name: str) -> int:
    """The whole number that a rendered argument stands for.

    Raises:
        SettingsError: It is none; `name` says which argument was meant.
    """
    try:
        return int(value)
    except ValueError as error:
        raise SettingsError(f"{name} expects a whole number, got {value!r}.") from error


def parse_choice(value: str, choices: Sequence[str], name: str) -> str:
    """One of a few words.

    Raises:
        SettingsError: It is none of them; `name` says which argument was meant.
    """
    if value not in choices:
        raise SettingsError(f"{name} expects one of {', '.join(map(repr, choices))}, got {value!r}.")
    return value


def parse_names(value: Sequence[str] | str) -> tuple[str, ...]:
    """Names from a sequence, from the text of one, or from text with commas between the names."""
    parsed = _literal(value) if isinstance(value, str) else value
    if isinstance(parsed, list | tuple):
        return tuple(map(str, parsed))
    return () if parsed is None else tuple(part.strip() for part in str(value).split(",") if part.strip())


def named_settings(
    *,
    rows: int | str | None,
    ratio: float | str | None,
    target: str | None,
    exclude: Sequence[str] | str,
    seed: int | str | None,
    time_budget_seconds: float | str | None,
    refresh: str | None = None,
    strictness: str | None = None,
) -> dict[str, dict[str, Any]]:
    """The settings that people reach for most, in the sections where they belong; one seed decides all of a run."""
    return {
        "read": {"exclude": exclude if isinstance(exclude, str) else list(exclude), "seed": seed},
        "train": {"time_budget_seconds": time_budget_seconds, "seed": seed},
        "generate": {"rows": rows, "ratio": ratio, "seed": seed},
        "utility": {"target": target},
        "refresh": {"mode": refresh},
        "gate": {"strictness": strictness},
    }


def parse_settings(layers: Layer | Sequence[Layer] | None) -> RunSettings:
    """Joins layers of rendered settings, the later winning, into one checked record; None leaves a value as it was.

    Raises:
        SettingsError: A layer is no mapping, or a setting is unknown, of the wrong type or out of range.
    """
    if layers is None or isinstance(layers, str | Mapping):
        layers = [layers or {}]
    joined: dict[str, Any] = {}
    for layer in layers:
        _join(joined, _typed(_as_mapping(layer, "settings"), RunSettings))
    return RunSettings.from_dict(joined)


def _as_mapping(value: Any, where: str) -> Mapping[str, Any]:
    value = _literal(value) if isinstance(value, str) else value
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingsError(f'{where} expects an object such as {{"train": {{"seed": 1}}}}, got {value!r}.')
    return value


def _join(target: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for name, value in layer.items():
        if isinstance(value, Mapping) and isinstance(target.get(name), dict):
            _join(target[name], value)
        elif value is not None:
            target[name] = dict(value) if isinstance(value, Mapping) else value


def _typed(values: Mapping[str, Any], record: type) -> dict[str, Any]:
    hints = {**typing.get_type_hints(record), **_SHORTHANDS.get(record, {})}
    return {name: _value(value, hints[name], name) if name in hints else value for name, value in values.items()}


def _value(value: Any, hint: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        section = _typed(_as_mapping(value, name), typing.cast(type, hint))
        return {key: inner for key, inner in section.items() if inner is not None}
    if not isinstance(value, str) or hint is str or typing.get_origin(hint) is typing.Literal:
        return value
    if hint == str | None:
        return parse_text(value)
    parsed = _literal(value)
    if typing.get_origin(hint) is tuple and not isinstance(parsed, list | tuple | None):
        return [part.strip() for part in value.split(",") if part.strip()]
    return parsed


def _literal(text: str) -> Any:
    """Reads JSON, then Python's notation (what Jinja prints), and leaves any other text as it is."""
    if text.strip() in _NOTHING:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text
