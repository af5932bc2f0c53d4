# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel log's ring buffer, by hand and hostile. Real ones are in tests/corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.kernels import Machine, words
from vmcheck.facts.topology import Unknown
from vmcheck.kernel import log

COMMITTED, FINALIZED, REUSABLE = 1 << 62, 2 << 62, 3 << 62
LAYOUT = {
    "SIZE(printk_ringbuffer)": 64,
    "OFFSET(printk_ringbuffer.desc_ring)": 0,
    "OFFSET(prb_desc_ring.count_bits)": 0,
    "OFFSET(prb_desc_ring.descs)": 8,
    "OFFSET(prb_desc_ring.infos)": 16,
    "OFFSET(prb_desc_ring.head_id)": 24,
    "OFFSET(prb_desc_ring.tail_id)": 32,
    "OFFSET(printk_ringbuffer.text_data_ring)": 40,
    "OFFSET(prb_data_ring.size_bits)": 0,
    "OFFSET(prb_data_ring.data)": 8,
    "SIZE(prb_desc)": 24,
    "OFFSET(prb_desc.state_var)": 0,
    "OFFSET(prb_desc.text_blk_lpos)": 8,
    "OFFSET(prb_data_blk_lpos.begin)": 0,
    "OFFSET(prb_data_blk_lpos.next)": 8,
    "SIZE(printk_info)": 16,
    "OFFSET(printk_info.ts_nsec)": 0,
    "OFFSET(printk_info.text_len)": 8,
}
SIZE_BITS = 9
"""Of 512 bytes of text."""


class Ring:
    """A log of ``1 << count_bits`` records."""

    def __init__(self, count_bits: int = 2, first: int = 0) -> None:
        self.machine = Machine()
        self.machine.vmcoreinfo |= {key: str(value) for key, value in LAYOUT.items()}
        self.count = 1 << count_bits
        self.descs = self.machine.place(bytes(24 * self.count))
        self.infos = self.machine.place(bytes(16 * self.count))
        self.text = self.machine.place(bytes(1 << SIZE_BITS))
        self.prb = self.machine.place(bytes(64))
        self.machine.vmcoreinfo["SYMBOL(prb)"] = f"{self.machine.place(words(self.prb)):x}"
        self.tail = self.next = first
        self.lpos = 0
        self.settle(count_bits)

    def settle(self, count_bits: int, size_bits: int = SIZE_BITS) -> None:
        """Write down the ring itself."""
        ring = words(count_bits, self.descs, self.infos, max(self.next - 1, self.tail), self.tail)
        self.machine.put(self.prb, ring + words(size_bits, self.text))

    def add(self, text: bytes, state: int = FINALIZED, length: int | None = None) -> None:
        """A record, its block wrapped to the start of the text where it does not fit."""
        size = 8 + len(text) + 7 & ~7
        begin, end = self.lpos, self.lpos + size
        if begin >> SIZE_BITS != (end - 1) >> SIZE_BITS:
            end = ((begin >> SIZE_BITS) + 1 << SIZE_BITS) + size
        self.lpos = end
        start = 0 if begin >> SIZE_BITS != (end - 1) >> SIZE_BITS else begin % (1 << SIZE_BITS)
        self.machine.put(self.text + start, words(self.next) + text)
        place = self.next % self.count
        self.machine.put(self.descs + 24 * place, words(state | self.next, begin, end))
        seconds = self.next * 10**9 + 5000
        self.machine.put(self.infos + 16 * place, words(seconds, len(text) if length is None else length))
        self.next += 1
        self.tail = max(self.tail, self.next - self.count)
        self.settle(self.count.bit_length() - 1)

    def log(self, directory: Path) -> str:
        found = self.machine.topology(directory).log
        assert isinstance(found, str)
        return found

    def why(self, directory: Path) -> str:
        found = self.machine.topology(directory).log
        assert isinstance(found, Unknown)
        assert len(found.why) < 200
        return found.why


def filled(texts: Sequence[bytes], **options: int) -> Ring:
    ring = Ring(**options)
    for text in texts:
        ring.add(text)
    return ring


def test_records_come_with_their_time_in_order(tmp_path: Path) -> None:
    assert filled([b"one", b"two\nlines", b""]).log(tmp_path) == (
        "[    0.000005] one\n[    1.000005] two\n[    1.000005] lines\n[    2.000005] "
    )


def test_only_the_newest_are_there_once_the_ring_is_full(tmp_path: Path) -> None:
    ring = filled([b"number %d" % n for n in range(10)])
    assert ring.log(tmp_path).split("\n") == [f"[    {n}.000005] number {n}" for n in range(6, 10)]


def test_a_record_that_does_not_fit_at_the_end_is_at_the_start(tmp_path: Path) -> None:
    ring = filled([b"x" * 300, b"wrapped" * 30])
    assert ring.log(tmp_path).endswith("[    1.000005] " + "wrapped" * 30)


@pytest.mark.parametrize("state", [0, REUSABLE])
def test_a_record_that_is_being_written_is_left_out(tmp_path: Path, state: int) -> None:
    ring = filled([b"one"])
    ring.add(b"torn", state=state)
    ring.add(b"three", state=COMMITTED)
    assert ring.log(tmp_path) == "[    0.000005] one\n[    2.000005] three"


def test_a_record_of_an_earlier_round_is_left_out(tmp_path: Path) -> None:
    ring = filled([b"one", b"two"])
    ring.machine.put(ring.descs + 24, words(FINALIZED | 5))
    assert ring.log(tmp_path) == "[    0.000005] one"


def test_bytes_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    assert filled([b"caf\xc3\xa9 \xff"]).log(tmp_path) == "[    0.000005] café \\xff"


def test_an_empty_log(tmp_path: Path) -> None:
    assert Ring().log(tmp_path) == ""


def test_a_lost_text_is_unknown(tmp_path: Path) -> None:
    ring = filled([b"one"])
    ring.text = ring.machine.on_its_own_page(bytes(512))
    ring.settle(2)
    ring.machine.lose(ring.text)
    assert ring.why(tmp_path).startswith("printk ring buffer: ")


@pytest.mark.parametrize(("count_bits", "size_bits"), [(63, SIZE_BITS), (21, SIZE_BITS), (2, 63), (2, 27)])
def test_a_ring_larger_than_any_is_refused(tmp_path: Path, count_bits: int, size_bits: int) -> None:
    ring = filled([b"one"])
    ring.settle(count_bits, size_bits)
    assert "are possible" in ring.why(tmp_path)


@pytest.mark.parametrize("key", LAYOUT)
@pytest.mark.parametrize("value", ["-1", "0", "-99999999999", "9999999999999999999", "1048576", "seven"])
def test_an_absurd_layout_costs_the_log_alone(tmp_path: Path, key: str, value: str) -> None:
    ring = filled([b"one", b"two"])
    ring.machine.vmcoreinfo[key] = value
    found = ring.machine.topology(tmp_path).log
    assert isinstance(found, str) or found.why.startswith("printk ring buffer: ")


def test_records_that_share_one_text_are_refused(tmp_path: Path) -> None:
    """A million records of 64 KB of the same text: 64 GB of log out of 40 MB of dump."""
    ring = filled([b"x" * 8] * 4)
    assert ring.log(tmp_path).count("x" * 8) == 4
    ring.machine.put(ring.infos + 8, words(997))
    assert ring.why(tmp_path) == ("printk ring buffer: the records have 1021 bytes of text, and the ring 512")


def test_wild_positions_in_the_text_are_survived(tmp_path: Path) -> None:
    ring = filled([b"one", b"two"])
    ring.machine.put(ring.descs + 8, words(2**64 - 2, 2**64 - 8))
    assert "two" in ring.log(tmp_path)


def test_a_tail_past_the_head_is_survived(tmp_path: Path) -> None:
    ring = filled([b"one", b"two"])
    ring.tail = 2**64 - 1
    ring.settle(2)
    assert isinstance(ring.machine.topology(tmp_path).log, str)


def test_a_record_of_newlines_has_as_many_lines_as_a_log_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MAX_LINES", 5)
    ring = filled([b"one", b"\n" * 40, b"three"])
    assert len(ring.log(tmp_path).splitlines()) < 50
