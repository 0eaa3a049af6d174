#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A program that uses pycriu: the same words as libcriu_client.c."""
import os
import sys

sys.path.append('/usr/lib/python3/dist-packages')
import pycriu  # noqa: E402


def main(transport, path, command, images=None, pid=0):
    criu = pycriu.criu()
    if transport == 'swrk':
        criu.use_binary(path)
    else:
        criu.use_sk(path)
    if images:
        criu.opts.images_dir_fd = os.open(images, os.O_DIRECTORY)
    criu.opts.log_level = 4
    criu.opts.log_file = 'pycriu.log'
    if pid:
        criu.opts.pid = int(pid)
    try:
        if command == 'restore':
            criu.opts.rst_sibling = transport == 'swrk'
            print('restore', criu.restore().pid)
        else:
            {'check': criu.check, 'dump': criu.dump, 'pre-dump': criu.pre_dump}[command]()
            print(command, 0)
    except pycriu.CRIUException as error:
        print(command, 'failed:', error)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
