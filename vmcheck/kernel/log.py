# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel log, from VMCOREINFO alone.

Since Linux kernel commit 896fbe20b4e2 ("printk: use the lockless ringbuffer") (in v5.10),
VMCOREINFO describes ``struct printk_ringbuffer``: three arrays, read in bulk here. Since v3.5
(7ff9554bb578), it described records of varying length in log_buf.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

from vmcheck.kernel.program import Kernel

Words = npt.NDArray[np.uint64]

# enum desc_state, in the two high bits of prb_desc.state_var (kernel/printk/printk_ringbuffer.h)
COMMITTED, FINALIZED = 1, 2

MAX_RECORDS = 1 << 20
MAX_LINES = 1 << 20
"""A record has one line or a few; the rest is cut."""
MAX_TEXT = 64 << 20
"""Bytes. log_buf_len= takes up to 2 GiB; Debian's default is 128 KiB."""


def kernel_log(kernel: Kernel) -> str:
    """What dmesg(1) would print, time stamps included.

    Raises LookupError where VMCOREINFO lacks an item or the log contradicts itself, and FaultError
    where the log is lost.
    """
    if "SYMBOL(prb)" not in kernel.header.vmcoreinfo and "SYMBOL(log_buf)" in kernel.header.vmcoreinfo:
        return "\n".join(islice(_lines_of_records(kernel), MAX_LINES))
    number = kernel.vmcoreinfo_number
    word = kernel.header.bits // 8
    ring = int(kernel.words(kernel.vmcoreinfo_symbol("prb"), 1)[0])
    ring_bytes = kernel.read(ring, number("SIZE(printk_ringbuffer)"))
    order = "little" if kernel.header.byteorder == "little" else "big"

    def field(*path: str, size: int = word) -> int:
        offset = sum(number(f"OFFSET({name})") for name in path)
        return int.from_bytes(ring_bytes[offset : offset + size], order)  # type: ignore[arg-type]

    desc_ring, text_ring = "printk_ringbuffer.desc_ring", "printk_ringbuffer.text_data_ring"
    count = 1 << (field(desc_ring, "prb_desc_ring.count_bits", size=4) & 63)
    text_size = 1 << (field(text_ring, "prb_data_ring.size_bits", size=4) & 63)
    if count > MAX_RECORDS or text_size > MAX_TEXT:
        raise LookupError(
            f"the ring has {count} records and {text_size} bytes of text: at most {MAX_RECORDS} and "
            f"{MAX_TEXT} are possible"
        )
    head, tail = field(desc_ring, "prb_desc_ring.head_id"), field(desc_ring, "prb_desc_ring.tail_id")
    ids = np.arange(min((head - tail) % (1 << (kernel.header.bits - 2)) + 1, count), dtype=np.uint64)
    ids += np.uint64(tail)
    places = (ids % np.uint64(count)).astype(np.int64)
    descs = _rows(kernel, field(desc_ring, "prb_desc_ring.descs"), places, number("SIZE(prb_desc)"))
    infos = _rows(kernel, field(desc_ring, "prb_desc_ring.infos"), places, number("SIZE(printk_info)"))
    lpos = number("OFFSET(prb_desc.text_blk_lpos)")
    states = _column(kernel, descs, number("OFFSET(prb_desc.state_var)"), word)
    begins = _column(kernel, descs, lpos + number("OFFSET(prb_data_blk_lpos.begin)"), word)
    nexts = _column(kernel, descs, lpos + number("OFFSET(prb_data_blk_lpos.next)"), word)
    times = _column(kernel, infos, number("OFFSET(printk_info.ts_nsec)"), 8)
    lengths = _column(kernel, infos, number("OFFSET(printk_info.text_len)"), 2)
    shift = np.uint64(kernel.header.bits - 2)
    valid = np.isin(states >> shift, (COMMITTED, FINALIZED)) & (states << np.uint64(2) == ids << np.uint64(2))
    # A position with its lowest bit set has no text (NO_LPOS, FAILED_LPOS).
    valid &= begins & np.uint64(1) == 0
    if (wanted := int(lengths[valid].sum())) > text_size:
        raise LookupError(f"the records have {wanted} bytes of text, and the ring {text_size}")
    text = _text(kernel, field(text_ring, "prb_data_ring.data"), text_size, begins[valid], nexts[valid])
    lines: list[str] = []
    left = MAX_LINES
    for begin, next_, length, time in zip(
        begins[valid].tolist(),
        nexts[valid].tolist(),
        lengths[valid].tolist(),
        times[valid].tolist(),
        strict=True,
    ):
        # A block that would cross the end of the ring is stored at its start instead.
        start = begin % text_size if begin // text_size == next_ // text_size else 0
        record = text[start + word : start + word + length].decode("utf-8", "backslashreplace")
        stamp = f"[{time // 10**9:5d}.{time // 1000 % 10**6:06d}] "
        lines += [stamp + line for line in record.split("\n", left)]
        left = MAX_LINES - len(lines)
        if left <= 0:
            break
    return "\n".join(lines)


def _lines_of_records(kernel: Kernel) -> Iterator[str]:
    """v3.5 to v5.9: a header (struct printk_log; struct log before v3.11), the text, a dictionary."""
    number, order = kernel.vmcoreinfo_number, kernel.header.byteorder
    name = "printk_log" if "SIZE(printk_log)" in kernel.header.vmcoreinfo else "log"

    def u32(symbol: str) -> int:
        return int.from_bytes(kernel.read(kernel.vmcoreinfo_symbol(symbol), 4), order)

    def field(record: int, member: str, size: int) -> int:
        offset = record + offsets[member]
        return int.from_bytes(data[offset : offset + size], order)

    size, first, end = u32("log_buf_len"), u32("log_first_idx"), u32("log_next_idx")
    header = number(f"SIZE({name})")
    offsets = {member: number(f"OFFSET({name}.{member})") for member in ("ts_nsec", "len", "text_len")}
    if not 0 < size <= MAX_TEXT or not 0 <= first < size or not 0 <= end < size:
        raise LookupError(f"log_buf has {size} bytes and its records go from {first} to {end}")
    if not all(0 <= offset <= header - 2 for offset in offsets.values()) or header > 256:
        raise LookupError(f"VMCOREINFO has SIZE({name})={header} and members at {sorted(offsets.values())}")
    wrapped = end < first
    buffer = int(kernel.words(kernel.vmcoreinfo_symbol("log_buf"), 1)[0])
    data = kernel.read(buffer, size if wrapped else end)
    place = first
    while place != end or wrapped:
        length = field(place, "len", 2)
        if length == 0 and wrapped:
            # A record that would cross the end of the buffer is stored at its start instead.
            place, wrapped = 0, False
            continue
        if length < header or place + length > len(data):
            raise LookupError(f"the record of log_buf at {place:#x} has {length} bytes")
        text = data[place + header : place + header + field(place, "text_len", 2)]
        time = field(place, "ts_nsec", 8)
        stamp = f"[{time // 10**9:5d}.{time // 1000 % 10**6:06d}] "
        for line in text.decode("utf-8", "backslashreplace").split("\n"):
            yield stamp + line
        place += length


def _rows(kernel: Kernel, address: int, places: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.uint8]:
    """The structures at ``places`` of an array, shape (n, size), reading no more than from first to last."""
    first, last = int(places.min()), int(places.max())
    data = kernel.read(address + first * size, (last - first + 1) * size)
    return np.frombuffer(data, np.uint8).reshape(-1, size)[places - first]


def _column(kernel: Kernel, rows: npt.NDArray[np.uint8], offset: int, size: int) -> Words:
    order = "<" if kernel.header.byteorder == "little" else ">"
    return (
        np.ascontiguousarray(rows[:, offset : offset + size]).view(f"{order}u{size}")[:, 0].astype(np.uint64)
    )


def _text(kernel: Kernel, address: int, size: int, begins: Words, nexts: Words) -> bytes:
    """The text ring, read as far as the records reach."""
    if not len(begins):
        return b""
    wrapped = begins // np.uint64(size) != nexts // np.uint64(size)
    reach = size if wrapped.any() else int((nexts % np.uint64(size)).max()) or size
    return kernel.read(address, min(size, reach))
