#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every live program: start, look, checkpoint, see that it is gone, restore, look again, let it verify itself.
PROGRAM x {host, ns, userns} x {cli, rpc} x {once, twice}, --leave-running, cgroup roots, and a table of refusals.
One line per test: "ok NAME", "FAIL NAME: reason", "skip NAME: reason"."""
import argparse
import contextlib
import ctypes
import glob
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'support'))
from stasis_test import rpc as swrk  # noqa: E402
from stasis_test import tasks  # noqa: E402
from stasis_test.refusals import REFUSALS  # noqa: E402

BUILD = os.environ.get('STASIS_BUILD', 'build')
ENGINE = os.environ.get('STASIS_CRIU', os.path.join(BUILD, 'libexec/stasis/criu'))
LIVE = os.path.join(BUILD, 'live')
HANG = int(os.environ.get('STASIS_TEST_HANG', '60'))   # seconds; only ends what hangs
NEEDS_NAMESPACES = {'ns_uts', 'ns_ipc', 'ns_mounts', 'ns_net', 'sysv_shm', 'sysv_queues', 'message_queues', 'ping_socket'}
NOT_IN_NAMESPACES = {'threads_dynamic', 'rseq_dynamic',   # the root they get there has no libraries
                     'parent_death'}                      # ns_launch ends at once
LONG = {'many_threads'}   # once is enough
MOVING = {'accept_queue'}   # open and close descriptors all the time
NEEDS_USER_NAMESPACE = {'ns_user'}
# flavour: (words for ns_launch, owner of the root directory)
FLAVOURS = {'host': None, 'ns': ([], (0, 0)), 'userns': (['user'], (100000, 200000)), 'few-ids': (['few'], (100005, 200005)),
            'time': (['time'], (0, 0)), 'user-time': (['user', 'time'], (100000, 200000))}
# What runs in the flavours that are for one thing only.
ONLY = {'few-ids': {'process_tree', 'threads', 'umask'}, 'time': {'timens', 'itimers', 'syscall_restart', 'timerfd'}, 'user-time': {'timens', 'process_tree', 'timerfd'}}
DEVICES_ARE_BINDS = {'userns', 'few-ids', 'user-time'}
NEEDS_HUGE_PAGES = {'hugetlb': 16}
HUGE_PAGES = '/proc/sys/vm/nr_hugepages'
SPECIAL = {'cgroup', 'external_tty', 'refused', 'ns_launch', 'vfork'}
NOT_FOR_PEER = {'copy_on_write', 'ia32'}   # the images of each say in another way, or not at all, what is shared
CLONE_NEWNS, CLONE_NEWNET, PR_SET_CHILD_SUBREAPER = 0x20000, 0x40000000, 36
libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Failed(message)


def until(condition, message):
    end = time.monotonic() + HANG
    while not condition():
        if time.monotonic() > end:
            raise Failed(f'{message} (gave up waiting)')
        time.sleep(0.005)


def reap():
    """Orphans of what was started come to us; what was dumped must not stay a zombie, or its pid would be taken."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def tail(path):
    """The lines of a log that say what went wrong."""
    lines = tasks.read(path).splitlines()
    wrong = [line for line in lines if 'rror' in line or 'STASIS-E' in line]
    return ' | '.join((wrong or lines)[-3:])[-500:]


@contextlib.contextmanager
def huge_pages(name):
    """The host's pool of huge pages is made large enough for the program, and what it was afterwards."""
    before = tasks.read(HUGE_PAGES).strip()
    wanted = NEEDS_HUGE_PAGES.get(name, 0)
    if not before or int(before) >= wanted:
        yield
        return
    try:
        with open(HUGE_PAGES, 'w') as file:
            file.write(str(wanted))
        yield
    finally:
        with open(HUGE_PAGES, 'w') as file:
            file.write(before)


class Program:
    """One live program, started, in a directory of its own."""
    def __init__(self, name, flavour, directory, arguments=(), before_exec=None):
        self.name, self.flavour, self.directory = name, flavour, directory
        self.root = None
        if flavour != 'host':
            self.root = os.path.join(directory, 'root')
            inside = os.path.join(self.root, 'live')
            os.makedirs(inside)
            shutil.copy(os.path.join(LIVE, name), os.path.join(inside, 'program'))
            check(libc.mount(self.root.encode(), self.root.encode(), None, 4096, None) == 0, 'bind mount of the root')
            files = '/live'
            words, owner = FLAVOURS[flavour]
            for path in (self.root, inside, os.path.join(inside, 'program')):
                os.chown(path, *owner)
            command = [os.path.join(LIVE, 'ns_launch'), self.root, *words, '--', '/live/program']
        else:
            inside = files = directory
            command = [os.path.join(LIVE, name)]
        self.ready, self.go, self.result = (os.path.join(inside, f) for f in ('ready', 'go', 'result'))
        command += [f'{files}/{f}' for f in ('ready', 'go', 'result')] + list(arguments)
        if flavour != 'host':
            launched = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG)
            check(launched.returncode == 0, f'ns_launch: {launched.stderr.strip()}')
            self.pid = int(launched.stdout)
        else:
            self.pid = subprocess.Popen(command, cwd=directory, start_new_session=True, preexec_fn=before_exec, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid
        self.pids = [self.pid]
        until(lambda: os.path.exists(self.ready) or not self.alive(), 'not ready')
        if not self.alive() and os.path.exists(self.result):
            tasks.kill_started_with(self.ready)
            raise Failed(f'before any checkpoint: {tasks.read(self.result)}')

    def must_be_there(self):
        if not self.alive() and not os.path.exists(self.result):
            raise Skipped('this machine does not have it')

    def alive(self):
        reap()
        return tasks.exists(self.pid)

    def look(self):
        tasks.settle(self.pid)
        self.pids = tasks.tree(self.pid)
        found = tasks.snapshot(self.pid)
        for task in found.values() if self.name in MOVING else ():
            task.pop('fds', None)
        return found

    def gone(self):
        reap()
        return not any(tasks.exists(pid) for pid in self.pids)

    def finish(self, text=''):
        with open(self.go + '.new', 'w') as file:
            file.write(text)
        os.rename(self.go + '.new', self.go)
        until(lambda: not self.alive(), 'the program does not end')
        said = tasks.read(self.result)
        check(said == 'ok', said or 'the program ended without a word')

    def clean(self):
        for pid in reversed(sorted(set(self.pids + (tasks.tree(self.pid) if tasks.exists(self.pid) else [])))):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        end = time.monotonic() + 10
        while not self.gone() and time.monotonic() < end:
            time.sleep(0.01)
        if self.root:
            libc.umount2(self.root.encode(), 2)


class Cli:
    name = 'cli'

    def __init__(self, dumps=ENGINE, restores=ENGINE):
        self.dumps, self.restores = dumps, restores

    @staticmethod
    def run(arguments, images, log, engine=ENGINE):
        done = subprocess.run([engine, *arguments, '-D', images, '-o', log, '-v4'], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=HANG * 2)
        return done, f'{(done.stderr or done.stdout).strip()[-300:]} {tail(os.path.join(images, log))}'

    def dump(self, program, images, options):
        arguments = ['dump', '-t', str(program.pid)] + options.get('cli dump', [])
        if program.flavour != 'host':
            arguments += ['--empty-ns', 'net']
        if program.flavour in DEVICES_ARE_BINDS:   # the device nodes are binds of the host's
            arguments += ['--external', 'mnt[]']
        if options.get('leave running'):
            arguments.append('--leave-running')
        done, why = self.run(arguments, images, 'dump.log', self.dumps)
        check(done.returncode == 0, f'dump: status {done.returncode}: {why}')

    def restore(self, program, images, options):
        pidfile = os.path.join(program.directory, 'pidfile')
        if os.path.exists(pidfile):
            os.unlink(pidfile)
        arguments = ['restore', '-d', '--pidfile', pidfile] + options.get('cli restore', [])
        if program.flavour != 'host':
            arguments += ['--empty-ns', 'net', '--root', program.root]
        if program.flavour in DEVICES_ARE_BINDS:
            arguments += ['--external', 'mnt[]']
        done, why = self.run(arguments, images, 'restore.log', self.restores)
        check(done.returncode == 0, f'restore: status {done.returncode}: {why}')
        return int(tasks.read(pidfile))


class Rpc:
    name = 'rpc'

    def __init__(self, restores=ENGINE):
        self.restores = restores

    @staticmethod
    def call(kind, images, fill, engine=ENGINE):
        with swrk.Directory(images) as fd:
            message = swrk.rpc.criu_req(type=kind)
            message.opts.images_dir_fd = fd
            message.opts.log_level = 4
            message.opts.log_file = 'dump.log' if kind == swrk.rpc.DUMP else 'restore.log'
            message.opts.notify_scripts = True
            fill(message.opts)
            answer = swrk.request(engine, message)
        said = answer.response.cr_errmsg if answer.response else f'no answer, engine status {answer.status}'
        check(answer.ok, f'{message.opts.log_file}: {said} {tail(os.path.join(images, message.opts.log_file))}')
        check(answer.status == 0, f'the engine answered well and ended with status {answer.status}')
        return answer

    def dump(self, program, images, options):
        def fill(opts):
            opts.pid = program.pid
            opts.leave_running = bool(options.get('leave running'))
            if program.flavour != 'host':
                opts.empty_ns = CLONE_NEWNET
            opts.auto_ext_mnt = program.flavour in DEVICES_ARE_BINDS
            options.get('rpc dump', lambda _: None)(opts)
        answer = self.call(swrk.rpc.DUMP, images, fill)
        check(answer.response.HasField('dump'), 'the answer to DUMP has no dump message')
        names = [script for script, _ in answer.notifications]
        check(names[:1] == ['pre-dump'] and 'post-dump' in names, f'notifications: {names}')

    def restore(self, program, images, options):
        def fill(opts):
            if program.flavour != 'host':
                opts.empty_ns = CLONE_NEWNET
                opts.root = program.root
            opts.auto_ext_mnt = program.flavour in DEVICES_ARE_BINDS
            options.get('rpc restore', lambda _: None)(opts)
        answer = self.call(swrk.rpc.RESTORE, images, fill, self.restores)
        pids = {script: pid for script, pid in answer.notifications}
        pid = answer.response.restore.pid
        check(list(pids)[:1] == ['pre-restore'] and pids.get('post-restore') == pid, f'notifications {answer.notifications}, pid {pid}')
        return pid


def checkpoint_and_restore(program, door, times, options):
    for round_ in range(times):
        images = os.path.join(program.directory, f'images{round_}')
        os.mkdir(images)
        before = program.look()
        door.dump(program, images, options)
        check(os.path.exists(os.path.join(images, 'inventory.img')), 'no inventory.img after a good dump')
        if options.get('leave running'):
            check(program.alive(), 'the program is gone in spite of leave-running')
        else:
            until(program.gone, 'tasks are left after dump')
            options.get('between', lambda: None)()
            program.pid = door.restore(program, images, options)
            program.pids.append(program.pid)
        options.get('settle', lambda: None)()
        wanted = options.get('expect', lambda s: s)(before)
        end = time.monotonic() + HANG
        # A task that was stopped stops again as soon as it runs.
        while (differs := tasks.difference(wanted, program.look())) and 'state' in differs and time.monotonic() < end:
            time.sleep(0.01)
        check(not differs, f'after restore {round_ + 1}: {differs}' if not options.get('leave running') else differs)


def run_program(directory, name, flavour, door=None, times=0, options=None):
    with huge_pages(name):
        run_program_with_pages(directory, name, flavour, door, times, options)


def run_program_with_pages(directory, name, flavour, door, times, options):
    program = Program(name, flavour, directory)
    try:
        program.must_be_there()
        if door:
            checkpoint_and_restore(program, door, times, options)
        else:
            program.look()
        program.finish()
    finally:
        program.clean()


def run_interchange(directory, name, flavour, peer, direction):
    """One engine's images restored by the other; no failure where the peer fails with its own images."""
    options = {'cli dump': ['--shell-job'], 'cli restore': ['--shell-job']}
    for part in ('alone', 'both'):
        os.mkdir(os.path.join(directory, part))
    door = Cli(peer, ENGINE) if direction == 'from-peer' else Cli(ENGINE, peer)
    try:
        run_program(os.path.join(directory, 'both'), name, flavour, door, 1, options)
    except Failed as wrong:
        try:
            run_program(os.path.join(directory, 'alone'), name, flavour, Cli(peer, peer), 1, options)
        except Failed as why:
            raise Skipped(f'{peer} cannot by itself: {" ".join(str(why).split())[:200]}') from why
        raise wrong


# --- the engine on a host whose clocks are elsewhere: after a reboot, or another one.

def run_clocks(directory, flavour, door, shift):
    offsets = []
    for clock, name in ((time.CLOCK_MONOTONIC, '--monotonic'), (time.CLOCK_BOOTTIME, '--boottime')):
        now = int(time.clock_gettime(clock))
        offsets.append(f'{name} {-now // 2 if shift == "behind" else 1000000 + now}')
    engine = os.path.join(directory, 'engine')
    with open(engine, 'w') as script:
        script.write(f'#!/bin/sh\nexec unshare -T -f {" ".join(offsets)} {os.path.abspath(ENGINE)} "$@"\n')
    os.chmod(engine, 0o755)
    run_program(directory, 'timens', flavour, door(restores=engine), 2, {})


# --- refusals: what cannot be preserved is named, and the program is as it was.

def run_refusal(directory, kind, code, needles):
    program = Program('refused', 'host', directory, [kind])
    try:
        program.must_be_there()
        images = os.path.join(directory, 'images')
        os.mkdir(images)
        before = program.look()
        limit = ['--ghost-limit', '1M'] if 'deleted_large' in kind else []
        done, why = Cli.run(['dump', '-t', str(program.pid), *limit], images, 'dump.log')
        said = done.stderr + tasks.read(os.path.join(images, 'dump.log'))
        check(done.returncode == 1, f'dump of {kind} ended with status {done.returncode}: {why}')
        check(code in said, f'{code} is not in: {why}')
        for needle in needles:
            check(needle in said, f'"{needle}" is not in: {why}')
        left = [f for f in os.listdir(images) if f.endswith('.img') or f.startswith('.')]
        check(not left, f'left in the image directory: {left}')
        check(all(tasks.exists(pid) for pid in program.pids), 'tasks are gone after a refusal')
        differs = tasks.difference(before, program.look())
        check(not differs, f'changed by a refused dump: {differs}')
        for pid in program.pids:
            check(tasks.status_of(pid).get('TracerPid', '0') in ('0',) or kind.startswith('traced'), f'{pid} is still traced')
        program.finish()
    finally:
        program.clean()


# --- cgroup roots: the example of the issue, on this machine's hierarchies.

class Cgroups:
    def __init__(self, tag):
        self.tag = tag
        self.dirs = {}     # controllers -> mounted directory
        for line in tasks.read('/proc/self/mountinfo').splitlines():
            left, right = line.split(' - ', 1)
            kind, _, options = right.split()[:3]
            point, root = left.split()[4], left.split()[3]
            if kind == 'cgroup' and root == '/':
                names = [o for o in options.split(',') if o not in ('rw', 'ro', 'clone_children', 'xattr') and not o.startswith('release_agent')]
                self.dirs.setdefault(','.join(names), point)
            elif kind == 'cgroup2' and root == '/':
                self.dirs.setdefault('', point)

    def make(self, path):
        for point in self.dirs.values():
            os.mkdir(f'{point}/{path}')
        cpuset = self.dirs.get('cpuset')
        if cpuset:
            for file in ('cpuset.cpus', 'cpuset.mems'):
                with open(f'{cpuset}/{path}/{file}', 'w') as out:
                    out.write(tasks.read(f'{cpuset}/{file}'))

    def enter(self, path):
        for point in self.dirs.values():
            with open(f'{point}/{path}/cgroup.procs', 'w') as file:
                file.write('0')

    def left(self):
        return [d for point in self.dirs.values() for d in glob.glob(f'{point}/{self.tag}*')]

    def remove(self):
        end = time.monotonic() + 10
        while self.left() and time.monotonic() < end:
            reap()
            for directory in self.left():
                for inner, _, _ in os.walk(directory, topdown=False):
                    try:
                        os.rmdir(inner)
                    except OSError:
                        pass
            time.sleep(0.01)

    def wanted(self, default, overrides):
        lines = []
        for names in self.dirs:
            root = next((r for o, r in overrides.items() if set(names.split(',')) & set(o.split(','))), default)
            lines.append(f'{names}:/{root}')
        return lines


def run_cgroup_root(directory, door):
    tag = f'stasis-live-{os.getpid()}'
    groups = Cgroups(tag)
    if not groups.dirs:
        raise Skipped('no cgroup hierarchy is mounted')
    old, new, cpu, systemd = (f'{tag}-{x}' for x in 'cnsd')
    overrides = {'cpuacct,cpu': cpu, 'name=systemd': systemd}
    present = [o for o in overrides if any(set(o.split(',')) & set(n.split(',')) for n in groups.dirs)]
    roots = [f'/{new}'] + [f'{o}:/{overrides[o]}' for o in present]

    def fill_roots(opts):
        opts.manage_cgroups_mode = swrk.rpc.SOFT
        opts.cg_root.add(path=f'/{new}')
        for o in present:
            for controller in o.split(','):
                opts.cg_root.add(ctrl=controller, path=f'/{overrides[o]}')

    def fill_mode(opts):
        opts.manage_cgroups_mode = swrk.rpc.SOFT

    def cgroups_moved(before):
        for entry in before.values():
            entry.pop('cgroup', None)
        return before
    options = {'cli dump': ['--manage-cgroups'], 'cli restore': ['--manage-cgroups'] + [a for r in roots for a in ('--cgroup-root', r)],
               'rpc dump': fill_mode, 'rpc restore': fill_roots, 'between': groups.remove, 'expect': cgroups_moved}
    program = None
    try:
        groups.make(old)
        for controller, file, value in (('pids', 'pids.max', '77'), ('memory', 'memory.limit_in_bytes', '67108864'), ('cpu', 'cpu.shares', '345')):
            if controller in groups.dirs:
                with open(f'{groups.dirs[controller]}/{old}/{file}', 'w') as out:
                    out.write(value)
        program = Program('cgroup', 'host', directory, before_exec=lambda: groups.enter(old))
        checkpoint_and_restore(program, door, 1, options)
        for controller, root, file, value in (('pids', new, 'pids.max', '77'), ('memory', new, 'memory.limit_in_bytes', '67108864'),
                                              ('cpu', cpu, 'cpu.shares', '345')):
            if controller in groups.dirs:
                now = tasks.read(f'{groups.dirs[controller]}/{root}/{file}').strip()
                check(now == value, f'{file} of /{root} is {now or "missing"}, not {value}')
        program.finish('\n'.join(groups.wanted(new, {o: overrides[o] for o in present})))
    finally:
        if program:
            program.clean()
        groups.remove()
    check(not groups.left(), f'cgroups left: {groups.left()}')


# --- the list

def run_external_tty(directory):
    """LXC's way with a console: named at dump, another one given at restore."""
    ours, theirs, other, given = *pty.openpty(), *pty.openpty()
    program = Program('external_tty', 'host', directory, before_exec=lambda: os.dup2(theirs, 0))
    images = os.path.join(directory, 'images')
    os.mkdir(images)

    def engine(*arguments):
        return subprocess.run([ENGINE, *arguments, '-D', images], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=HANG, pass_fds=(given,))
    try:
        st = os.fstat(theirs)
        key = f'tty[{st.st_rdev:x}:{st.st_dev:x}]'
        done = engine('dump', '-t', str(program.pid))
        check(done.returncode != 0 and 'STASIS-E-UNSUPPORTED-FILE' in done.stderr, f'a terminal nobody named was taken: {done.stderr}')
        check(program.alive(), 'the program is gone after a refusal')
        done = engine('dump', '-t', str(program.pid), '--external', key)
        check(done.returncode == 0, f'dump: {done.stderr}')
        until(program.gone, 'tasks are left after dump')
        done = engine('restore', '-d')
        check(done.returncode != 0 and 'STASIS-E-BAD-OPTION' in done.stderr and key in done.stderr, f'no terminal was given: {done.stderr}')
        pidfile = os.path.join(directory, 'pidfile')
        done = engine('restore', '-d', '--pidfile', pidfile, '--inherit-fd', f'fd[{given}]:{key}')
        check(done.returncode == 0, f'restore: {done.stderr}')
        program.pid = int(tasks.read(pidfile))
        program.pids.append(program.pid)
        os.write(other, b'in\n')
        program.finish()
        said = os.read(other, 100)
        check(said == b'onetwothree', f'the other end got {said}')
    finally:
        program.clean()
        for fd in (ours, theirs, other, given):
            os.close(fd)


def run_other_vdso(directory, names_too):
    """As if the images came from another kernel: another byte in the vDSO of the images, and without some of its names."""
    program = Program('vdso_calls', 'host', directory)
    images = os.path.join(directory, 'images')
    os.mkdir(images)
    try:
        for _ in range(2):   # what is redirected once can be checkpointed and redirected again
            Cli().dump(program, images, {})
            until(program.gone, 'tasks are left after dump')
            found = False
            os.unlink(os.path.join(images, 'stasis-manifest.img'))
            for path in glob.glob(os.path.join(images, 'pages-*.img')):
                with open(path, 'r+b') as file:
                    data = file.read()
                    at = data.find(b'LINUX_2.6\0')
                    while at >= 0:
                        page = at & ~4095
                        if data[page:page + 4] == b'\x7fELF':
                            file.seek(at + 6)
                            file.write(b'7')
                            found = True
                            if names_too:
                                for name in (b'__vdso_clock_gettime\0', b'__vdso_gettimeofday\0'):
                                    here = data.find(name, page)
                                    check(here >= 0, f'no {name} in the vDSO')
                                    file.seek(here)
                                    file.write(b'X')
                        at = data.find(b'LINUX_2.6\0', at + 1)
            check(found, 'no vDSO in the images')
            program.pid = Cli().restore(program, images, {})
            program.pids.append(program.pid)
            said = tasks.read(os.path.join(images, 'restore.log'))
            check('are redirected' in said, 'the engine took it for this kernel\'s vDSO')
            shutil.rmtree(images)
            os.mkdir(images)
        program.finish()
    finally:
        program.clean()


def run_other_ia32_vdso(directory):
    """Only a vDSO of 32-bit code that is the same can be restored; nothing is made before that is said."""
    program = Program('ia32', 'host', directory, ['all-leaders-live'])   # or only our own images, with a manifest, say it
    images = os.path.join(directory, 'images')
    os.mkdir(images)
    try:
        Cli().dump(program, images, {})
        until(program.gone, 'tasks are left after dump')
        os.unlink(os.path.join(images, 'stasis-manifest.img'))
        changed = False
        for path in glob.glob(os.path.join(images, 'pages-*.img')):
            with open(path, 'r+b') as file:
                data = file.read()
                at = data.find(b'__kernel_vsyscall\0')
                while at >= 0:
                    page = at & ~4095
                    if data[page:page + 5] == b'\x7fELF\x01':
                        file.seek(at + 2)
                        file.write(b'X')
                        changed = True
                    at = data.find(b'__kernel_vsyscall\0', at + 1)
        if not changed:
            raise Skipped('no vDSO for 32-bit code')
        done = subprocess.run([ENGINE, 'restore', '-d', '-D', images], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG)
        check(done.returncode != 0 and 'STASIS-E-KERNEL-FEATURE' in done.stderr and 'vDSO for 32-bit code' in done.stderr, done.stderr)
        check(program.gone(), 'tasks are left after the refusal')
    finally:
        program.clean()


def run_vfork(directory, door):
    """Its children come and go: there is nothing to compare but what the program says."""
    program = Program('vfork', 'host', directory)
    try:
        for round_ in range(3):
            images = os.path.join(directory, f'images{round_}')
            os.mkdir(images)
            program.pids = tasks.tree(program.pid)
            door.dump(program, images, {})
            until(program.gone, 'tasks are left after dump')
            program.pid = door.restore(program, images, {})
        program.finish()
    finally:
        program.clean()


def run_no_ia32(_):
    raise Skipped('the compiler makes no 32-bit code')


def programs():
    found = sorted(os.path.basename(path) for path in glob.glob(os.path.join(LIVE, '*')) if os.access(path, os.X_OK))
    return [name for name in found if name not in SPECIAL]


def all_tests(native, peer):
    for name in programs():
        for flavour in FLAVOURS:
            if (flavour == 'host' and name in NEEDS_NAMESPACES) or (flavour != 'host' and name in NOT_IN_NAMESPACES):
                continue
            if name not in ONLY.get(flavour, {name}) or flavour != 'userns' and name in NEEDS_USER_NAMESPACE:
                continue
            if peer:
                for direction in ('from-peer', 'to-peer') if name not in NOT_FOR_PEER else ():
                    yield (f'interchange {name}/{flavour}/{direction}',
                           lambda d, n=name, f=flavour, way=direction: run_interchange(d, n, f, peer, way))
                continue
            if native:
                yield f'live {name}/{flavour}/native', lambda d, n=name, f=flavour: run_program(d, n, f)
                continue
            for door in (Cli(), Rpc()):
                for times in (1,) if name in LONG else (1, 2):
                    yield (f'live {name}/{flavour}/{door.name}' + ('/twice' if times == 2 else ''),
                           lambda d, n=name, f=flavour, o=door, t=times: run_program(d, n, f, o, t, {}))
            yield (f'live {name}/{flavour}/leave-running',
                   lambda d, n=name, f=flavour: run_program(d, n, f, Cli(), 1, {'leave running': True}))
    if not os.path.exists(os.path.join(LIVE, 'ia32')):
        yield 'live ia32', run_no_ia32
    if native or peer:
        return
    if 'ia32' in programs():
        yield 'live ia32/another_kernel', run_other_ia32_vdso
    for door in (Cli(), Rpc()):
        yield f'live cgroup-root/{door.name}', lambda d, o=door: run_cgroup_root(d, o)
    yield 'live external_tty/cli', run_external_tty
    yield 'live vdso_calls/another_kernel', lambda d: run_other_vdso(d, False)
    yield 'live vdso_calls/another_kernel/some', lambda d: run_other_vdso(d, True)
    for flavour, shifts in (('ns', ['behind']), ('userns', ['behind']), ('time', ['behind', 'ahead']), ('user-time', ['behind', 'ahead'])):
        for shift in shifts:
            for door in (Cli, Rpc):
                yield (f'live timens/{flavour}/{door.name}/{shift}',
                       lambda d, f=flavour, o=door, s=shift: run_clocks(d, f, o, s))
    for door in (Cli(), Rpc()):
        yield f'live vfork/{door.name}', lambda d, o=door: run_vfork(d, o)
    for kind, code, needles in REFUSALS:
        yield f'live refused/{kind}', lambda d, k=kind, c=code, n=needles: run_refusal(d, k, c, n)


def run_selected(topic, selected, keep=False):
    """(name, function of a directory) each; the exit status."""
    bad = 0
    top = tempfile.mkdtemp(prefix=f'stasis-{topic}-')
    os.chmod(top, 0o755)
    for number, (name, run) in enumerate(selected):
        directory = os.path.join(top, str(number))
        os.mkdir(directory)
        try:
            run(directory)
            print(f'ok {name}', flush=True)
        except Skipped as why:
            print(f'skip {name}: {why}', flush=True)
        except Exception as why:  # one broken test must not hide the others
            bad += 1
            print(f'FAIL {name}: {type(why).__name__} {" ".join(str(why).split())}' + (f' [{directory}]' if keep else ''), flush=True)
            if keep:
                continue
        shutil.rmtree(directory, ignore_errors=True)
    if not keep:
        shutil.rmtree(top, ignore_errors=True)
    return 1 if bad else 0


def run_cases(topic, cases):
    """For the scripts of tests/integration: STASIS_TEST_LIST and STASIS_TEST_FILTER as in lib.sh."""
    selected = [(f'{topic} {case.__name__}', case) for case in cases]
    if os.environ.get('STASIS_TEST_LIST'):
        print('\n'.join(name for name, _ in selected))
        return 0
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))   # so that `finally` cleans up
    return run_selected(topic, [each for each in selected if os.environ.get('STASIS_TEST_FILTER', '') in each[0]])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--filter', default='', help='only tests whose name contains this')
    parser.add_argument('--native', action='store_true', help='do not checkpoint: the programs must pass by themselves')
    parser.add_argument('--peer', help='another engine: each restores what the other has dumped')
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--keep', action='store_true', help='keep the directory of a failed test')
    arguments = parser.parse_args()
    selected = [(name, run) for name, run in all_tests(arguments.native, arguments.peer) if arguments.filter in name]
    if arguments.list:
        print('\n'.join(name for name, _ in selected))
        return 0
    check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, 'prctl')
    check(libc.unshare(CLONE_NEWNS) == 0 and libc.mount(b'none', b'/', None, 0x4000 | 0x40000, None) == 0, 'unshare: run as root')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))   # so that `finally` cleans up
    if not arguments.native and not os.path.exists(ENGINE):
        print(f'FAIL live: {ENGINE} is not built')
        return 1
    return run_selected('live', selected, arguments.keep)


if __name__ == '__main__':
    sys.exit(main())
