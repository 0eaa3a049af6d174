# SPDX-License-Identifier: Apache-2.0
"""A client of the swrk protocol, as runc is one: one engine process per request, notifications acknowledged.
Messages are Debian's pycriu descriptors, so that ours are checked against somebody else's."""
import array
import os
import socket
import subprocess
import sys

sys.path.append('/usr/lib/python3/dist-packages')
from pycriu import rpc_pb2 as rpc  # noqa: E402


class Answer:
    def __init__(self):
        self.response = None      # the final criu_resp, None if the engine went away
        self.notifications = []   # (script, pid)
        self.fds = []             # descriptors that came with orphan-pts-master
        self.status = None        # exit status of the engine

    @property
    def ok(self):
        return self.response is not None and self.response.success


def request(engine, message, nack=None, hang_up_at=None, on_notify=None, env=None, timeout=120):
    """Sends one criu_req (or raw bytes) to a fresh `engine swrk FD`. `nack`: the notification that is refused;
    `hang_up_at`: the one at which the client goes away."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(timeout)
    given = [] if isinstance(message, bytes) else [each.fd for each in message.opts.inherit_fd]
    process = subprocess.Popen([engine, 'swrk', str(theirs.fileno())], pass_fds=[theirs.fileno(), *given], env=env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    theirs.close()
    answer = Answer()
    try:
        ours.send(message if isinstance(message, bytes) else message.SerializeToString())
        while True:
            data, ancillary, _, _ = ours.recvmsg(65536, socket.CMSG_SPACE(16))
            if not data:
                break
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds = array.array('i')
                    fds.frombytes(content[:len(content) - len(content) % fds.itemsize])
                    answer.fds.extend(fds)
            response = rpc.criu_resp()
            response.ParseFromString(data)
            if response.type != rpc.NOTIFY:
                answer.response = response
                break
            script = response.notify.script
            answer.notifications.append((script, response.notify.pid))
            if on_notify:
                on_notify(script, response.notify.pid)
            if script == hang_up_at:
                break
            ours.send(rpc.criu_req(type=rpc.NOTIFY, notify_success=script != nack).SerializeToString())
    except (OSError, EOFError) as error:
        answer.error = error
    ours.close()
    try:
        answer.status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        answer.status = 'hangs'
    return answer


class Directory:
    """An open directory descriptor; the engine opens it through /proc/PID/fd/N."""
    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self):
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)
