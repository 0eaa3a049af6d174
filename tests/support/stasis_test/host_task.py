# SPDX-License-Identifier: Apache-2.0
"""A Python program of the host, without a container, that is dumped and restored by the command line."""
import os
import signal
import subprocess

import run as live
from stasis_test import tasks

check = live.check

# PROGRAM DIRECTORY: says "ready", waits for "go", leaves its result in "done".
FRAME = '''
import os, socket, sys, time
os.chdir(sys.argv[1])
def wait():
    open('ready', 'w').close()
    while not os.path.exists('go'):
        time.sleep(0.01)
{body}
with open('done.new', 'w') as file:
    file.write('ok')
os.rename('done.new', 'done')
'''


class Task:
    """A process of the host in a session of its own, which is dumped and restored by the command line."""

    def __init__(self, directory, body, pass_fds=(), connect=lambda: None):
        self.directory, self.pids = directory, []
        self.images = os.path.join(directory, 'images')
        os.mkdir(self.images)
        with open(os.path.join(directory, 'program.py'), 'w') as file:
            file.write(FRAME.format(body=body))
        self.process = subprocess.Popen(['/usr/bin/python3', os.path.join(directory, 'program.py'), directory], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, pass_fds=pass_fds)
        self.pid = self.process.pid
        self.pids.append(self.pid)
        connect()
        live.until(lambda: os.path.exists(os.path.join(directory, 'ready')), 'the program is not ready')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()

    def engine(self, command, *options, fds=(), wrapper=()):
        return subprocess.run([*wrapper, live.ENGINE, command, '-D', self.images, '-o', f'{command}.log', *options], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=live.HANG, pass_fds=fds)

    def dump(self, *options):
        done = self.engine('dump', '-t', str(self.pid), *options)
        check(done.returncode == 0, f'dump: {done.stderr}')
        if '--leave-running' not in options:
            live.until(lambda: live.reap() or not tasks.exists(self.pids[-1]), 'the dumped program does not go')

    def restore(self, *options, fds=()):
        pidfile = os.path.join(self.directory, 'pid')
        done = self.engine('restore', '-d', '--pidfile', pidfile, *options, fds=fds)
        check(done.returncode == 0, f'restore: {done.stderr}')
        self.pids.append(int(tasks.read(pidfile)))
        os.unlink(pidfile)

    def refused(self, command, texts, *options, wrapper=()):
        done = self.engine(command, *options, wrapper=wrapper)
        said = done.stderr + tasks.read(os.path.join(self.images, f'{command}.log'))
        check(done.returncode != 0, f'{command} {options} should have failed')
        for text in texts:
            check(text in said, f'{command} {options}: no "{text}" in {done.stderr}')

    def finish(self):
        open(os.path.join(self.directory, 'go'), 'w').close()
        live.until(lambda: tasks.read(os.path.join(self.directory, 'done')), 'the program does not end')
        live.until(lambda: not tasks.exists(self.pids[-1]) or tasks.stat_of(self.pids[-1])[0] == 'Z', 'the program does not go')
