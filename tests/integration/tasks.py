#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What somebody outside does to the tasks while the engine works, and whose children they become."""
import ctypes
import os
import signal
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'support'), os.path.join(HERE, '..', 'live')]
import rpc as door  # noqa: E402
import run as live  # noqa: E402
from stasis_test import tasks  # noqa: E402

rpc, check, Subject, good = door.rpc, live.check, door.Subject, door.good
SIGRTMIN = 34   # as the C library counts
libc = ctypes.CDLL(None, use_errno=True)
libc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]


def signals_during_dump(directory):
    """A stream of numbered signals while the process is checkpointed and runs on, several times: each comes once."""
    with Subject(directory, 'signal_queue') as subject:
        sent, stop = [0], threading.Event()

        def send():
            while not stop.is_set():
                if libc.sigqueue(subject.program.pid, SIGRTMIN + 1, sent[0]) == 0:
                    sent[0] += 1
        sender = threading.Thread(target=send)
        sender.start()
        try:
            for round_ in range(20):
                subject.images = os.path.join(directory, f'images{round_}')
                os.mkdir(subject.images)
                before = sent[0]
                good(subject.request(rpc.DUMP, lambda o: setattr(o, 'leave_running', True)), rpc.DUMP)
                check(sent[0] > before, 'nothing was sent meanwhile')
        finally:
            stop.set()
            sender.join()
        subject.program.finish(str(sent[0]))


def dumped(subject):
    good(subject.request(rpc.DUMP), rpc.DUMP)
    subject.gone()


def sibling_and_parent_death(directory):
    """The root is the client's child: the end of the engine is nothing to it, and the client is told of its end."""
    for way in ('rpc', 'cli'):
        inner = os.path.join(directory, way)
        os.mkdir(inner)
        with Subject(inner, 'parent_death') as subject:
            dumped(subject)
            if way == 'rpc':
                subject.restored(subject.request(rpc.RESTORE, lambda o: setattr(o, 'rst_sibling', True)))
            else:
                pidfile = os.path.join(inner, 'pid')
                done = subprocess.run([live.ENGINE, 'restore', '-d', '--restore-sibling', '-D', subject.images, '-o', 'restore.log', '--pidfile', pidfile],
                                      stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=live.HANG)
                check(done.returncode == 0, f'restore: {done.stderr}')
                subject.program.pid = int(tasks.read(pidfile))
                subject.program.pids.append(subject.program.pid)
            check(tasks.stat_of(subject.program.pid)[1] == str(os.getpid()), f'{way}: the root is not a child of the client')
            with open(subject.program.go + '.new', 'w') as file:
                file.write('kept')
            os.rename(subject.program.go + '.new', subject.program.go)
            live.until(lambda: tasks.stat_of(subject.program.pid)[0] == 'Z', 'the program does not end')
            check(os.waitpid(subject.program.pid, 0)[1] == 0, f'{way}: the root ended badly')
            check(tasks.read(subject.program.result) == 'ok', tasks.read(subject.program.result))


def exec_cmd_and_parent_death(directory):
    with Subject(directory, 'parent_death') as subject:
        dumped(subject)
        pidfile = os.path.join(directory, 'pid')
        engine = subprocess.Popen([live.ENGINE, 'restore', '-D', subject.images, '-o', 'restore.log', '--pidfile', pidfile, '--exec-cmd', '--',
                                   '/bin/sleep', '54323'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            live.until(lambda: b'54323' in open(f'/proc/{engine.pid}/cmdline', 'rb').read() and tasks.read(pidfile) and
                       b'stasis' not in open(f'/proc/{engine.pid}/cmdline', 'rb').read(), 'the engine does not become the command')
            subject.program.pid = int(tasks.read(pidfile))
            subject.program.pids.append(subject.program.pid)
            with open(subject.program.go + '.new', 'w') as file:
                file.write('kept')
            os.rename(subject.program.go + '.new', subject.program.go)
            live.until(lambda: tasks.read(subject.program.result), 'no result')
            check(tasks.read(subject.program.result) == 'ok', tasks.read(subject.program.result))
        finally:
            engine.kill()
            engine.wait()


def sibling_dies_during_restore(directory):
    """Killed between two stages: the engine says so, and the client, its parent, gets its status, once."""
    for number, script in enumerate(('post-restore', 'pre-resume')):
        inner = os.path.join(directory, str(number))
        os.mkdir(inner)
        with Subject(inner, 'process_tree') as subject:
            dumped(subject)
            killed = []

            def kill(name, pid, at=script):
                killed.extend([pid] if name == 'post-restore' else [])
                if name == at:
                    os.kill(killed[0], signal.SIGKILL)
                    live.until(lambda: tasks.stat_of(killed[0])[0] == 'Z', 'the root does not die')
            answer = subject.request(rpc.RESTORE, lambda o: setattr(o, 'rst_sibling', True), on_notify=kill)
            door.refused(answer, 'STASIS-E-TASK-GONE')
            pid, status = os.waitpid(killed[0], 0)
            check(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f'{script}: wait status {status:#x}')
            subject.gone()
            subject.restored(subject.request(rpc.RESTORE, lambda o: setattr(o, 'rst_sibling', True)))
            subject.program.finish()


CASES = [signals_during_dump, sibling_and_parent_death, exec_cmd_and_parent_death, sibling_dies_during_restore]


if __name__ == '__main__':
    sys.exit(live.run_cases('tasks', CASES))
