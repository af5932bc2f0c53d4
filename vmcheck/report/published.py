# SPDX-License-Identifier: LGPL-2.1-or-later
"""A value's type -> the type of its JSON, for the schema: what facts.data.to_data() makes of it."""

from __future__ import annotations

import ast
import enum
import inspect
import textwrap
import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from vmcheck.facts.data import members
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Unknown

Range = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]],
    msgspec.Meta(description="physical addresses [start, end): the end is the first byte after"),
]
Cpus = Annotated[list[int], msgspec.Meta(description="CPU numbers as the kernel counts them")]


class Published:
    """Types of one schema: each value's type is made once, and has its own name or the one given."""

    def __init__(self, names: Mapping[type, str]) -> None:
        self._names = names
        self._made: dict[type, type[msgspec.Struct]] = {}

    def __call__(
        self, kind: type, without: frozenset[str] = frozenset(), **other: Any
    ) -> type[msgspec.Struct]:
        """``kind``'s members, less some, and with ``other`` ones. An Unknown is null."""
        if kind not in self._made:
            docs = _field_docs(kind)
            given = {
                member.name: self._documented(self.type_of(member.type), docs.get(member.name))
                for member in members(kind)
                if member.name not in without
            }
            name = self._names.get(kind, kind.__name__)
            self._made[kind] = struct(name, _plain_words(inspect.getdoc(kind)), given | other)
        return self._made[kind]

    def type_of(self, kind: Any) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, types.UnionType):
            kinds = [self.type_of(each) for each in arguments if each not in (Unknown, types.NoneType)]
            return reduce(or_, kinds, None)
        if origin is tuple and arguments[1:] != (...,):
            return tuple[tuple(map(self.type_of, arguments))]  # type: ignore[misc]
        if origin is frozenset and arguments == (int,):
            return Cpus
        if origin in (tuple, frozenset):
            return list_of(self.type_of(arguments[0]))
        if origin is not None and issubclass(origin, Mapping):
            return dict[str, self.type_of(arguments[1])]  # type: ignore[misc]
        if kind is RangeSet:
            return list[Range]
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return kind
        return self(kind) if is_dataclass(kind) or hasattr(kind, "_fields") else kind

    def _documented(self, kind: Any, doc: str | None) -> Any:
        return Annotated[kind, msgspec.Meta(description=doc)] if doc else kind


def list_of(kind: Any) -> Any:
    return list[kind]


def struct(
    name: str, doc: str, types_of_members: Mapping[str, Any], optional: frozenset[str] = frozenset()
) -> type[msgspec.Struct]:
    """A type of JSON object that has these members and no other."""
    return msgspec.defstruct(
        name,
        [
            (member, kind | msgspec.UnsetType, msgspec.UNSET) if member in optional else (member, kind)
            for member, kind in types_of_members.items()
        ],
        kw_only=True,
        forbid_unknown_fields=True,
        namespace={"__doc__": doc},
        module=__name__,
    )


def _field_docs(kind: type) -> dict[str, str]:
    """The string below each field, where a reader of the source finds it."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                found[name] = _plain_words(doc)
    return found


def _plain_words(doc: str | None) -> str:
    """The first paragraph, on one line."""
    return " ".join((doc or "").partition("\n\n")[0].split())
