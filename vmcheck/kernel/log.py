# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel log, from VMCOREINFO alone.

Since Linux kernel commit 896fbe20b4e2 ("printk: use the lockless ringbuffer") (in v5.10),
VMCOREINFO describes ``struct printk_ringbuffer``: three arrays, read in bulk here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vmcheck.kernel.program import Kernel

Words = npt.NDArray[np.uint64]

# enum desc_state, in the two high bits of prb_desc.state_var (kernel/printk/printk_ringbuffer.h)
COMMITTED, FINALIZED = 1, 2

MAX_RECORDS = 1 << 20
MAX_TEXT = 64 << 20
"""Bytes. log_buf_len= takes up to 2 GiB; Debian's default is 128 KiB."""


def kernel_log(kernel: Kernel) -> str:
    """What dmesg(1) would print, time stamps included.

    Raises LookupError for kernels before v5.10 and FaultError where the log is lost.
    """
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
            f"the ring has {count} records and {text_size} bytes of text, which is not believed"
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
    if (wanted := int(lengths[valid].sum())) > MAX_TEXT:
        raise LookupError(f"the records have {wanted} bytes of text between them, which is not believed")
    text = _text(kernel, field(text_ring, "prb_data_ring.data"), text_size, begins[valid], nexts[valid])
    lines = []
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
        lines += [stamp + line for line in record.split("\n")]
    return "\n".join(lines)


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
