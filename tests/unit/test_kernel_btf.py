# SPDX-License-Identifier: LGPL-2.1-or-later
"""BTF as drgn types: of real kernels, with VMCOREINFO as the other witness, and of hostile ones."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import pytest
from drgn import (
    Architecture,
    Platform,
    PlatformFlags,
    Program,
    Qualifiers,
    TypeKind,
    offsetof,
    sizeof,
)

from fixtures.capture import Capture, captures
from tests.kernels import Types
from vmcheck.formats import open_dump
from vmcheck.kernel import btf
from vmcheck.kernel.btf import Btf, BtfError
from vmcheck.kernel.program import Kernel

ONE_EACH = [
    capture
    for capture in {capture.folder.parent: capture for capture in captures()}.values()
    if (capture.folder.parent / "kernel.symbols").exists()
]
RESOURCE = ("start", "end", "name", "flags", "desc", "parent", "sibling", "child")


def program(data: bytes, byteorder: str = "little") -> Program:
    flags = PlatformFlags.IS_64_BIT
    if byteorder == "little":
        flags |= PlatformFlags.IS_LITTLE_ENDIAN
    prog = Program(Platform(Architecture.X86_64 if byteorder == "little" else Architecture.PPC64, flags))
    prog.register_type_finder("btf", Btf(prog, data, byteorder).find, enable_index=0)
    return prog


# Real kernels.


def of_vmcoreinfo(prog: Program, key: str) -> int:
    """What BTF says of ``SIZE(x)`` or ``OFFSET(x.member)``. Raises LookupError."""
    what, name = re.fullmatch(r"(SIZE|OFFSET)\((.*)\)", key).groups()  # type: ignore[union-attr]
    name, _, member = name.partition(".")
    try:
        found = prog.type(f"struct {name}")
    except LookupError:
        found = prog.type(name)
    return int(sizeof(found) if what == "SIZE" else offsetof(found, member))


def test_there_are_symbol_files_of_four_kernels() -> None:
    assert len(ONE_EACH) >= 4


@pytest.mark.parametrize("capture", ONE_EACH, ids=lambda capture: capture.folder.parent.name)
def test_struct_layouts_are_what_vmcoreinfo_says(capture: Capture) -> None:
    """The kernel's compiler computed both, and neither from the other."""
    with open_dump([capture.vmcore]) as dump:
        kernel = Kernel(dump.header, dump.memory, str(capture.folder.parent / "kernel.symbols"))
        said = {
            key: int(value) for key, value in dump.header.vmcoreinfo.items() if re.match(r"SIZE|OFFSET", key)
        }
        found = {}
        for key in said:
            try:
                found[key] = of_vmcoreinfo(kernel.prog, key)
            except LookupError:
                continue
    assert found == {key: said[key] for key in found}
    # All but a few that name what is no type: SIZE(node_online_map).
    assert len(found) > 40
    assert len(said) - len(found) <= 6, said.keys() - found.keys()


@pytest.mark.parametrize("capture", ONE_EACH, ids=lambda capture: capture.folder.parent.name)
def test_the_types_that_a_check_uses(capture: Capture) -> None:
    with open_dump([capture.vmcore]) as dump:
        prog = Kernel(dump.header, dump.memory, str(capture.folder.parent / "kernel.symbols")).prog
        resource = prog.type("struct resource")
        assert [(member.name, member.bit_offset // 8) for member in resource.members or ()] == [
            (name, 8 * place) for place, name in enumerate(RESOURCE)
        ]
        assert sizeof(prog.type("struct cpumask")) == 8192 // 8
        assert sizeof(prog.type("struct xa_node")) == 576
        assert offsetof(prog.type("struct xa_node"), "slots") == 40
        assert sizeof(prog.type("note_buf_t")) == 4 * 92
        assert prog.type("struct kimage").member("file_mode").bit_field_size == 1
        assert prog.type("pid_t").kind is TypeKind.TYPEDEF


# Each kind, by hand.


def kinds(types: Types) -> None:
    """A struct that uses most of what BTF has."""
    int_ = types.integer("int", 4, signed=True)
    colour = types.enum("colour", RED=0, GREEN=1, LAST=2**32 - 1)
    const = types.add(btf.CONST, size_or_type=int_)
    tag = types.add(btf.TYPE_TAG, "user", types.add(btf.VOLATILE, size_or_type=const))
    alias = types.add(btf.TYPEDEF, "alias_t", tag)
    types.sizes |= {const: 4, alias: 4}
    proto = types.add(btf.FUNC_PROTO, size_or_type=int_, words=[types.string("a"), int_, 0, 0], vlen=2)
    forward = types.add(btf.FWD, "elsewhere", kind_flag=True)
    double = types.add(btf.FLOAT, "double", 8)
    types.sizes[double] = 8
    flag = types.add(btf.INT, "_Bool", 1, [4 << 24 | 8])
    types.sizes[flag] = 1
    types.struct(
        "everything",
        ("number", int_),
        ("colour", colour),
        ("alias", alias),
        ("call", types.pointer(proto)),
        ("other", types.pointer(forward)),
        ("ratio", double),
        ("on", flag),
        ("list", types.array(int_, 3)),
    )
    types.add(
        btf.STRUCT,
        "bits",
        4,
        [types.string("low"), int_, 3 << 24, types.string("high"), int_, 5 << 24 | 3],
        vlen=2,
        kind_flag=True,
    )
    types.add(
        btf.ENUM64, "wide", 8, [types.string("BIG"), 1, 2, types.string("ALL"), 2**32 - 1, 2**32 - 1], vlen=2
    )


@pytest.fixture
def everything() -> Program:
    types = Types()
    kinds(types)
    return program(types.section())


def test_a_struct_of_every_kind(everything: Program) -> None:
    assert str(everything.type("struct everything")) == (
        "struct everything {\n"
        "\tint number;\n"
        "\tenum colour colour;\n"
        "\talias_t alias;\n"
        "\tint (*call)(int a, ...);\n"
        "\tunion elsewhere *other;\n"
        "\tdouble ratio;\n"
        "\t_Bool on;\n"
        "\tint list[3];\n"
        "}"
    )


def test_qualifiers_add_up(everything: Program) -> None:
    qualified = everything.type("alias_t").type
    assert qualified.qualifiers == Qualifiers.CONST | Qualifiers.VOLATILE


def test_bit_fields(everything: Program) -> None:
    members = everything.type("struct bits").members or ()
    assert [(member.name, member.bit_offset, member.bit_field_size) for member in members] == [
        ("low", 0, 3),
        ("high", 3, 5),
    ]


def test_an_old_enum_with_its_high_bit_set_is_signed(everything: Program) -> None:
    colour = everything.type("enum colour")
    assert [tuple(item) for item in colour.enumerators or ()] == [("RED", 0), ("GREEN", 1), ("LAST", -1)]


def test_a_wide_enum(everything: Program) -> None:
    wide = everything.type("enum wide")
    assert [tuple(item) for item in wide.enumerators or ()] == [("BIG", 1 | 2 << 32), ("ALL", 2**64 - 1)]


def test_an_unknown_name_is_not_found(everything: Program) -> None:
    for name in ("struct nothing", "struct number", "enum everything", "struct every"):
        with pytest.raises(LookupError):
            everything.type(name)


def test_big_endian() -> None:
    types = Types()
    types.struct("pair", ("a", types.integer("int", 4)), ("b", types.integer("int", 4)))
    little = types.section()
    count = (struct.unpack_from("<I", little, 12)[0]) // 4
    header = struct.pack(">HBBIIIII", *struct.unpack_from("<HBBIIIII", little))
    table = struct.pack(f">{count}I", *struct.unpack_from(f"<{count}I", little, 24))
    pair = program(header + table + little[24 + 4 * count :], "big").type("struct pair")
    assert offsetof(pair, "b") == 4


# A kind that came later, as the layout section of v7.2 lets it come.


def layout(**later: tuple[int, int]) -> bytes:
    """struct btf_layout of kinds 0 to 127: those of v7.2, and ``kind_20=(words, words an item)``."""
    words = {
        **{kind: (0, 0) for kind in range(btf.ENUM64 + 1)},
        **{kind: (1, 0) for kind in (btf.INT, btf.VAR, btf.DECL_TAG)},
        **{kind: (0, 3) for kind in (btf.STRUCT, btf.UNION, btf.DATASEC, btf.ENUM64)},
        **{kind: (0, 2) for kind in (btf.ENUM, btf.FUNC_PROTO)},
        btf.ARRAY: (3, 0),
        **{int(name.removeprefix("kind_")): size for name, size in later.items()},
    }
    return b"".join(
        struct.pack("<BBH", *(4 * size for size in words.get(kind, (0, 0))), 0)
        for kind in range(max(words) + 1)
    )


def a_later_kind(kind: int) -> Types:
    types = Types()
    types.struct("before", ("a", types.integer("int", 4)))
    types.add(kind, "later", 8, [7] * (2 + 3 * 4), vlen=4)
    types.struct("after", ("b", types.integer("long", 8)))
    return types


@pytest.mark.parametrize("kind", [20, 31, 32, 127])
def test_a_kind_that_is_not_known_is_skipped_by_its_layout(kind: int) -> None:
    prog = program(a_later_kind(kind).section(layout(**{f"kind_{kind}": (2, 3)})))
    assert (sizeof(prog.type("struct before")), sizeof(prog.type("struct after"))) == (4, 8)
    with pytest.raises(LookupError):
        prog.type("later")


@pytest.mark.parametrize("section", [None, layout(kind_21=(2, 3))], ids=["no layout", "not this one's"])
def test_a_kind_without_a_layout_is_refused_by_its_number(section: bytes | None) -> None:
    with pytest.raises(BtfError, match="BTF type 3 has kind 22, which is not known"):
        program(a_later_kind(22).section(section))


def test_a_layout_that_contradicts_a_kind_is_refused() -> None:
    with pytest.raises(BtfError, match="kind 4 have 1 words and 3 for each item; they have 0 and 3"):
        program(Types().section(layout(kind_4=(1, 3))))


def test_a_layout_past_the_end_is_refused() -> None:
    with pytest.raises(BtfError, match="layout section of BTF ends past"):
        program(Types().section(layout())[:-1])


def test_a_struct_of_more_members_than_sixteen_bits_count() -> None:
    types = Types()
    number = types.integer("int", 4)
    types.struct("many", *[("m", number)] * 0x10001)
    types.struct("after", ("a", number))
    prog = program(types.section(layout()))
    assert len(prog.type("struct many").members or ()) == 0x10001
    assert sizeof(prog.type("struct after")) == 4


# Hostile ones.


def header(**changes: int) -> bytes:
    types = Types()
    types.struct("pair", ("a", types.integer("int", 4)))
    fields = dict(
        zip(
            ("magic", "version", "flags", "hdr_len", "type_off", "type_len", "str_off", "str_len"),
            struct.unpack_from("<HBBIIIII", types.section()),
            strict=True,
        )
    )
    return struct.pack("<HBBIIIII", *(fields | changes).values()) + types.section()[24:]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x9f\xeb\x01\0",
        header(magic=0x1234),
        header(hdr_len=2**32 - 1),
        header(type_off=2**32 - 1),
        header(type_len=2**32 - 4),
        header(str_off=4096),
        header(str_len=2**32 - 1),
    ],
    ids=["empty", "cut", "magic", "hdr_len", "type_off", "type_len", "str_off", "str_len"],
)
def test_a_header_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(BtfError, match="BTF") as refused:
        program(data)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("changes", [{"type_len": 0}, {"type_len": 3}, {"str_len": 0}, {"str_len": 1}])
def test_empty_tables_have_no_types(changes: dict[str, int]) -> None:
    with pytest.raises((BtfError, LookupError)):
        program(header(**changes)).type("struct pair")


def a_typedef_of_itself(types: Types) -> None:
    types.add(btf.TYPEDEF, "evil", types.following)


def two_typedefs_of_each_other(types: Types) -> None:
    types.add(btf.TYPEDEF, "evil", types.following + 1)
    types.add(btf.TYPEDEF, "evil too", types.following - 1)


def a_pointer_to_itself(types: Types) -> None:
    types.add(btf.TYPEDEF, "evil", types.following + 1)
    types.add(btf.PTR, size_or_type=types.following)


def an_array_of_itself(types: Types) -> None:
    types.add(btf.TYPEDEF, "evil", types.following + 1)
    types.add(btf.ARRAY, words=[types.following, 1, 2])


def a_constant_of_itself(types: Types) -> None:
    types.add(btf.TYPEDEF, "evil", types.following + 1)
    types.add(btf.CONST, size_or_type=types.following)


def a_thousand_pointers_deep(types: Types) -> None:
    types.add(btf.TYPEDEF, "evil", types.following + 1)
    for _ in range(1000):
        types.add(btf.PTR, size_or_type=types.following + 1)


def a_type_that_is_not_there(types: Types) -> None:
    types.add(btf.TYPEDEF, "evil", 2**32 - 1)


def a_function_for_a_type(types: Types) -> None:
    types.add(btf.TYPEDEF, "evil", types.following + 1)
    types.add(btf.FUNC, "f", 1)


def a_union_cut_by_the_end_of_the_table(types: Types) -> None:
    types.add(btf.TYPEDEF, "evil", types.following + 1)
    types.add(btf.UNION, "cut", 8, vlen=0xFFFF)


def an_enum_of_three_bytes(types: Types) -> None:
    types.add(btf.TYPEDEF, "evil", types.following + 1)
    types.add(btf.ENUM, "three", 3)


@pytest.mark.parametrize(
    "make",
    [
        a_typedef_of_itself,
        two_typedefs_of_each_other,
        a_pointer_to_itself,
        an_array_of_itself,
        a_constant_of_itself,
        a_thousand_pointers_deep,
        a_type_that_is_not_there,
        a_function_for_a_type,
        a_union_cut_by_the_end_of_the_table,
        an_enum_of_three_bytes,
    ],
    ids=lambda make: make.__name__.replace("_", " "),
)
def test_a_type_that_cannot_be_is_one_line(make: Callable[[Types], None]) -> None:
    types = Types()
    types.struct("innocent", ("a", types.integer("int", 4)))
    make(types)
    prog = program(types.section())
    with pytest.raises(BtfError) as refused:
        prog.type("evil")
    assert "BTF" in str(refused.value)
    assert sizeof(prog.type("struct innocent")) == 4


def test_a_member_that_cannot_be_costs_that_member_alone() -> None:
    types = Types()
    int_ = types.integer("int", 4)
    a, b, c = (types.string(name) for name in "abc")
    types.add(btf.STRUCT, "s", 8, [a, int_, 0, b, 2**31, 32, c, int_, 2**31], vlen=3)
    found = program(types.section()).type("struct s")
    assert offsetof(found, "a") == 0
    with pytest.raises(BtfError, match="BTF type 2147483648 is referred to; there are 2"):
        _ = found.member("b").type
    assert offsetof(found, "c") == 2**28


def test_a_name_past_the_strings_is_one_line() -> None:
    types = Types()
    int_ = types.integer("int", 4)
    types.add(btf.STRUCT, "s", 4, [2**32 - 1, int_, 0], vlen=1)
    with pytest.raises(BtfError, match="never ends"):
        program(types.section()).type("struct s")


def test_a_name_that_is_not_ascii_is_escaped() -> None:
    types = Types()
    types.add(btf.STRUCT, "s", 4, [types.string("\x1b[2Jé"), types.integer("int", 4), 0], vlen=1)
    members = program(types.section()).type("struct s").members
    assert members is not None
    assert members[0].name == "\x1b[2J\\xc3\\xa9"


def test_a_struct_with_itself_as_an_anonymous_member_is_no_endless_search() -> None:
    types = Types()
    types.add(btf.STRUCT, "evil", 8, [0, 1, 0], vlen=1)
    evil = program(types.section()).type("struct evil")
    with pytest.raises(RecursionError):
        evil.has_member("anything")
