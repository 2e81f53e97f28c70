"""Lets reads of this process fail, as on a damaged disk or an unreachable share, by a filter in the kernel."""

from __future__ import annotations

import ctypes
import platform
import struct

PREAD = {"x86_64": (17, 295), "aarch64": (67, 69)}
"""Numbers of the system calls ``pread64`` and ``preadv``."""
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER_MODE = 22, 38, 2
LOAD, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER_AT, OFFSET_AT = 0, 16 + 3 * 8
"""Offsets of the number of the system call and of its fourth argument in the data that the filter sees [bytes]."""


def fail_reads(first_byte: int, number: int) -> None:
    """Let every positioned read at or after an offset fail, in all files and until this process ends.

    Parameters
    ----------
    first_byte
        Offset in the file from which on reads fail [bytes].
    number
        The error number, such as `errno.EIO`.
    """
    pread, preadv = PREAD[platform.machine()]
    program = [
        (LOAD, 0, 0, NUMBER_AT),
        (JUMP_IF_EQUAL, 2, 0, pread),
        (JUMP_IF_EQUAL, 1, 0, preadv),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, OFFSET_AT),
        (JUMP_IF_AT_LEAST, 0, 1, first_byte),
        (RETURN, 0, 0, ERRNO | number),
        (RETURN, 0, 0, ALLOW),
    ]
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, FILTER_MODE, header, 0, 0):
        raise OSError(ctypes.get_errno(), "the system does not take a filter")
