#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Unix sockets whose other end is outside the container, and names that are taken when it comes back."""
import os
import socket
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'support'), os.path.join(HERE, '..', 'live')]
import rpc as door  # noqa: E402
import run as live  # noqa: E402
from stasis_test import rpc as swrk  # noqa: E402
from stasis_test import tasks  # noqa: E402
from stasis_test.host_task import Task  # noqa: E402

rpc, check, good = door.rpc, live.check, door.good
STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM

def bound(kind, path):
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(path)
    made.settimeout(live.HANG)
    return made


def inode(pid, wanted=0):
    """Of the only socket of a process that is connected."""
    found = [os.readlink(f'/proc/{pid}/fd/{fd}') for fd in os.listdir(f'/proc/{pid}/fd')]
    sockets = [link[8:-1] for link in found if link.startswith('socket:[')]
    check(len(sockets) == wanted + 1, f'sockets {sockets}')
    return sockets[0]


TO_LOG = '''
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.connect({path!r})
log.send(b'before')
wait()
log.send(b'after')
'''


def datagrams_to_outside(directory):
    """A client of a named socket outside (as /dev/log): refused, unless --ext-unix-sk is given, here and on restore."""
    path = os.path.join(directory, 'log')
    for name in (path, f'\0stasis-unix-{os.getpid()}'):
        inner = os.path.join(directory, 'path' if name == path else 'abstract')
        os.mkdir(inner)
        with bound(DGRAM, name) as log, Task(inner, TO_LOG.format(path=name)) as task:
            check(log.recv(100) == b'before', 'the program sends something else')
            shown = name.replace('\0', '@')
            task.refused('dump', ['STASIS-E-UNSUPPORTED-FILE', f'socket:[{inode(task.pid)}]', shown, '--ext-unix-sk'], '-t', str(task.pid))
            task.dump('--ext-unix-sk')
            task.refused('restore', ['STASIS-E-BAD-OPTION', shown, '--ext-unix-sk'], '-d')
            task.restore('--ext-unix-sk')
            task.finish()
            check(log.recv(100) == b'after', 'what was sent after the restore')


def datagrams_to_outside_by_rpc(directory):
    path = os.path.join(directory, 'log')
    with bound(DGRAM, path) as log, Task(directory, TO_LOG.format(path=path)) as task:
        log.recv(100)
        with swrk.Directory(task.images) as images:
            def fill(message):
                message.opts.pid, message.opts.images_dir_fd = task.pid, images
                message.opts.log_file, message.opts.ext_unix_sk = 'rpc.log', True
            good(door.ask(rpc.DUMP, fill), rpc.DUMP)
        task.process.wait()
        task.restore('--ext-unix-sk')
        task.finish()
        check(log.recv(100) == b'after', 'what was sent after the restore')


TO_SERVER = '''
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
server.send(b'before')
wait()
server.send(b'after')
assert server.recv(100) == b'answer'
'''


def stream_to_outside(directory):
    """A connection to somebody outside: given up by --external, and another given by --inherit-fd."""
    path = os.path.join(directory, 'server')
    with bound(STREAM, path) as server:
        server.listen()
        with Task(directory, TO_SERVER.format(path=path)) as task:
            connection = server.accept()[0]
            number = inode(task.pid)
            pid = ['-t', str(task.pid)]
            task.refused('dump', ['STASIS-E-UNSUPPORTED-FILE', f'socket:[{number}]', path, f'--external unix[{number}]'], *pid)
            task.refused('dump', ['STASIS-E-UNSUPPORTED-FILE', f'--external unix[{number}]'], *pid, '--ext-unix-sk')
            task.dump('--external', f'unix[{number}]')
            connection.close()
            task.refused('restore', ['STASIS-E-BAD-OPTION', f'--inherit-fd fd[N]:socket:[{number}]'], '-d')
            ours, theirs = socket.socketpair()
            ours.settimeout(live.HANG)
            with ours, theirs:
                task.restore('--inherit-fd', f'fd[{theirs.fileno()}]:socket:[{number}]', fds=[theirs.fileno()])
                ours.send(b'answer')
                task.finish()
                check(ours.recv(100) == b'after', 'what was sent after the restore')


LISTENING = '''
server = socket.socket(socket.AF_UNIX)
server.bind({path!r})
server.listen()
wait()
client = socket.socket(socket.AF_UNIX)
client.connect({path!r})
connection = server.accept()[0]
client.send(b'x')
assert connection.recv(1) == b'x'
'''


def name_is_taken(directory):
    """What lies at the socket's path now is left alone unless it is a socket that nobody has open."""
    path = os.path.join(directory, 'server')
    with Task(directory, LISTENING.format(path=path)) as task:
        task.dump()
        check(os.path.exists(path), 'the dump took the file away')
        for kind in (STREAM, DGRAM):
            os.unlink(path)
            with bound(kind, path) as stranger:
                task.refused('restore', ['STASIS-E-RESTORE-FAILED', path, 'belongs to a running process'], '-d')
                check(stranger.getsockname() == path and os.path.exists(path), 'the socket of somebody else has gone')
        os.unlink(path)
        with open(path, 'w') as file:
            file.write('precious')
        task.refused('restore', ['STASIS-E-RESTORE-FAILED', path, 'no socket'], '-d')
        check(tasks.read(path) == 'precious', 'the file has changed')
        os.unlink(path)
        bound(DGRAM, path).close()
        task.restore()
        task.finish()


def abstract_name_is_taken(directory):
    name = f'\0stasis-unix-{os.getpid()}'
    with Task(directory, LISTENING.format(path=name)) as task:
        task.dump()
        with bound(STREAM, name):
            task.refused('restore', ['STASIS-E-RESTORE-FAILED', name.replace('\0', '@'), 'another socket has this name'], '-d')
        task.restore()
        task.finish()


def client_outside_waits(directory):
    """Somebody outside has connected and is not accepted yet: refused by name, and he is not disturbed."""
    path = os.path.join(directory, 'server')
    body = LISTENING.format(path=path).replace('client = ', 'assert server.accept()[0].recv(100) == b"early"\nclient = ')
    with Task(directory, body) as task, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.send(b'early')
        task.refused('dump', ['STASIS-E-UNSUPPORTED-FILE', path, 'not yet accepted', 'outside the container'], '-t', str(task.pid))
        task.finish()


CASES = [datagrams_to_outside, datagrams_to_outside_by_rpc, stream_to_outside, name_is_taken, abstract_name_is_taken, client_outside_waits]


if __name__ == '__main__':
    sys.exit(live.run_cases('unix', CASES))
