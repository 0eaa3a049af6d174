#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sockets of the network and descriptors in trouble: a peer that never stops sending, a port that somebody has taken, an
engine without rights, a descriptor table that is full."""
import os
import socket
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'support'), os.path.join(HERE, '..', 'live')]
import run as live  # noqa: E402
from stasis_test import tasks  # noqa: E402
from stasis_test.host_task import Task  # noqa: E402

check = live.check

# Takes one connection of the listener that it is given as descriptor 3, and says which number the next byte must have.
TAKER = '''
server = socket.socket(fileno={fd})
client = server.accept()[0]
server.close()
def take(count):
    data = b''
    while len(data) < count:
        data += client.recv(count - len(data))
    return data
'''


class Listener:
    """Of the test, given to the program, with a client of the test."""

    def __init__(self, host='127.0.0.1'):
        self.socket = socket.create_server((host, 0))
        self.address = self.socket.getsockname()
        os.set_inheritable(self.socket.fileno(), True)

    def start(self, directory, body):
        task = Task(directory, TAKER.format(fd=self.socket.fileno()) + body, pass_fds=[self.socket.fileno()], connect=self.connect)
        return task

    def connect(self):
        self.client = socket.create_connection(self.address, timeout=live.HANG)
        self.socket.close()


def peer_keeps_sending(directory):
    """Nothing of it is lost or doubled, though its queue is full whenever the program stands still."""
    body = '''
expected = 0
open('ready', 'w').close()
while not os.path.exists('go'):
    for byte in take(4096):
        assert byte == expected % 251, (byte, expected)
        expected += 1
client.sendall(b'%20d' % expected)
while client.recv(1 << 16):
    pass
'''
    server = Listener()
    with server.start(directory, body) as task:
        sent, stop, broken = [0], threading.Event(), []

        def send():
            number = 0
            try:
                while not stop.is_set():
                    block = bytes((number + i) % 251 for i in range(4096))
                    server.client.sendall(block)
                    number += len(block)
            except OSError as error:
                broken.append(error)
            sent[0] = number
        thread = threading.Thread(target=send)
        thread.start()
        try:
            for _ in range(3):
                task.dump()
                task.restore()
            open(os.path.join(directory, 'go'), 'w').close()
            seen = int(server.client.recv(20, socket.MSG_WAITALL))
        finally:
            stop.set()
            if broken:
                server.client.close()
            thread.join()
        check(not broken, f'the peer saw {broken}')
        check(0 < seen <= sent[0] and seen % 4096 == 0, f'{seen} bytes were taken of {sent[0]}')
        server.client.close()
        task.finish()


def port_is_taken(directory):
    """The restore says which address; when it is free again the same images are restored."""
    body = '''
server = socket.create_server(('127.0.0.1', 0))
with open('port', 'w') as file:
    file.write(str(server.getsockname()[1]))
wait()
client = server.accept()[0]
client.sendall(client.recv(5))
'''
    with Task(directory, body) as task:
        address = ('127.0.0.1', int(tasks.read(os.path.join(directory, 'port'))))
        task.dump()
        with socket.create_server(address):
            task.refused('restore', ['STASIS-E-RESTORE-FAILED', f'{address[0]}:{address[1]}', 'in use'], '-d')
            check(not tasks.exists(task.pid), 'a task is left of the restore that failed')
        task.restore()
        with socket.create_connection(address, timeout=live.HANG) as client:
            client.sendall(b'hello')
            open(os.path.join(directory, 'go'), 'w').close()
            check(client.recv(5, socket.MSG_WAITALL) == b'hello', 'the server does not answer')
        task.finish()


def no_right_to_administrate_the_network(directory):
    """Connections cannot be had without CAP_NET_ADMIN: that is said, of dump and of restore, and nothing happens."""
    body = '''
wait()
assert take(5) == b'hello'
client.sendall(b'world')
'''
    without = ['/usr/bin/setpriv', '--bounding-set=-net_admin', '--inh-caps=-net_admin']
    server = Listener()
    with server.start(directory, body) as task:
        task.refused('dump', ['STASIS-E-PERMISSION', 'CAP_NET_ADMIN', 'TCP'], '-t', str(task.pid), wrapper=without)
        task.dump()
        task.refused('restore', ['STASIS-E-PERMISSION', 'CAP_NET_ADMIN'], '-d', wrapper=without)
        check(not tasks.exists(task.pid), 'a task is left of the restore that failed')
        task.restore()
        server.client.sendall(b'hello')
        open(os.path.join(directory, 'go'), 'w').close()
        check(server.client.recv(5, socket.MSG_WAITALL) == b'world', 'the connection is not alive')
        task.finish()


def descriptor_table_is_full(directory):
    """Neither the dump nor the restore needs a descriptor of the task's."""
    body = '''
import resource
ends = os.pipe()
os.write(ends[1], b'kept')
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
while True:
    try:
        os.dup(0)
    except OSError:
        break
# wait() opens a file.
os.close(63)
wait()
os.dup(0)
try:
    os.dup(0)
    raise AssertionError('there is more room')
except OSError:
    pass
assert os.read(ends[0], 100) == b'kept' and resource.getrlimit(resource.RLIMIT_NOFILE) == (64, 64)
os.close(63)
'''
    with Task(directory, body) as task:
        for _ in range(2):
            task.dump('--leave-running')
            task.dump()
            task.restore()
        task.finish()


CASES = [peer_keeps_sending, port_is_taken, no_right_to_administrate_the_network, descriptor_table_is_full]


if __name__ == '__main__':
    sys.exit(live.run_cases('inet', CASES))
