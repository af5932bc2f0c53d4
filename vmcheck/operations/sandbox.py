# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shut a process in before it reads a stranger's dump: it may read files and answer, and nothing else.

Landlock (Documentation/userspace-api/landlock.rst) takes every right to files but reading, a
seccomp filter the system calls that start programs, processes or connections, or that change
files. Neither can be undone. A kernel that lacks one of them is no error, and is not reported.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from typing import NamedTuple

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 38, 22
SECCOMP_MODE_FILTER = 2
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446
LANDLOCK_READING = 1 << 2 | 1 << 3
"""LANDLOCK_ACCESS_FS_READ_FILE and _READ_DIR: modules and symbol files are read late."""

CLONE_VM = 0x100
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# struct sock_filter: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JSET|BPF_K, BPF_RET|BPF_K.
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
# struct seccomp_data: nr, arch, instruction pointer, six arguments of 64 bits.
NR, ARCH, ARGUMENTS = 0, 4, 16


class Calls(NamedTuple):
    """One machine's system call numbers (asm/unistd.h)."""

    arch: int
    """AUDIT_ARCH_*."""
    denied: tuple[int, ...]
    absent: tuple[int, ...]
    """Answered by ENOSYS, so that the C library takes an older call that can be judged."""
    own: tuple[int, ...]
    """Calls that send a signal: allowed to the process itself, as abort() does."""
    clone: int
    opens: tuple[tuple[int, int], ...]
    """(call, which of its arguments has the flags): denied where they ask for writing."""


CALLS = {
    "x86_64": Calls(
        0xC000003E,
        denied=(
            *(57, 58, 59, 322),  # fork, vfork, execve, execveat
            *(41, 42, 43, 49, 50, 53, 288),  # socket, connect, accept, bind, listen, socketpair, accept4
            *(200, 129, 297, 424, 101, 310, 311),  # tkill and its kin, ptrace, process_vm_*
            *(82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94, 76, 77, 132, 133),  # rename to mknod
            *(258, 259, 260, 261, 263, 264, 265, 266, 268, 280, 285, 316, 452),  # the same by descriptor
            *(155, 161, 165, 166, 167, 169, 175, 246, 313, 320, 321, 248, 249, 250, 298, 308, 272),
            *(425, 426, 427, 188, 189, 190, 197, 198, 199),  # io_uring, xattrs
        ),
        absent=(435, 437),  # clone3, openat2
        own=(62, 234),  # kill, tgkill
        clone=56,
        opens=((2, 1), (257, 2)),
    ),
    "aarch64": Calls(
        0xC00000B7,
        denied=(
            *(221, 281),  # execve, execveat
            *(198, 199, 200, 201, 202, 203, 242),  # sockets
            *(130, 138, 240, 424, 117, 270, 271),  # tkill and its kin, ptrace, process_vm_*
            *(33, 34, 35, 36, 37, 38, 276, 45, 46, 47, 52, 53, 54, 55, 88, 452),  # mknodat to utimensat
            *(39, 40, 41, 51, 104, 105, 106, 142, 217, 218, 219, 224, 225, 241, 268, 273, 280, 97, 294),
            *(425, 426, 427, 5, 6, 7, 14, 15, 16),  # io_uring, xattrs
        ),
        absent=(435, 437),
        own=(129, 131),
        clone=220,
        opens=((56, 2),),
    ),
}


def shut_in(parent: int) -> None:
    """Give up every right but to read files and to answer, as far as this kernel can take them.

    ``parent`` is the process that this one must not outlive.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _landlock(libc)
    _seccomp(libc)


def _landlock(libc: ctypes.CDLL) -> None:
    abi = libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1)
    if abi < 1:
        return
    # All rights to files of this ABI are handled, and none but reading is left.
    rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)
    files = ((1 << rights) - 1) & ~LANDLOCK_READING
    network, scoped = (3 if abi >= 4 else 0), (3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    attributes = ctypes.create_string_buffer(struct.pack("<QQQ", files, network, scoped), 24)
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        return
    libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _seccomp(libc: ctypes.CDLL) -> None:
    calls = CALLS.get(os.uname().machine)
    if calls is None:
        return
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in filter_of(calls, os.getpid()))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(program), 0, 0)


def filter_of(calls: Calls, pid: int) -> list[tuple[int, int, int, int]]:
    """The BPF program: (code, jump if true, jump if false, k)."""
    program = [(LOAD, 0, 0, ARCH), (EQUAL, 1, 0, calls.arch), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NR)]
    for number in calls.denied:
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | errno.EPERM)]
    for number in calls.absent:
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    # x32 calls have numbers of their own.
    program += [(ANY_BIT, 0, 1, 0x40000000), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    for number in calls.own:
        program += [
            (EQUAL, 0, 4, number),
            (LOAD, 0, 0, ARGUMENTS),
            (EQUAL, 1, 0, pid),
            (RETURN, 0, 0, ERRNO | errno.EPERM),
            (RETURN, 0, 0, ALLOW),
        ]
    # A thread shares memory, a process does not.
    program += [
        (EQUAL, 0, 4, calls.clone),
        (LOAD, 0, 0, ARGUMENTS),
        (ANY_BIT, 1, 0, CLONE_VM),
        (RETURN, 0, 0, ERRNO | errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    for number, flags in calls.opens:
        program += [
            (EQUAL, 0, 4, number),
            (LOAD, 0, 0, ARGUMENTS + 8 * flags),
            (ANY_BIT, 0, 1, WRITING),
            (RETURN, 0, 0, ERRNO | errno.EACCES),
            (RETURN, 0, 0, ALLOW),
        ]
    return [*program, (RETURN, 0, 0, ALLOW)]
