#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The swrk protocol as clients speak it, with Debian's own message descriptors; and criu's command line where
the two must agree (--exec-cmd). Lines as in tests/live/run.py."""
import os
import signal
import socket
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'support'), os.path.join(HERE, '..', 'live')]
import run as live  # noqa: E402
from stasis_test import rpc as swrk  # noqa: E402
from stasis_test import tasks  # noqa: E402

rpc, check, ENGINE = swrk.rpc, live.check, live.ENGINE


def ask(kind, fill=lambda _: None, **more):
    message = rpc.criu_req(type=kind)
    fill(message)
    return swrk.request(ENGINE, message, **more)


def good(answer, kind):
    check(answer.response is not None, f'no answer, engine status {answer.status}')
    check(answer.ok and answer.response.type == kind, f'answer: {answer.response}')
    check(answer.status == 0, f'engine status {answer.status}')
    return answer.response


def refused(answer, code=''):
    check(answer.response is not None, f'no answer, engine status {answer.status}')
    check(not answer.response.success, f'success: {answer.response}')
    check(answer.response.cr_errno or answer.response.type == rpc.EMPTY, 'no cr_errno')
    check(code in answer.response.cr_errmsg, f'{code} is not in "{answer.response.cr_errmsg}"')
    check(len(answer.response.SerializeToString()) < 8192, 'longer than the buffer of go-criu')
    return answer.response


# --- cheap requests

def version(_):
    response = good(ask(rpc.VERSION), rpc.VERSION)
    check(response.HasField('version') and not response.version.HasField('gitid'), f'{response}')
    check(3 <= response.version.major_number <= 9, f'{response}')


def version_ignores_opts(_):  # libcriu sends a half-filled one, images_dir_fd 0
    good(ask(rpc.VERSION, lambda m: setattr(m.opts, 'images_dir_fd', 0)), rpc.VERSION)


def feature_check_always_has_features(_):
    for name in ('mem_track', 'lazy_pages', 'pidfd_store'):
        response = good(ask(rpc.FEATURE_CHECK, lambda m: setattr(m.features, name, True)), rpc.FEATURE_CHECK)
        check(response.HasField('features') and response.features.HasField(name), f'{name}: {response}')
    check(good(ask(rpc.FEATURE_CHECK), rpc.FEATURE_CHECK).HasField('features'), 'no features in the answer')


def check_request(_):
    def fill(message):
        message.opts.images_dir_fd = -1
    good(ask(rpc.CHECK, fill), rpc.CHECK)


def what_is_not_built_is_refused_with_its_own_type(directory):
    for kind in (rpc.PRE_DUMP, rpc.SINGLE_PRE_DUMP, rpc.PAGE_SERVER, rpc.CPUINFO_DUMP, rpc.CPUINFO_CHECK):
        with swrk.Directory(directory) as fd:
            response = refused(ask(kind, lambda m: setattr(m.opts, 'images_dir_fd', fd)))
        check(response.type == kind, f'request {kind} was answered with type {response.type}')


def unknown_type_is_answered_empty(_):
    response = refused(swrk.request(ENGINE, b'\x08\x7f'))
    check(response.type == rpc.EMPTY, f'{response}')


def garbage_is_survived(_):
    for garbage in (b'\xff' * 100, b'\x08', b'\x12\xff\xff\xff\xff\x0f', os.urandom(3000), b'\x08\x01\x12\x05hello'):
        answer = swrk.request(ENGINE, garbage)
        check(answer.response is None or not answer.response.success, f'garbage was a success: {answer.response}')
        check(isinstance(answer.status, int) and answer.status >= 0, f'the engine was killed by signal or hangs: {answer.status}')


def client_goes_away_at_once(_):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen([ENGINE, 'swrk', str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
    theirs.close()
    ours.close()
    check(process.wait(live.HANG) >= 0, 'the engine was killed by a signal')


def keep_open_serves_again(_):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen([ENGINE, 'swrk', str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
    theirs.close()
    ours.settimeout(live.HANG)
    for last in (False, False, True):
        ours.send(rpc.criu_req(type=rpc.VERSION, keep_open=not last).SerializeToString())
        response = rpc.criu_resp()
        response.ParseFromString(ours.recv(8192))
        check(response.success and response.type == rpc.VERSION, f'{response}')
    check(process.wait(live.HANG) == 0, f'engine status {process.returncode}')
    ours.close()


# --- dump and restore

class Subject:
    """A live program and an image directory."""
    def __init__(self, directory, name='umask'):
        self.directory = directory
        self.images = os.path.join(directory, 'images')
        os.mkdir(self.images)
        self.program = live.Program(name, 'host', directory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.clean()

    def request(self, kind, fill=lambda _: None, **more):
        with swrk.Directory(self.images) as fd:
            def all_of_it(message):
                message.opts.images_dir_fd = fd
                message.opts.log_level = 4
                message.opts.log_file = 'dump.log' if kind == rpc.DUMP else 'restore.log'
                message.opts.notify_scripts = True
                if kind == rpc.DUMP:
                    message.opts.pid = self.program.pid
                fill(message.opts)
            return ask(kind, all_of_it, **more)

    def unharmed(self, before):
        check(self.program.alive(), 'the program is gone')
        for pid in self.program.pids:
            check(tasks.status_of(pid).get('TracerPid') == '0', f'{pid} is still traced')
        differs = tasks.difference(before, self.program.look())
        check(not differs, differs)

    def gone(self):
        live.until(self.program.gone, 'tasks are left')

    def restored(self, answer):
        self.program.pid = good(answer, rpc.RESTORE).restore.pid
        self.program.pids.append(self.program.pid)


def nack_in_dump(directory):
    for number, script in enumerate(('pre-dump', 'post-dump')):
        inner = os.path.join(directory, str(number))
        os.mkdir(inner)
        with Subject(inner) as subject:
            before = subject.program.look()
            refused(subject.request(rpc.DUMP, nack=script), 'STASIS-E-HOOK-FAILED')
            check(not os.path.exists(subject.images + '/inventory.img'), 'an inventory after a refused dump')
            subject.unharmed(before)
            subject.program.finish()


def hang_up_in_dump(directory):
    for number, script in enumerate(('pre-dump', 'post-dump')):
        inner = os.path.join(directory, str(number))
        os.mkdir(inner)
        with Subject(inner) as subject:
            before = subject.program.look()
            answer = subject.request(rpc.DUMP, hang_up_at=script)
            check(script in dict(answer.notifications), f'{script} was not sent: {answer.notifications}, engine status {answer.status}')
            check(answer.status not in (0, 'hangs'), f'engine status {answer.status}')
            check(not os.path.exists(subject.images + '/inventory.img'), 'an inventory after the client went away')
            subject.unharmed(before)
            subject.program.finish()


def restore_refused_or_left(directory):
    with Subject(directory) as subject:
        good(subject.request(rpc.DUMP), rpc.DUMP)
        subject.gone()
        for script in ('pre-restore', 'post-restore'):
            refused(subject.request(rpc.RESTORE, nack=script), 'STASIS-E-HOOK-FAILED')
            subject.gone()
            answer = subject.request(rpc.RESTORE, hang_up_at=script)
            check(answer.status not in (0, 'hangs'), f'engine status {answer.status}')
            subject.gone()
        subject.restored(subject.request(rpc.RESTORE))
        subject.program.finish()


def no_notifications_unless_asked(directory):
    def quiet(opts):
        opts.notify_scripts = False
    with Subject(directory) as subject:
        answer = subject.request(rpc.DUMP, quiet)
        good(answer, rpc.DUMP)
        check(not answer.notifications, f'{answer.notifications}')
        subject.gone()
        answer = subject.request(rpc.RESTORE, quiet)
        subject.restored(answer)
        check(not answer.notifications, f'{answer.notifications}')
        subject.program.finish()


def sibling_is_a_child_of_the_client(directory):
    with Subject(directory) as subject:
        good(subject.request(rpc.DUMP), rpc.DUMP)
        subject.gone()
        parents = []

        def look(script, pid):
            if script == 'post-restore':
                parents.append(int(tasks.stat_of(pid)[1]))
        subject.restored(subject.request(rpc.RESTORE, lambda o: setattr(o, 'rst_sibling', True), on_notify=look))
        check(parents == [os.getpid()], f'the parent at post-restore was {parents}, the client is {os.getpid()}')
        subject.program.finish()


def work_dir_gets_logs_and_stats(directory):
    work = os.path.join(directory, 'work')
    os.mkdir(work)
    with Subject(directory) as subject, swrk.Directory(work) as fd:
        def in_work_dir(opts):
            opts.work_dir_fd = fd
        good(subject.request(rpc.DUMP, in_work_dir), rpc.DUMP)
        subject.gone()
        subject.restored(subject.request(rpc.RESTORE, in_work_dir))
        missing = {'dump.log', 'restore.log', 'stats-dump', 'stats-restore'} - set(os.listdir(work))
        check(not missing, f'not in the work directory: {missing}')
        check(not os.path.exists(subject.images + '/dump.log'), 'the log is in the image directory')
        subject.program.finish()


def log_file_may_not_be_a_path(directory):
    with Subject(directory) as subject:
        before = subject.program.look()
        refused(subject.request(rpc.DUMP, lambda o: setattr(o, 'log_file', '../escape.log')), 'STASIS-E-')
        check(not os.path.exists(os.path.join(directory, 'escape.log')), 'a log outside the directory')
        subject.unharmed(before)
        subject.program.finish()


def bad_descriptors_and_pids(directory):
    with Subject(directory) as subject:
        before = subject.program.look()
        refused(subject.request(rpc.DUMP, lambda o: setattr(o, 'images_dir_fd', 987)), 'STASIS-E-')
        refused(subject.request(rpc.DUMP, lambda o: setattr(o, 'pid', 4194303)), 'STASIS-E-')
        refused(subject.request(rpc.DUMP, lambda o: setattr(o, 'pid', -5)), 'STASIS-E-')
        refused(ask(rpc.DUMP), 'STASIS-E-')
        refused(ask(rpc.RESTORE), 'STASIS-E-')
        subject.unharmed(before)
        subject.program.finish()


def exec_cmd(directory):
    """The engine's own process becomes CMD, and is the parent of the tree; over RPC and on the command line."""
    for number, door in enumerate(('rpc', 'cli')):
        inner = os.path.join(directory, str(number))
        os.mkdir(inner)
        with Subject(inner) as subject:
            good(subject.request(rpc.DUMP), rpc.DUMP)
            subject.gone()
            command = ['/bin/sleep', '54322']
            if door == 'cli':
                pidfile = os.path.join(inner, 'pid')
                engine = subprocess.Popen([ENGINE, 'restore', '-D', subject.images, '-o', 'restore.log', '--pidfile', pidfile, '--exec-cmd', '--', *command],
                                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid
            else:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                engine = subprocess.Popen([ENGINE, 'swrk', str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL).pid
                theirs.close()
                with swrk.Directory(subject.images) as fd:
                    message = rpc.criu_req(type=rpc.RESTORE)
                    message.opts.images_dir_fd = fd
                    message.opts.log_file = 'restore.log'
                    message.opts.exec_cmd.extend(command)
                    ours.settimeout(live.HANG)
                    ours.send(message.SerializeToString())
                    response = rpc.criu_resp()
                    response.ParseFromString(ours.recv(8192))
                check(response.success, f'{response}')
                subject.program.pid = response.restore.pid
            subject.program.pids.append(engine)

            def became():
                check(bool(tasks.stat_of(engine)) and tasks.stat_of(engine)[0] != 'Z', f'{door}: the engine ended: {live.tail(subject.images + "/restore.log")}')
                return tasks.read(f'/proc/{engine}/cmdline') == '\0'.join(command) + '\0'
            live.until(became, f'{door}: the engine does not become the command')
            if door == 'cli':
                subject.program.pid = int(tasks.read(pidfile))
            parent = int(tasks.stat_of(subject.program.pid)[1])
            check(parent == engine, f'{door}: the parent of the tree is {parent}, not {engine}')
            open_fds = {int(fd) for fd in os.listdir(f'/proc/{engine}/fd')}
            check(open_fds <= {0, 1, 2}, f'{door}: the supervisor inherited {sorted(open_fds)}')
            with open(subject.program.go, 'w'):
                pass
            live.until(lambda: tasks.read(subject.program.result), 'no result')
            check(tasks.read(subject.program.result) == 'ok', tasks.read(subject.program.result))
            os.kill(engine, signal.SIGKILL)


def waiting_restore_returns_the_status(directory):
    with Subject(directory) as subject:
        good(subject.request(rpc.DUMP), rpc.DUMP)
        subject.gone()
        pidfile = os.path.join(directory, 'pid')
        engine = subprocess.Popen([ENGINE, 'restore', '-D', subject.images, '-o', 'restore.log', '--pidfile', pidfile],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        live.until(lambda: tasks.read(pidfile) or engine.poll() is not None, 'no pid file')
        check(engine.poll() is None, f'criu restore did not wait, status {engine.returncode}: {live.tail(subject.images + "/restore.log")}')
        subject.program.pid = int(tasks.read(pidfile))
        with open(subject.program.go, 'w'):
            pass
        check(engine.wait(live.HANG) == 0, f'status {engine.returncode}')
        check(tasks.read(subject.program.result) == 'ok', tasks.read(subject.program.result))


def lxc_environment(directory):
    """lxc-checkpoint starts the engine with fd 0 closed and nearly every signal blocked; neither may reach the tasks."""
    with Subject(directory) as subject:
        before = subject.program.look()
        good(subject.request(rpc.DUMP), rpc.DUMP)
        subject.gone()

        def like_lxc():
            os.close(0)
            signal.pthread_sigmask(signal.SIG_BLOCK, set(range(1, 65)) - {32, 33})
        pidfile = os.path.join(directory, 'pid')
        done = subprocess.run([ENGINE, 'restore', '-d', '-D', subject.images, '-o', 'restore.log', '-v4', '--pidfile', pidfile], preexec_fn=like_lxc,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=live.HANG)
        check(done.returncode == 0, f'status {done.returncode}: {live.tail(subject.images + "/restore.log")}')
        subject.program.pid = int(tasks.read(pidfile))
        differs = tasks.difference(before, subject.program.look())
        check(not differs, differs)
        subject.program.finish()


CASES = [version, version_ignores_opts, feature_check_always_has_features, check_request, what_is_not_built_is_refused_with_its_own_type,
         unknown_type_is_answered_empty, garbage_is_survived, client_goes_away_at_once, keep_open_serves_again, nack_in_dump, hang_up_in_dump,
         restore_refused_or_left, no_notifications_unless_asked, sibling_is_a_child_of_the_client, work_dir_gets_logs_and_stats,
         log_file_may_not_be_a_path, bad_descriptors_and_pids, exec_cmd, waiting_restore_returns_the_status, lxc_environment]


if __name__ == '__main__':
    sys.exit(live.run_cases('rpc', CASES))
