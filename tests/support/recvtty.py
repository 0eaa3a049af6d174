#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""recvtty.py SOCKET OUTPUT: listens on a console socket, takes one terminal master and copies what it shows to OUTPUT."""
import array
import os
import socket
import sys

path, output = sys.argv[1:]
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(path)
server.listen(1)
connection, _ = server.accept()
payload, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
fds = array.array('i')
fds.frombytes(ancillary[0][2][:4])
with open(output, 'wb', buffering=0) as out:
    while True:
        try:
            data = os.read(fds[0], 4096)
        except OSError:
            break
        if not data:
            break
        out.write(data)
