#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A job in the foreground of a shell on one terminal, checkpointed with --shell-job, goes on in that of another."""
import os
import signal
import subprocess
import sys
import termios
import time

CASE = sys.argv[1]
IMAGES = os.path.join(CASE, 'images')
JOB = '''
import sys, termios
open(sys.argv[1] + '/up', 'w').close()
for line in sys.stdin:
    echo = bool(termios.tcgetattr(0)[3] & termios.ECHO)
    print('heard', line.strip(), echo, open('/dev/tty') is not None, flush=True)
'''


class Shell:
    """A session with a terminal, whose leader runs a command as its foreground job and waits for it."""
    def __init__(self, command):
        self.master, slave = os.openpty()
        settings = termios.tcgetattr(slave)
        settings[3] |= termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.master)
            os.setsid()
            for fd in (0, 1, 2):
                os.dup2(slave, fd)
            import fcntl
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            job = os.fork()
            if job == 0:
                os.setpgid(0, 0)
                os.tcsetpgrp(0, os.getpid())
                signal.signal(signal.SIGTTOU, signal.SIG_DFL)
                os.execvp(command[0], command)
            with open(CASE + '/job', 'w') as file:
                file.write(str(job))
            os.waitpid(job, 0)
            time.sleep(60)
        os.close(slave)

    def reads(self, text):
        got = b''
        while text not in got:
            got += os.read(self.master, 1000)

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.master)


def main():
    os.mkdir(IMAGES)
    first = Shell([sys.executable, '-c', JOB, CASE])
    while not os.path.exists(CASE + '/up'):
        time.sleep(0.01)
    os.write(first.master, b'one\n')
    first.reads(b'heard one True True')
    with open(CASE + '/job') as file:
        pid = file.read()
    plain = subprocess.run(['criu', 'dump', '-t', pid, '-D', IMAGES, '-o', CASE + '/refused.log'], stdin=subprocess.DEVNULL, capture_output=True)
    assert plain.returncode != 0, 'a job was taken without --shell-job'
    subprocess.run(['criu', 'dump', '-t', pid, '-D', IMAGES, '-o', CASE + '/dump.log', '--shell-job'], check=True, stdin=subprocess.DEVNULL)
    first.end()
    second = Shell(['criu', 'restore', '-D', IMAGES, '-o', CASE + '/restore.log', '--shell-job'])
    os.write(second.master, b'two\n')
    second.reads(b'heard two True True')
    os.write(second.master, b'\x04')   # the end of its input ends it, and the engine with it
    while os.path.exists(f'/proc/{pid}'):
        time.sleep(0.01)
    second.end()


main()
