#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What somebody outside does to the tasks while the engine works, and whose children they become."""
import ctypes
import os
import signal
import socket
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
            for round_ in range(5):
                subject.images = os.path.join(directory, f'images{round_}')
                os.mkdir(subject.images)
                before = sent[0]
                good(subject.request(rpc.DUMP, lambda o: setattr(o, 'leave_running', True)), rpc.DUMP)
                check(sent[0] > before, 'nothing was sent meanwhile')
        finally:
            stop.set()
            sender.join()
        subject.program.finish(str(sent[0]))


CASES = [signals_during_dump]


if __name__ == '__main__':
    sys.exit(live.run_cases('tasks', CASES))
