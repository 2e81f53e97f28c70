"""Reads that fail as on a dying disk or a share that went away: the kernel answers so, for this process from now on."""

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
"""Where the number of the call, and its fourth argument, are in what the filter sees."""


def fail_reads(first_byte: int, number: int) -> None:
    """Let every read at or after a byte of any file fail with an error number, for the rest of this process."""
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
