# SPDX-License-Identifier: LGPL-2.1-or-later
"""A value as plain data (what JSON can hold), and back, by the types of its fields.

A record of a topology and the JSON report are made here, so that a new fact needs a field and
a reader, and no line in either of them.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Unknown

T = TypeVar("T")

INT_LIMIT = 1 << 63
"""Integers are below this, and not below its negative: numpy holds them as int64."""
ADDRESS_LIMIT = 1 << 60
"""Addresses are below this: rounding one up to a memory block stays below ranges.ADDRESS_LIMIT."""
LONGEST_STRING = 1 << 16


class NotThisValue(ValueError):
    """Data that is not of the type: one line that names the member and what it holds."""


def to_data(value: Any, unknown: Callable[[Unknown], Any] = lambda fact: {"unknown": fact.why}) -> Any:
    """Dicts, lists, strings, numbers, booleans and None.

    A RangeSet becomes ``[[start, end], ...]``; a set is sorted; an Unknown is what ``unknown``
    makes of it.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Unknown):
        return unknown(value)
    if isinstance(value, RangeSet):
        return [list(bounds) for bounds in value]
    if isinstance(value, Mapping):
        return {str(key): to_data(each, unknown) for key, each in value.items()}
    if is_dataclass(value) or hasattr(value, "_fields"):
        return {
            member.name: to_data(getattr(value, member.name), unknown) for member in members(value.__class__)
        }
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (tuple, list)):
        return [to_data(each, unknown) for each in value]
    raise TypeError(f"{type(value).__name__} has no form as data")


def from_data(kind: type[T], data: Any, name: str = "it") -> T:
    """The value that :func:`to_data` made ``data`` of. ``name`` is what an error calls it.

    ``data`` may be a stranger's. Raises NotThisValue.
    """
    made: T = _read(kind, data, name)
    return made


class Member(NamedTuple):
    name: str
    type: Any
    required: bool


@cache
def members(kind: type[Any]) -> tuple[Member, ...]:
    """The fields of a dataclass or NamedTuple, in order."""
    hints = get_type_hints(kind)
    if is_dataclass(kind):
        return tuple(
            Member(
                field.name, hints[field.name], field.default is MISSING and field.default_factory is MISSING
            )
            for field in fields(kind)
        )
    with_default = getattr(kind, "_field_defaults", {})
    return tuple(Member(name, hints[name], name not in with_default) for name in kind._fields)


def _read(kind: Any, data: Any, name: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, data, name)
    if origin is tuple:
        if arguments[1:] == (...,):
            return tuple(_read(arguments[0], each, f"{name}[]") for each in _of(list, data, name))
        items = _of(list, data, name)
        if len(items) != len(arguments):
            raise NotThisValue(f"{name} has {len(items)} members, not {len(arguments)}")
        return tuple(_read(each, item, f"{name}[]") for each, item in zip(arguments, items, strict=True))
    if origin is frozenset:
        return frozenset(_read(arguments[0], each, f"{name}[]") for each in _of(list, data, name))
    if origin is not None and issubclass(origin, Mapping):
        return {
            _key(arguments[0], key, name): _read(arguments[1], each, f"{name}[{key[:20]}]")
            for key, each in _of(dict, data, name).items()
        }
    if kind is RangeSet:
        return _ranges(data, name)
    if kind is Unknown:
        return Unknown(_read(str, _of(dict, data, name).get("unknown"), f"{name}.unknown"))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _member(kind, data, name)
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        return _fields(kind, data, name)
    return _scalar(kind, data, name)


def _one_of(kinds: tuple[Any, ...], data: Any, name: str) -> Any:
    """``X | None``, ``X | Unknown``, or both; an Unknown is the only object of one member ``unknown``."""
    if Unknown in kinds and isinstance(data, dict) and data.keys() == {"unknown"}:
        return _read(Unknown, data, name)
    if data is None and types.NoneType in kinds:
        return None
    (kind,) = (each for each in kinds if each not in (Unknown, types.NoneType))
    return _read(kind, data, name)


def _fields(kind: Any, data: Any, name: str) -> Any:
    given = dict(_of(dict, data, name))
    found = {}
    for member in members(kind):
        if member.name in given:
            found[member.name] = _read(member.type, given.pop(member.name), f"{name}.{member.name}")
        elif member.required:
            if Unknown not in get_args(member.type):
                raise NotThisValue(f"{name} has no {member.name}")
            found[member.name] = Unknown("the record does not have it")
    if given:
        raise NotThisValue(f"{name} has a member {_shown(min(given))} that is not known")
    return kind(**found)


def _ranges(data: Any, name: str) -> RangeSet:
    pairs = _of(list, data, name)
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is type(pair[1]) is int):
            raise NotThisValue(f"{name} has {_shown(pair)}, which is no [start, end]")
        if not 0 <= pair[0] <= pair[1] <= ADDRESS_LIMIT:
            raise NotThisValue(f"{name} has {_shown(pair)}: no physical address is above {ADDRESS_LIMIT:#x}")
    return RangeSet(pairs)


def _key(kind: Any, text: str, name: str) -> Any:
    if kind is not int:
        return text
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise NotThisValue(f"{name} has a member {_shown(text)}, which is no number")
    return int(text)


def _member(kind: type[enum.Enum], data: Any, name: str) -> enum.Enum:
    try:
        return kind(data)
    except ValueError:
        known = ", ".join(str(each.value) for each in kind)
        raise NotThisValue(f"{name} is {_shown(data)}, which is none of {known}") from None


def _scalar(kind: Any, data: Any, name: str) -> Any:
    if typing.get_origin(kind) is typing.Literal:
        kind = str
    if kind is float and type(data) is int:
        data = float(data) if abs(data) < INT_LIMIT else data
    # A bool is an int to isinstance().
    if type(data) is not kind:
        raise NotThisValue(f"{name} is {_shown(data)}, which is no {NAMES.get(kind, kind)}")
    if kind is int and not -INT_LIMIT <= data < INT_LIMIT:
        raise NotThisValue(f"{name} is {_shown(data)}, which 64 bits do not hold")
    if kind is str and len(data) > LONGEST_STRING:
        raise NotThisValue(f"{name} has {len(data)} characters, more than {LONGEST_STRING}")
    return data


NAMES = {int: "integer", str: "string", bool: "true or false", float: "number", list: "list", dict: "object"}


def _of(kind: type[T], data: Any, name: str) -> T:
    if not isinstance(data, kind):
        raise NotThisValue(f"{name} is {_shown(data)}, which is no {NAMES[kind]}")
    return data


def _shown(data: Any) -> str:
    """At most a few words: it may be a stranger's, of any depth."""
    if isinstance(data, (list, dict)):
        return f"{'a list' if isinstance(data, list) else 'an object'} of {len(data)}"
    if isinstance(data, int) and abs(data) >= 1 << 64:
        return "an integer of more than 64 bits"
    text = repr(data)
    return text if len(text) <= 60 else f"{text[:60]}..."
