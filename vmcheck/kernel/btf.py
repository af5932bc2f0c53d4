# SPDX-License-Identifier: LGPL-2.1-or-later
"""BTF, the type information inside a running kernel's own memory, as drgn types.

The format is Documentation/bpf/btf.rst in the kernel's source. Everything here may come
from a hostile dump: every offset is checked, and a chain of types that loops is an error.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from drgn import (
    Object,
    Program,
    Qualifiers,
    Type,
    TypeEnumerator,
    TypeKind,
    TypeKindSet,
    TypeMember,
    TypeParameter,
)

from vmcheck.errors import VmcheckError

MAGIC = 0xEB9F
MAX_BYTES = 64 << 20
"""Debian's are 4 to 6 MB. More than this is refused."""

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)

# Words that follow struct btf_type: a fixed number, and a number for each of vlen.
_EXTRA_WORDS = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
_WORDS_PER_ITEM = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}

# struct btf_type.info: until v7.1 5 bits of kind and 16 of vlen, and zeros around them.
_KINDS = 128
_KIND, _VLEN = _KINDS - 1, 0xFFFFFF

_HEADER = "HBBIIIII"
_LAYOUT_IN_HEADER = "II"
"""layout_off and layout_len, behind the header that BTF without a layout section has."""
_LAYOUT = "BBH"
"""struct btf_layout, one for each kind: bytes behind struct btf_type, bytes for each of vlen, flags."""

_NAMED = {
    INT: (TypeKind.INT, TypeKind.BOOL),
    FLOAT: (TypeKind.FLOAT,),
    STRUCT: (TypeKind.STRUCT,),
    UNION: (TypeKind.UNION,),
    ENUM: (TypeKind.ENUM,),
    ENUM64: (TypeKind.ENUM,),
    TYPEDEF: (TypeKind.TYPEDEF,),
}
_QUALIFIERS = {VOLATILE: Qualifiers.VOLATILE, CONST: Qualifiers.CONST, RESTRICT: Qualifiers.RESTRICT}
_MAX_DEPTH = 64


class BtfError(VmcheckError):
    """The BTF contradicts itself."""


class _Record(NamedTuple):
    """``struct btf_type`` and the words after it."""

    name: str
    kind: int
    vlen: int
    kind_flag: bool
    size_or_type: int
    words: tuple[int, ...]


def _layout(data: bytes, order: str, hdr_len: int) -> dict[int, tuple[int, int]]:
    """By kind, the words of a record and of each of its items, where BTF has a layout section."""
    size = struct.calcsize(order + _HEADER)
    if hdr_len < size + struct.calcsize(order + _LAYOUT_IN_HEADER) or hdr_len > len(data):
        return {}
    offset, length = struct.unpack_from(order + _LAYOUT_IN_HEADER, data, size)
    begin, end = hdr_len + offset, hdr_len + offset + min(length, _KINDS * struct.calcsize(order + _LAYOUT))
    if end > len(data):
        raise BtfError(f"the layout section of BTF ends past its {len(data)} bytes")
    section = data[begin : end - (end - begin) % struct.calcsize(order + _LAYOUT)]
    return {
        kind: (alone // 4, each // 4)
        for kind, (alone, each, _) in enumerate(struct.iter_unpack(order + _LAYOUT, section))
        # Kind 0 is void, and the words of a table are whole.
        if kind and not (alone % 4 or each % 4)
    }


class Btf:
    """An index of one BTF blob; drgn types are built from it when asked for."""

    def __init__(self, prog: Program, data: bytes, byteorder: str) -> None:
        """``data`` is a whole .BTF section. Raises BtfError where its layout is impossible."""
        self._prog = prog
        order = "<" if byteorder == "little" else ">"
        if len(data) < struct.calcsize(order + _HEADER):
            raise BtfError(f"BTF is {len(data)} bytes, its header alone has 24")
        magic, _, _, hdr_len, type_off, type_len, str_off, str_len = struct.unpack_from(order + _HEADER, data)
        if magic != MAGIC:
            raise BtfError(f"BTF begins with {magic:#x}, not {MAGIC:#x}")
        types, strings = hdr_len + type_off, hdr_len + str_off
        if types + type_len > len(data) or strings + str_len > len(data):
            raise BtfError(f"BTF tables end past its {len(data)} bytes")
        self._table = np.frombuffer(data, order + "u4", type_len // 4, types).astype(np.uint32)
        self._words = self._table.data
        self._strings = data[strings : strings + str_len]
        self._offsets = self._record_offsets(_layout(data, order, hdr_len))
        """Word offset of each record by type id; id 0 is void."""
        self._names = self._table[np.frombuffer(self._offsets, np.uint32)]
        self._types: dict[int, Type] = {}
        self._building: set[int] = set()

    def _record_offsets(self, layout: dict[int, tuple[int, int]]) -> array[int]:
        sizes_of = {
            kind: (_EXTRA_WORDS.get(kind, 0), _WORDS_PER_ITEM.get(kind, 0)) for kind in range(INT, ENUM64 + 1)
        }
        for kind, words in layout.items():
            if sizes_of.setdefault(kind, words) != words:
                raise BtfError(
                    f"BTF says that records of kind {kind} have {words[0]} words and {words[1]} for each "
                    f"item; they have {sizes_of[kind][0]} and {sizes_of[kind][1]}"
                )
        fixed, per_item = np.zeros(_KINDS, np.uint32), np.zeros(_KINDS, np.uint32)
        for kind, (alone, each) in sizes_of.items():
            fixed[kind], per_item[kind] = 3 + alone, each
        # Each word is taken for a record's info, so that the walk over 100,000 records only adds.
        info = self._table[1:]
        kinds = info >> 24 & _KIND
        sizes = (fixed.take(kinds) + per_item.take(kinds) * (info & _VLEN)).data
        offsets, offset, end = array("I", [0]), 0, len(self._words) - 2
        while offset < end:
            offsets.append(offset)
            if not sizes[offset]:
                raise BtfError(
                    f"BTF type {len(offsets) - 1} has kind {int(kinds[offset])}, which is not known, "
                    "and whose layout BTF does not give"
                )
            offset += sizes[offset]
        return offsets

    def _named(self, name: str) -> list[int]:
        """Type ids that bear the name. BTF has each string once, so its offset tells them."""
        position = self._strings.find(b"\0" + name.encode() + b"\0") + 1
        if not position:
            return []
        return [int(type_id) for type_id in np.flatnonzero(self._names == position) if type_id]

    def enumerator(self, name: str) -> int | None:
        """The value of an enumerator of an anonymous ``enum``, which no type's name leads to."""
        position = self._strings.find(b"\0" + name.encode() + b"\0") + 1
        if not position:
            return None
        offsets = np.frombuffer(self._offsets, np.uint32)
        for place in np.flatnonzero(self._table == position).tolist():
            type_id = int(np.searchsorted(offsets, place, "right")) - 1
            if type_id < 1:
                continue
            record = self._record(type_id)
            width = _WORDS_PER_ITEM.get(record.kind, 0)
            index = place - int(offsets[type_id]) - 3
            if record.kind == ENUM and index >= 0 and index % width == 0:
                return int(record.words[index + 1])
        return None

    def _name(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if end < 0:
            raise BtfError(f"a BTF name begins at {offset:#x} of {len(self._strings):#x} and never ends")
        return self._strings[offset:end].decode("ascii", "backslashreplace")

    def _record(self, type_id: int) -> _Record:
        if not 0 < type_id < len(self._offsets):
            raise BtfError(f"BTF type {type_id} is referred to; there are {len(self._offsets) - 1}")
        offset = self._offsets[type_id]
        end = self._offsets[type_id + 1] if type_id + 1 < len(self._offsets) else len(self._words)
        name, info, size_or_type = self._words[offset : offset + 3]
        kind, vlen = info >> 24 & _KIND, info & _VLEN
        words = tuple(self._words[offset + 3 : end])
        if len(words) < _EXTRA_WORDS.get(kind, 0) + _WORDS_PER_ITEM.get(kind, 0) * vlen:
            raise BtfError(f"BTF type {type_id} is cut off by the end of the table")
        return _Record(self._name(name), kind, vlen, bool(info >> 31), size_or_type, words)

    def find(self, prog: Program, kinds: TypeKindSet, name: str, filename: str | None) -> Type | None:
        """A drgn type finder."""
        if filename:
            return None
        for type_id in self._named(name):
            possible = _NAMED.get(self._words[self._offsets[type_id] + 1] >> 24 & _KIND, ())
            if any(kind in kinds for kind in possible) and (found := self._type(type_id)).kind in kinds:
                return found
        return None

    def _type(self, type_id: int) -> Type:
        if type_id == 0:
            return self._prog.void_type()
        if type_id not in self._types:
            if type_id in self._building or len(self._building) > _MAX_DEPTH:
                raise BtfError(f"BTF type {type_id} is made of itself")
            self._building.add(type_id)
            try:
                self._types[type_id] = self._build(self._record(type_id))
            finally:
                self._building.discard(type_id)
        return self._types[type_id]

    def _build(self, record: _Record) -> Type:
        prog, name, kind, size_or_type, words = (
            self._prog,
            record.name,
            record.kind,
            record.size_or_type,
            record.words,
        )
        if kind == INT:
            encoding = words[0] >> 24 & 0xF
            if encoding & 4:
                return prog.bool_type(name or "_Bool", size_or_type)
            return prog.int_type(name or "int", size_or_type, bool(encoding & 1))
        if kind == FLOAT:
            return prog.float_type(name, size_or_type)
        if kind == PTR:
            return prog.pointer_type(self._type(size_or_type))
        if kind == ARRAY:
            return prog.array_type(self._type(words[0]), words[2])
        if kind in (STRUCT, UNION):
            make = prog.struct_type if kind == STRUCT else prog.union_type
            return make(name or None, size_or_type, tuple(self._members(record)))
        if kind in (ENUM, ENUM64):
            return self._enum(record)
        if kind == FWD:
            return (prog.union_type if record.kind_flag else prog.struct_type)(name)
        if kind == TYPEDEF:
            return prog.typedef_type(name, self._type(size_or_type))
        if kind in _QUALIFIERS:
            target = self._type(size_or_type)
            return target.qualified(target.qualifiers | _QUALIFIERS[kind])
        if kind == TYPE_TAG:
            return self._type(size_or_type)
        if kind == FUNC_PROTO:
            return self._function(record)
        raise BtfError(f"a BTF type refers to kind {kind}, which is no type")

    def _members(self, record: _Record) -> Iterator[TypeMember]:
        for name, type_id, position in zip(*[iter(record.words[: 3 * record.vlen])] * 3, strict=True):
            bits = 0
            if record.kind_flag:
                bits, position = position >> 24, position & 0xFFFFFF
            # Built when first used: a struct page away from a task_struct pulls in half the kernel.
            yield TypeMember(
                lambda type_id=type_id, bits=bits: (
                    Object(self._prog, self._type(type_id), bit_field_size=bits)
                    if bits
                    else self._type(type_id)
                ),
                self._name(name) or None,
                position,
            )

    def _enum(self, record: _Record) -> Type:
        prog, size, wide = self._prog, record.size_or_type, record.kind == ENUM64
        if size not in (1, 2, 4, 8):
            raise BtfError(f"BTF enum {record.name} has {size} bytes; 1, 2, 4 or 8 are possible")
        signed = record.kind_flag
        step = 3 if wide else 2
        enumerators = []
        for item in range(0, step * record.vlen, step):
            name, low, *high = record.words[item : item + step]
            value = low | high[0] << 32 if high else low
            if value >> (8 * (8 if wide else 4) - 1) and (signed or not wide):
                # BTF_KIND_ENUM knew no sign until kernel commit 6089fb325cf7 (in v6.0).
                value -= 1 << (64 if wide else 32)
                signed = True
            enumerators.append(TypeEnumerator(self._name(name), value))
        compatible = prog.int_type("long" if size == 8 else "int", size, signed)
        return prog.enum_type(record.name or None, compatible, tuple(enumerators))

    def _function(self, record: _Record) -> Type:
        pairs = list(zip(*[iter(record.words[: 2 * record.vlen])] * 2, strict=True))
        variadic = bool(pairs) and pairs[-1] == (0, 0)
        parameters = tuple(
            TypeParameter(lambda type_id=type_id: self._type(type_id), self._name(name) or None)
            for name, type_id in (pairs[:-1] if variadic else pairs)
        )
        return self._prog.function_type(self._type(record.size_or_type), parameters, variadic)
