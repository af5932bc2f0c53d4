# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that vmcheck does not read, by name."""

from __future__ import annotations

from vmcheck.errors import UnsupportedFormat
from vmcheck.formats.file import DumpFile

LOOKED_AT = 8192

CANNOT_READ = "which vmcheck cannot read"
SADUMP = f"a sadump file, {CANNOT_READ}; makedumpfile converts it"
VMWARE = f"a VMware snapshot, {CANNOT_READ}; vmss2core converts it"
SAVED_GUEST = "a saved virtual machine: dump it with `virsh dump --memory-only`"
WINDOWS = "a Windows crash dump"
KERNEL_IMAGE = "a kernel image, not a dump"


def _packed(what: str, command: str) -> str:
    return f"{what}-compressed file: unpack it first with `{command}`"


# (offset, bytes, what it is). The sources are the readers of crash, libkdumpfile and the formats' own pages.
SIGNATURES = (
    (0, b"\x1f\x8b", _packed("gzip", "gzip -d")),
    (0, b"\x28\xb5\x2f\xfd", _packed("zstd", "zstd -d")),
    (0, b"\xfd7zXZ\0", _packed("xz", "xz -d")),
    (0, b"BZh", _packed("bzip2", "bzip2 -d")),
    (0, b"\x04\x22\x4d\x18", _packed("lz4", "lz4 -d")),
    (0, b"\x89LZO\0\r\n\x1a\n", _packed("lzop", "lzop -d")),
    (0, b"PK\x03\x04", "a zip archive: unpack it first with `unzip`"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first with `7z x`"),
    (257, b"ustar", "a tar archive: unpack it first with `tar -xf`"),
    (0, b"DISKDUMP", f"a diskdump of Linux 2.4, {CANNOT_READ}"),
    # lkcd_dump_v8.h: DUMP_MAGIC_NUMBER, DUMP_MAGIC_LIVE, DUMP_MAGIC_S390; either byte order.
    (0, b"\xed\x23\x8f\x61\x73\x01\x19\xa8", f"an LKCD dump, {CANNOT_READ}"),
    (0, b"\xa8\x19\x01\x73\x61\x8f\x23\xed", f"an LKCD dump, {CANNOT_READ}"),
    (0, b"\xcd\x23\x8f\x61\x73\x01\x19\xa8", f"a live LKCD dump, {CANNOT_READ}"),
    (0, b"\xa8\x19\x01\x73\x61\x8f\x23\xcd", f"a live LKCD dump, {CANNOT_READ}"),
    (0, b"\xa8\x19\x01\x73\x61\x8f\x23\xfd", f"an s390 dump, {CANNOT_READ}; zgetdump converts it"),
    # sadump_mod.h: a partition, alone or of a disk set; then a media backup, after its own header.
    (0, b"sadump\0\0", SADUMP),
    (4096, b"sadump\0\0", SADUMP),
    # vmware_vmss.h: CPTDUMP_*_MAGIC_NUMBER.
    (0, b"\xd0\xbe\xd0\xbe", VMWARE),
    (0, b"\xd2\xbe\xd2\xbe", VMWARE),
    (0, b"\xd3\xbe\xd3\xbe", VMWARE),
    (0, b"\xd1\xba\xd1\xba", VMWARE),
    (0, b"\xd2\xba\xd2\xba", VMWARE),
    (0, b"EMiL", f"a LiME image, {CANNOT_READ}: it has no registers and no VMCOREINFO"),
    (0, b"LVMA", f"an AVML image, {CANNOT_READ}: it has no registers and no VMCOREINFO"),
    (0, b"AVML", f"an AVML image, {CANNOT_READ}: it has no registers and no VMCOREINFO"),
    (0, b"PAGEDUMP", WINDOWS),
    (0, b"PAGEDU64", WINDOWS),
    (0, b"minidump FreeBSD", "a FreeBSD minidump"),
    (0, b"LibvirtQemudSave", SAVED_GUEST),
    (0, b"LibvirtQemudPart", SAVED_GUEST),
    (0, b"QEVM", SAVED_GUEST),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0x202, b"HdrS", KERNEL_IMAGE),
    (0x38, b"ARM\x64", KERNEL_IMAGE),
)


def refuse(file: DumpFile) -> UnsupportedFormat:
    """What the file is, as far as its first bytes tell."""
    head = file.read(0, min(LOOKED_AT, file.size))
    for offset, signature, what in SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return UnsupportedFormat(f"{file.name}: {what}")
    if not any(head):
        return UnsupportedFormat(f"{file.name}: only zeros at its start: the dump was never written")
    if _is_text(head):
        line = head.split(b"\n")[0][:60].decode("utf-8", "replace").strip()
        return UnsupportedFormat(f"{file.name}: a text file, not a dump; it begins with: {line}")
    return UnsupportedFormat(f"{file.name}: not a dump that vmcheck knows: begins with {head[:16].hex(' ')}")


def _is_text(head: bytes) -> bool:
    """UTF-8 without control characters, but for a character that the end of ``head`` cuts."""
    try:
        text = head[:-3].decode() if len(head) == LOOKED_AT else head.decode()
    except UnicodeDecodeError as error:
        if error.start < LOOKED_AT - 8:
            return False
        text = head[: error.start].decode()
    return all(character.isprintable() or character in "\t\n\r\f\x1b" for character in text)
