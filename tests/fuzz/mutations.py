# SPDX-License-Identifier: LGPL-2.1-or-later
"""Changes to bytes, text and JSON. Each is made of one integer: a list of integers is a whole case."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

NUMBERS = [
    *(0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0xFFF, 0x1000, 0x7FFF, 0xFFFF, 0x10000, 1 << 20, 1 << 26),
    *((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 47, 1 << 52, 1 << 57, (1 << 60) + 1),
    *((1 << 62) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1),
]
TEXTS = [
    "",
    "\0",
    "\x1b[2J",
    "-1",
    "ff" * 40,
    "9" * 400,
    "0x",
    " ",
    "\n",
    "é" * 9,
    "None",
    "nan",
    "1e999",
    "%s",
]


def changed(data: bytes, places: Sequence[tuple[int, int]], operations: Sequence[int]) -> bytes:
    """``data`` after each operation. ``places`` are (offset, size) of what a reader looks at."""
    for operation in operations:
        data = _changed_once(bytearray(data), places, random.Random(operation))
    return data


def _changed_once(data: bytearray, places: Sequence[tuple[int, int]], dice: random.Random) -> bytes:
    if not data:
        return bytes(data)
    offset, size = dice.choice(places) if places and dice.random() < 0.8 else (dice.randrange(len(data)), 8)
    offset = min(offset + dice.randrange(max(size, 1)), len(data) - 1)
    kind = dice.randrange(12)
    if kind < 4:
        width = dice.choice((1, 2, 4, 8))
        aligned = offset - offset % width
        order = dice.choice(("little", "little", "little", "big"))
        new = (dice.choice(NUMBERS) % (1 << 8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
        data[aligned : aligned + width] = new[: len(data) - aligned]
    elif kind < 6:
        data[offset] ^= 1 << dice.randrange(8)
    elif kind == 6:
        width = dice.choice((1, 2, 4, 8))
        number = int.from_bytes(data[offset : offset + width], "little") + dice.choice((-1, 1, -8, 8, 4096))
        data[offset : offset + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
        del data[len(data) :]
    elif kind == 7:
        data[offset : offset + 16] = dice.randbytes(min(16, len(data) - offset))
    elif kind == 8:
        start, block = dice.randrange(len(data)) // 512 * 512, dice.choice((512, 4096))
        data[start : start + block] = bytes(len(data[start : start + block]))
    elif kind == 9:
        source, block = dice.randrange(len(data)), dice.choice((4, 8, 24, 56, 512))
        piece = data[source : source + block]
        data[offset : offset + len(piece)] = piece[: len(data) - offset]
    elif kind == 10:
        del data[offset : offset + dice.choice((1, 4, 8, 64, 4096))]
    else:
        del data[dice.randrange(len(data)) :]
    return bytes(data)


def changed_text(text: str, operations: Sequence[int]) -> str:
    """Lines and numbers of a text, such as VMCOREINFO or a log."""
    for operation in operations:
        dice = random.Random(operation)
        lines = text.split("\n")
        at = dice.randrange(len(lines))
        kind = dice.randrange(8)
        if kind < 4 and "=" in lines[at]:
            key, _, _ = lines[at].partition("=")
            number = dice.choice(NUMBERS)
            lines[at] = f"{key}={dice.choice([f'{number}', f'{number:x}', f'-{number}', *TEXTS])}"
        elif kind == 4:
            del lines[at]
        elif kind == 5:
            lines.insert(at, lines[dice.randrange(len(lines))])
        elif kind == 6:
            lines[at] = dice.choice(TEXTS) + lines[at]
        else:
            digits = [place for place, letter in enumerate(lines[at]) if letter.isalnum()]
            if digits:
                place = dice.choice(digits)
                new = dice.choice([str(dice.choice(NUMBERS)), "-", "\x1b", "", "\xff"])
                lines[at] = lines[at][:place] + new + lines[at][place + 1 :]
        text = "\n".join(lines)
    return text


def changed_json(document: Any, operations: Sequence[int]) -> Any:
    """Members and items of a parsed document."""
    document = copy.deepcopy(document)
    for operation in operations:
        dice = random.Random(operation)
        places = list(_places(document, 4000))
        if not places:
            return document
        holder, key = dice.choice(places)
        number = dice.choice(NUMBERS)
        values = [
            number,
            -number,
            10**400,
            1.5,
            dice.choice(TEXTS),
            None,
            True,
            [],
            {},
            [[1, 0]],
            [[0, number]],
        ]
        new = dice.choice([*values, {"unknown": "x"}])
        old = holder[key]
        if dice.random() < 0.7 and old is not None and not isinstance(old, (dict, bool)):
            # Of the same type: what checks types alone lets it through.
            same = {
                int: number,
                str: dice.choice([*TEXTS, old * 2, old[1:]]) if isinstance(old, str) else "",
                list: [*old[1:], *old[:1]]
                if isinstance(old, list) and dice.random() < 0.5
                else [[number, number]],
            }
            holder[key] = same.get(type(old), old)
        elif dice.random() < 0.15 and isinstance(holder, dict):
            del holder[key]
        elif dice.random() < 0.1 and isinstance(holder, dict):
            holder[dice.choice(TEXTS)] = new
        else:
            holder[key] = new
    return document


def _places(value: Any, most: int) -> list[tuple[Any, Any]]:
    """(holder, key or index) of the members and items, the first ``most``."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < most:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, each in items:
            found.append((holder, key))
            if isinstance(each, (dict, list)):
                waiting.append(each)
    return found
