#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""device_filter.py DIR MAJOR MINOR: forbids one character device to a cgroup of the v2 hierarchy, as runtimes do it: by a
BPF program. DIR calls: one that forbids nothing and calls into the kernel. DIR: prints how many such programs the cgroup
has. Status 77: not on this kernel."""
import ctypes
import errno
import os
import struct
import sys

BPF_SYSCALL, PROG_LOAD, PROG_ATTACH, PROG_QUERY = 321, 5, 8, 16
PROG_TYPE_CGROUP_DEVICE, ATTACH_CGROUP_DEVICE, ALLOW_MULTI = 15, 6, 2
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b'\0'), 128)
    result = libc.syscall(BPF_SYSCALL, command, buffer, 128)
    if result < 0:
        code = ctypes.get_errno()
        print(f'bpf({command}): {os.strerror(code)}', file=sys.stderr)
        sys.exit(77 if code in (errno.EPERM, errno.EINVAL, errno.ENOSYS) else 1)
    return result, buffer.raw


def instruction(code, registers=0, offset=0, value=0):
    return struct.pack('<BBhi', code, registers, offset, value)


def main():
    directory = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
    if len(sys.argv) == 2:
        print(struct.unpack_from('<I', bpf(PROG_QUERY, struct.pack('<IIIIQI', directory, ATTACH_CGROUP_DEVICE, 0, 0, 0, 0))[1], 24)[0])
        return
    calls = b''.join([instruction(0x85, 0, 0, 15), instruction(0xb7, 0x00, 0, 1), instruction(0x95)])
    program = calls if sys.argv[2] == 'calls' else b''.join([
        instruction(0x61, 0x12, 4),                       # r2 = major
        instruction(0x61, 0x13, 8),                       # r3 = minor
        instruction(0xb7, 0x00, 0, 1),                    # r0 = 1: allowed
        instruction(0x55, 0x02, 2, int(sys.argv[2])),     # another major
        instruction(0x55, 0x03, 1, int(sys.argv[3])),     # another minor
        instruction(0xb7, 0x00, 0, 0),
        instruction(0x95)])
    text, license_ = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b'GPL')
    loaded = struct.pack('<IIQQ', PROG_TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(text), ctypes.addressof(license_))
    bpf(PROG_ATTACH, struct.pack('<IIII', directory, bpf(PROG_LOAD, loaded)[0], ATTACH_CGROUP_DEVICE, ALLOW_MULTI))


main()
