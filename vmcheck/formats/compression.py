# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages as makedumpfile compresses them. No page unpacks to more than its own size."""

from __future__ import annotations

import zlib
from collections.abc import Callable

# The flags of page_desc, and of disk_dump_header's status (diskdump_mod.h).
DUMP_DH_COMPRESSED_ZLIB = 0x1
DUMP_DH_COMPRESSED_LZO = 0x2
DUMP_DH_COMPRESSED_SNAPPY = 0x4
DUMP_DH_COMPRESSED_ZSTD = 0x20


class Corrupt(Exception):
    """What a page's data are, that is not a page."""


def _unzlib(data: bytes, page_size: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, page_size + 1)
    except zlib.error as error:
        raise Corrupt(str(error)) from None


def _unlzo(data: bytes, page_size: int) -> bytes:
    from lzallright import LZOCompressor, LZOError

    try:
        return bytes(LZOCompressor.decompress(data, output_size_hint=page_size))
    except LZOError as error:
        raise Corrupt(str(error)) from None


def _unsnappy(data: bytes, page_size: int) -> bytes:
    from cramjam import DecompressionError, snappy

    try:
        size = snappy.decompress_raw_len(data)
        return bytes(snappy.decompress_raw(data)) if size == page_size else bytes(min(size, page_size + 1))
    except DecompressionError as error:
        raise Corrupt(str(error)) from None


def _unzstd(data: bytes, page_size: int) -> bytes:
    import zstandard

    try:
        # A frame that names its size has that many bytes allocated, whatever the limit given.
        if zstandard.frame_content_size(data) > page_size:
            raise Corrupt("a frame of more than a page")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=page_size)
    except zstandard.ZstdError as error:
        raise Corrupt(str(error)) from None


COMPRESSIONS: dict[int, tuple[str, Callable[[bytes, int], bytes]]] = {
    DUMP_DH_COMPRESSED_ZLIB: ("zlib", _unzlib),
    DUMP_DH_COMPRESSED_LZO: ("lzo", _unlzo),
    DUMP_DH_COMPRESSED_SNAPPY: ("snappy", _unsnappy),
    DUMP_DH_COMPRESSED_ZSTD: ("zstd", _unzstd),
}
ANY_COMPRESSION = sum(COMPRESSIONS)


def bulk_unpacker(
    compression: int, page_size: int
) -> tuple[Callable[[memoryview], int], tuple[type[Exception], ...]]:
    """What unpacks many pages of one compression: the size of each, or one of the exceptions.

    Faster than :func:`unpack_page`, and as strict: a page is good where this gives ``page_size``.
    """
    if compression == DUMP_DH_COMPRESSED_ZLIB:
        unpack = zlib.decompress
        return lambda data: len(unpack(data, 15, page_size)), (zlib.error,)
    if compression == DUMP_DH_COMPRESSED_LZO:
        from lzallright import LZOCompressor, LZOError

        unlzo = LZOCompressor.decompress
        return lambda data: len(unlzo(data, page_size)), (LZOError,)
    if compression == DUMP_DH_COMPRESSED_SNAPPY:
        from cramjam import DecompressionError, snappy

        page, into = bytearray(page_size), snappy.decompress_raw_into
        # More than a page does not fit into it.
        return lambda data: into(data, page), (DecompressionError,)
    if compression == DUMP_DH_COMPRESSED_ZSTD:
        import zstandard

        whole, size_of = zstandard.ZstdDecompressor().decompress, zstandard.frame_content_size

        def unzstd(data: memoryview) -> int:
            # A frame that names its size has that many bytes allocated, whatever the limit given.
            named = size_of(data)
            return named if named > page_size else len(whole(data, page_size))

        return unzstd, (zstandard.ZstdError,)
    raise Corrupt(f"flags {compression:#x} name more than one compression")


def name_of(status: int) -> str | None:
    """The compression that disk_dump_header's status names, if any."""
    return next((name for flag, (name, _) in COMPRESSIONS.items() if status & flag), None)


def unpack_page(data: bytes, flags: int, page_size: int) -> bytes:
    """A page from its data in the file, by the flags of its page_desc."""
    compression = flags & ANY_COMPRESSION
    if not compression:
        page = data
    elif known := COMPRESSIONS.get(compression):
        page = known[1](data, page_size)
    else:
        raise Corrupt(f"flags {flags:#x} name more than one compression")
    if len(page) != page_size:
        raise Corrupt(f"{len(page)} bytes of a page of {page_size}")
    return page
