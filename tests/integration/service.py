#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`criu service`: several clients on a socket, root and not, with Debian's own message descriptors. What a user may
not do is tried by a process of that user. Lines as in tests/live/run.py."""
import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'support'), os.path.join(HERE, '..', 'live')]
import run as live  # noqa: E402
from stasis_test import rpc as swrk  # noqa: E402
from stasis_test import tasks  # noqa: E402

rpc, check, ENGINE = swrk.rpc, live.check, live.ENGINE
UID, GID, GROUP = 54321, 54322, 54323
USER = ['setpriv', f'--reuid={UID}', f'--regid={GID}', f'--groups={GROUP}', '--inh-caps=-all']

# Runs as the user, who may not be able to read this file: argv: socket, images directory, request, options as text.
CLIENT = r'''
import json, os, socket, sys
sys.path.append('/usr/lib/python3/dist-packages')
from pycriu import rpc_pb2 as rpc
from google.protobuf import text_format
link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
link.settimeout(60)
link.connect(sys.argv[1])
request = rpc.criu_req(type=rpc.criu_req_type.Value(sys.argv[3]))
request.opts.images_dir_fd = os.open(sys.argv[2], os.O_PATH | os.O_DIRECTORY)
request.opts.log_file = sys.argv[3].lower() + '.log'
request.opts.log_level = 4
text_format.Merge(sys.argv[4], request.opts)
extra = bytes.fromhex(sys.argv[5]) if len(sys.argv) > 5 else b''
link.send(request.SerializeToString() + extra)
said = []
while True:
    response = rpc.criu_resp()
    response.ParseFromString(link.recv(65536))
    if response.type != rpc.NOTIFY:
        break
    said.append(response.notify.script)
    link.send(rpc.criu_req(type=rpc.NOTIFY, notify_success=True).SerializeToString())
print(json.dumps({'ok': response.success, 'type': response.type, 'error': response.cr_errmsg, 'errno': response.cr_errno,
                  'pid': response.restore.pid, 'notifications': said}))
'''


class Service:
    """One in the foreground, on DIRECTORY/socket, open to everybody."""
    def __init__(self, directory, *arguments, mode=0o666):
        self.path = os.path.join(directory, 'socket')
        self.log = os.path.join(directory, 'service.log')
        if os.path.exists(self.log):
            os.remove(self.log)
        self.process = subprocess.Popen([ENGINE, 'service', '--address', self.path, '-o', self.log, '-v4', *arguments],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        live.until(lambda: 'listens' in tasks.read(self.log) or self.process.poll() is not None, 'the service does not start')
        check(self.process.poll() is None, f'status {self.process.returncode}: {live.tail(self.log)}')
        os.chmod(self.path, mode)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def connect(self):
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.settimeout(live.HANG)
        link.connect(self.path)
        return link

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(live.HANG)


def receive(link):
    data = link.recv(65536)
    check(data, 'the service hung up')
    response = rpc.criu_resp()
    response.ParseFromString(data)
    return response


def start(link, kind, images, **options):
    message = rpc.criu_req(type=kind)
    message.opts.images_dir_fd = images
    message.opts.log_level = 4
    message.opts.log_file = 'dump.log' if kind == rpc.DUMP else 'restore.log'
    for name, value in options.items():
        if isinstance(value, list):
            getattr(message.opts, name).extend(value)
        else:
            setattr(message.opts, name, value)
    link.send(message.SerializeToString())


def ack(link):
    link.send(rpc.criu_req(type=rpc.NOTIFY, notify_success=True).SerializeToString())


def to_the_end(link):
    """Acknowledges what comes; the answer, and the notifications before it."""
    said = []
    while True:
        response = receive(link)
        if response.type != rpc.NOTIFY:
            return response, said
        said.append(response.notify.script)
        ack(link)


def ask(service, kind, images, **options):
    with contextlib.closing(service.connect()) as link, swrk.Directory(images) as fd:
        start(link, kind, fd, **options)
        return to_the_end(link)


class Subject:
    """A live program, of root or of the user, and an image directory of the same."""
    def __init__(self, directory, user=False, name='umask'):
        self.user, self.directory = user, directory
        self.images = os.path.join(directory, 'images')
        os.mkdir(self.images)
        shutil.copy(os.path.join(live.BUILD, 'live', name), directory)
        live.LIVE = directory  # the build need not be open to the user
        if user:
            for path in (directory, self.images):
                os.chown(path, UID, GID)
        self.program = live.Program(name, 'host', directory, before_exec=self.become if user else None)

    @staticmethod
    def become():
        os.closerange(3, 1000)
        os.setgroups([GROUP])
        os.setresgid(GID, GID, GID)
        os.setresuid(UID, UID, UID)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.clean()

    def unharmed(self):
        check(self.program.alive(), 'the program is gone')
        live.until(lambda: tasks.status_of(self.program.pid).get('TracerPid') == '0', 'it is still traced')
        check(not os.path.exists(self.images + '/inventory.img'), 'an inventory after a refused dump')

    def gone(self):
        live.until(self.program.gone, 'tasks are left')

    def restored(self, pid):
        self.program.pid = pid
        self.program.pids.append(pid)


def good(answer):
    response = answer[0]
    check(response.success, f'answer: {response}')
    return response


def as_user(service, images, kind, options='', extra='', command=USER):
    done = subprocess.run([*command, '/usr/bin/python3', '-c', CLIENT, service.path, images, kind, options, extra], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=live.HANG)
    check(done.returncode == 0, f'the client: {done.stderr.strip()[-300:]} {live.tail(service.log)}')
    return json.loads(done.stdout)


def refused(answer, code='STASIS-E-PERMISSION', about=''):
    ok, error = (answer['ok'], answer['error']) if isinstance(answer, dict) else (answer[0].success, answer[0].cr_errmsg)
    check(not ok, f'this was done, and should have been refused ({about})')
    check(code in error and about in error, f'{code} {about} is not in "{error}"')


# --- the daemon

def questions_of_many(directory):
    with Service(directory) as service:
        links = [service.connect() for _ in range(5)]
        for kind in (rpc.VERSION, rpc.FEATURE_CHECK, rpc.CHECK):
            link = service.connect()
            link.send(rpc.criu_req(type=kind).SerializeToString())
            response = receive(link)
            check(response.success and response.type == kind, f'{response}')
            check(link.recv(10) == b'', 'the connection stays open')
        for link in links:  # all were open at the same time
            link.send(rpc.criu_req(type=rpc.VERSION).SerializeToString())
            check(receive(link).version.major_number >= 3, 'no version')
        check(service.end() == 0, 'the status of the service')


def dump_and_restore(directory):
    with Service(directory) as service, Subject(directory) as subject:
        before = subject.program.look()
        answer = ask(service, rpc.DUMP, subject.images, pid=subject.program.pid, notify_scripts=True)
        good(answer)
        check(answer[0].HasField('dump') and 'post-dump' in answer[1], f'{answer}')
        subject.gone()
        answer = ask(service, rpc.RESTORE, subject.images, notify_scripts=True)
        subject.restored(good(answer).restore.pid)
        check('post-restore' in answer[1], f'{answer[1]}')
        differs = tasks.difference(before, subject.program.look())
        check(not differs, differs)
        check(service.end() == 0, 'the status of the service')
        subject.program.finish()  # it outlives the service


def two_clients_of_one_tree(directory):
    with Service(directory) as service, Subject(directory) as subject:
        other = os.path.join(directory, 'other')
        os.mkdir(other)
        first = service.connect()
        with swrk.Directory(subject.images) as fd:
            start(first, rpc.DUMP, fd, pid=subject.program.pid, notify_scripts=True)
            while receive(first).notify.script != 'post-dump':  # frozen from here on
                ack(first)
            refused(ask(service, rpc.DUMP, other, pid=subject.program.pid), 'STASIS-E-BUSY')
            check(not os.path.exists(other + '/inventory.img'), 'the second dump left an inventory')
            ack(first)
            check(to_the_end(first)[0].success, 'the first dump failed')
        subject.gone()
        subject.restored(good(ask(service, rpc.RESTORE, subject.images)).restore.pid)
        refused(ask(service, rpc.RESTORE, subject.images), 'STASIS-E-PID-TAKEN')
        subject.program.finish()


def a_dead_worker_hurts_nobody(directory):
    with Service(directory) as service, Subject(directory) as subject:
        link = service.connect()
        with swrk.Directory(subject.images) as fd:
            start(link, rpc.DUMP, fd, pid=subject.program.pid, notify_scripts=True)
            while receive(link).notify.script != 'post-dump':
                ack(link)
            worker = int(tasks.status_of(subject.program.pid)['TracerPid'])
            check(worker not in (0, service.process.pid), f'the tracer is {worker}')
            os.kill(worker, signal.SIGKILL)
            check(link.recv(100) == b'', 'an answer of a dead process')
        subject.unharmed()
        live.until(lambda: 'died of signal 9' in tasks.read(service.log), 'the service does not say it')
        good(ask(service, rpc.DUMP, subject.images, pid=subject.program.pid))  # with what the dead one left in there
        subject.gone()


def the_end_waits_for_requests(directory):
    with Service(directory) as service, Subject(directory) as subject:
        idle, link = service.connect(), service.connect()
        with swrk.Directory(subject.images) as fd:
            start(link, rpc.DUMP, fd, pid=subject.program.pid, notify_scripts=True)
            while receive(link).notify.script != 'post-dump':
                ack(link)
            service.process.send_signal(signal.SIGTERM)
            live.until(lambda: not os.path.exists(service.path), 'the socket stays')
            check(idle.recv(10) == b'', 'the idle connection stays')
            check(service.process.poll() is None, 'the service did not wait for the request')
            ack(link)
            check(to_the_end(link)[0].success, 'the running request was not finished')
        check(service.process.wait(live.HANG) == 0, 'the status of the service')
        subject.gone()


def daemon_with_pidfile(directory):
    started = subprocess.run([ENGINE, 'service', '-d', '-W', directory, '--address', 'here', '--pidfile', 'pid', '-v4'], stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, timeout=live.HANG)
    check(started.returncode == 0, started.stderr)
    pid = int(tasks.read(directory + '/pid'))
    try:
        mode = os.stat(directory + '/here').st_mode
        check(stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600, f'mode {mode:o}')
        check(tasks.stat_of(pid)[3] == str(pid), 'not a session of its own')
        again = subprocess.run([ENGINE, 'service', '-W', directory, '--address', 'here'], capture_output=True, text=True, timeout=live.HANG)
        check(again.returncode == 1 and 'is in use' in again.stderr, f'a second service on the socket: {again}')
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.settimeout(live.HANG)
        link.connect(directory + '/here')
        link.send(rpc.criu_req(type=rpc.VERSION).SerializeToString())
        check(receive(link).success, 'no version')
    finally:
        os.kill(pid, signal.SIGTERM)
    live.until(lambda: not os.path.exists(directory + '/here') and not os.path.exists(directory + '/pid'), 'socket or pidfile stay')
    check('listens' in tasks.read(directory + '/service.log'), 'no log')


def stale_socket_and_other_files(directory):
    with Service(directory) as service:
        service.process.kill()
        service.process.wait()
        check(os.path.exists(service.path), 'no stale socket to try')
    with Service(directory) as service:
        check(service.end() == 0, 'over a stale socket')
    with open(directory + '/socket', 'w'):
        pass
    done = subprocess.run([ENGINE, 'service', '--address', directory + '/socket'], capture_output=True, text=True, timeout=live.HANG)
    check(done.returncode == 1 and 'STASIS-E-BAD-OPTION' in done.stderr, f'{done}')
    check(os.path.isfile(directory + '/socket'), 'the file was removed')


def socket_activation(directory):
    path = os.path.join(directory, 'socket')
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen()

    def pass_it():
        if listener.fileno() == 3:
            os.set_inheritable(3, True)
        else:
            os.dup2(listener.fileno(), 3)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')
        os.execv(ENGINE, [ENGINE, 'service', '-o', directory + '/service.log'])
    pid = os.fork()
    if pid == 0:
        try:
            pass_it()
        finally:
            os._exit(9)
    try:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.settimeout(live.HANG)
        link.connect(path)
        link.send(rpc.criu_req(type=rpc.VERSION).SerializeToString())
        check(receive(link).success, 'no version')
    finally:
        os.kill(pid, signal.SIGTERM)
        status = os.waitpid(pid, 0)[1]
    check(status == 0 and os.path.exists(path), f'status {status}; the socket is not the service\'s to remove')


def what_is_about_the_engines_process(directory):
    with Service(directory) as service, Subject(directory) as subject:
        refused(ask(service, rpc.RESTORE, subject.images, rst_sibling=True), 'STASIS-E-BAD-OPTION', 'rst_sibling')
        with contextlib.closing(service.connect()) as link, swrk.Directory(subject.images) as fd:
            message = rpc.criu_req(type=rpc.RESTORE)
            message.opts.images_dir_fd = fd
            message.opts.inherit_fd.add(key='pipe:[1]', fd=0)
            link.send(message.SerializeToString())
            refused(to_the_end(link), 'STASIS-E-BAD-OPTION', 'inherit_fd')
        subject.unharmed()


# --- clients that are not root

def user_dumps_and_restores(directory):
    user_dumps_and_restores_program(directory, 'umask')


def user_dumps_and_restores_shared_memory(directory):
    user_dumps_and_restores_program(directory, 'shm_anon')


def user_dumps_and_restores_program(directory, name):
    with Service(directory) as service, Subject(directory, user=True, name=name) as subject:
        before = subject.program.look()
        answer = as_user(service, subject.images, 'DUMP', f'pid: {subject.program.pid} notify_scripts: true')
        check(answer['ok'] and 'post-dump' in answer['notifications'], f'{answer}')
        subject.gone()
        for name in os.listdir(subject.images):
            info = os.lstat(os.path.join(subject.images, name))
            check((info.st_uid, info.st_gid) == (UID, GID), f'{name} is owned by {info.st_uid}:{info.st_gid}')
        answer = as_user(service, subject.images, 'RESTORE', 'notify_scripts: true')
        check(answer['ok'] and 'post-restore' in answer['notifications'], f'{answer}')
        subject.restored(answer['pid'])
        differs = tasks.difference(before, subject.program.look())
        check(not differs, differs)
        status = tasks.status_of(subject.program.pid)
        check(status['Uid'].split() == [str(UID)] * 4 and int(status['CapPrm'], 16) == 0, f'{status["Uid"]} {status["CapPrm"]}')
        subject.program.finish()


def user_may_not_dump_others(directory):
    with Service(directory) as service, Subject(directory) as subject:
        os.chown(subject.images, UID, GID)
        refused(as_user(service, subject.images, 'DUMP', f'pid: {subject.program.pid}'), about='user id 0')
        refused(as_user(service, subject.images, 'DUMP', 'pid: 1'))
        subject.unharmed()
        # Of the user by its effective id only; and one that does not let anybody look into it.
        for command, about in ((['setpriv', f'--euid={UID}', f'--regid={GID}', f'--groups={GROUP}'], 'user id 0'),
                               ([*USER, '--bounding-set=-chown'], 'bounding set'), ([*USER[:3], '--clear-groups'], 'supplementary groups')):
            sleeper = subprocess.Popen([*command, 'sleep', '600'], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            try:
                live.until(lambda: tasks.read(f'/proc/{sleeper.pid}/comm') == 'sleep\n', 'no sleeper')
                refused(as_user(service, subject.images, 'DUMP', f'pid: {sleeper.pid}'), about=about)
                check(sleeper.poll() is None, 'the process is gone')
            finally:
                sleeper.kill()
                sleeper.wait()
        hidden = subprocess.Popen([*USER, '/usr/bin/python3', '-c', 'import ctypes, time; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(flush=True); time.sleep(600)'],
                                  start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            hidden.stdout.readline()
            refused(as_user(service, subject.images, 'DUMP', f'pid: {hidden.pid}'), about='PR_SET_DUMPABLE')
        finally:
            hidden.kill()
            hidden.wait()


def user_writes_only_where_he_may(directory):
    with Service(directory) as service, Subject(directory, user=True) as subject:
        os.chown(subject.images, 0, 0)
        answer = as_user(service, subject.images, 'DUMP', f'pid: {subject.program.pid}')
        check(not answer['ok'] and answer['errno'] == 13, f'{answer}')
        check(not os.listdir(subject.images), f'in the directory: {os.listdir(subject.images)}')
        os.chmod(subject.images, 0o700)  # not even the name can be looked at, let alone a restore
        os.chown(subject.images, UID, GID)
        private = os.path.join(directory, 'private')
        os.mkdir(private, 0o700)
        os.symlink(private + '/log', subject.images + '/dump.log')  # nor by a link
        check(not as_user(service, subject.images, 'DUMP', f'pid: {subject.program.pid}')['ok'], 'the link was followed')
        check(not os.listdir(private), 'a log in root\'s directory')
        subject.unharmed()
        subject.program.finish()


def user_may_not_ask_for(directory):
    with Service(directory) as service, Subject(directory, user=True) as subject:
        canary = os.path.join(directory, 'canary')
        script = os.path.join(directory, 'script')
        with open(script, 'w') as file:
            file.write(f'#!/bin/sh\nid -u >{canary}\n')
        os.chmod(script, 0o755)
        config = os.path.join(directory, 'config')
        with open(config, 'w') as file:
            file.write(f'action-script {script}\n')
        pid = f'pid: {subject.program.pid} '
        for options, about in ((f'config_file: "{config}"', 'config_file'), ('manage_cgroups: true', 'manage_cgroups'), ('manage_cgroups_mode: FULL', 'manage_cgroups_mode'),
                               ('ext_mnt { key: "/a" val: "b" }', 'ext_mnt'), ('external: "mnt[/a]:b"', 'external'), ('root: "/tmp"', 'root'),
                               ('freeze_cgroup: "/sys/fs/cgroup"', 'freeze_cgroup'), ('cg_root { path: "/x" }', 'cg_root'), ('empty_ns: 1073741824', 'empty_ns')):
            refused(as_user(service, subject.images, 'DUMP', pid + options), about=about)
        path = script.encode()
        action_script = (1 << 3 | 2, 20004 << 3 | 2)  # opts{stasis_action_script}: unknown to Debian's messages

        def varint(n):
            out = b''
            while n > 127:
                out, n = out + bytes([n & 127 | 128]), n >> 7
            return out + bytes([n])
        field = varint(action_script[1]) + varint(len(path)) + path
        refused(as_user(service, subject.images, 'DUMP', pid, (varint(2 << 3 | 2) + varint(len(field)) + field).hex()), about='stasis_action_script')
        subject.unharmed()
        check(as_user(service, subject.images, 'DUMP', pid + 'manage_cgroups: false')['ok'], 'a plain dump')
        subject.gone()
        for options, about in (('exec_cmd: "/bin/true"', 'exec_cmd'), ('join_ns { ns: "net" ns_file: "1" }', 'join_ns'), ('lsm_profile: "apparmor:x"', 'lsm_profile')):
            refused(as_user(service, subject.images, 'RESTORE', options), about=about)
        subject.gone()
        check(not os.path.exists(canary), 'a script was run')
        subject.restored(as_user(service, subject.images, 'RESTORE')['pid'])
        subject.program.finish()


def user_may_not_restore_other_credentials(directory):
    with Service(directory) as service, Subject(directory) as subject:
        good(ask(service, rpc.DUMP, subject.images, pid=subject.program.pid))
        subject.gone()
        for name in ['', *os.listdir(subject.images)]:
            os.chown(os.path.join(subject.images, name), UID, GID)
        refused(as_user(service, subject.images, 'RESTORE'), about='user id 0')
    # Of his own images, one number changed.
    forged = os.path.join(directory, 'forged')
    os.mkdir(forged)
    os.chmod(forged, 0o777)
    with Service(forged) as service, Subject(forged, user=True) as subject:
        check(as_user(service, subject.images, 'DUMP', f'pid: {subject.program.pid}')['ok'], 'the dump')
        subject.gone()
        os.remove(subject.images + '/stasis-manifest.img')  # it has checksums
        core = f'{subject.images}/core-{subject.program.pid}.img'
        with open(core, 'rb') as file:
            original = file.read()
        text = subprocess.run(['crit', 'decode', '-i', core], capture_output=True, text=True, check=True).stdout
        for field, value, about in (('uid', 0, 'user id 0'), ('suid', 0, 'user id 0'), ('fsuid', 0, 'user id 0'), ('egid', 0, 'group id 0'), ('cap_prm', [1 << 21, 0], 'capabilities'),
                                    ('cap_eff', [1 << 21, 0], 'capabilities'), ('cap_inh', [0, 1], 'capabilities'), ('cap_bnd', [0, 0], 'bounding set'),
                                    ('secbits', 5, 'securebits'), ('groups', [GROUP, 0], 'supplementary groups')):
            image = json.loads(text)
            image['entries'][0]['thread_core']['creds'][field] = value
            subprocess.run(['crit', 'encode', '-o', core], input=json.dumps(image), text=True, check=True)
            refused(as_user(service, subject.images, 'RESTORE'), about=about)
            subject.gone()
        with open(core, 'wb') as file:
            file.write(original)
        subject.restored(as_user(service, subject.images, 'RESTORE')['pid'])
        subject.program.finish()


def confined_clients(directory):
    """Their tasks would come back without what confines them."""
    with Service(directory) as service, Subject(directory, user=True) as subject:
        options = f'pid: {subject.program.pid}'
        for command, about in (([*USER, '--no-new-privs'], 'no_new_privs'), (['unshare', '-m', *USER], 'mnt namespace'), (['unshare', '-n', *USER], 'net namespace'),
                               ([*USER, '--bounding-set=-chown'], 'bounding set')):
            refused(as_user(service, subject.images, 'DUMP', options, command=command), about=about)
        subject.unharmed()
        subject.program.finish()


def connections_of_a_user_are_limited(directory):
    with Service(directory) as service:
        code = ('import socket, sys\nlinks = []\nfor _ in range(40):\n'
                ' s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(60); s.connect(sys.argv[1]); links.append(s)\n'
                'print(links[39].recv(1000).find(b"too many"))')
        done = subprocess.run([*USER, '/usr/bin/python3', '-c', code, service.path], capture_output=True, text=True, timeout=live.HANG)
        check(done.returncode == 0 and int(done.stdout) >= 0, f'{done}')
        with contextlib.closing(service.connect()) as link:  # root's are not
            link.send(rpc.criu_req(type=rpc.VERSION).SerializeToString())
            check(receive(link).success, 'no version')


CASES = [questions_of_many, dump_and_restore, two_clients_of_one_tree, a_dead_worker_hurts_nobody, the_end_waits_for_requests, daemon_with_pidfile,
         stale_socket_and_other_files, socket_activation, what_is_about_the_engines_process, user_dumps_and_restores,
         user_dumps_and_restores_shared_memory, user_may_not_dump_others,
         user_writes_only_where_he_may, user_may_not_ask_for, user_may_not_restore_other_credentials, confined_clients, connections_of_a_user_are_limited]


if __name__ == '__main__':
    sys.exit(live.run_cases('service', CASES))
