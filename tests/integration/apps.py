#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real servers, with clients that stay connected over the checkpoint: bare on the host, and in a runc container whose
clients are in another network namespace. No client sees its connection end, and nothing that was acknowledged is lost.
Lines as in tests/live/run.py."""
import ctypes
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'support'), os.path.join(HERE, '..', 'live')]
import run as live  # noqa: E402
from stasis_test import tasks  # noqa: E402

check, Failed = live.check, live.Failed
BUILD = os.environ.get('STASIS_BUILD') or os.path.join(HERE, '..', '..', 'build')
APPS = os.path.join(HERE, 'apps')
PATH = os.path.join(BUILD, 'libexec', 'stasis') + ':/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
ENVIRONMENT = {'PATH': PATH, 'LC_ALL': 'C', 'HOME': '/tmp'}
HANG = 120   # seconds; ends only what hangs
libc = ctypes.CDLL(None, use_errno=True)


class Skip(Exception):
    pass


def command(*arguments, ok=True, **options):
    options = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, 'timeout': HANG,
               'env': ENVIRONMENT, **options}
    done = subprocess.run(arguments, text=True, **options)
    check(not ok or done.returncode == 0, f'{" ".join(arguments)}: status {done.returncode}: {(done.stdout or "")[-400:]}')
    return done


def until(condition, what):
    end = time.monotonic() + HANG
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        check(time.monotonic() < end, f'waited in vain for: {what}')
        time.sleep(0.02)


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(f'{program} is not installed')


# --- where an application runs

class Bare:
    """A session of processes on the host; clients are on the host too."""
    name = 'bare'

    def __init__(self, directory):
        self.directory = directory
        self.data = os.path.join(directory, 'data')
        os.makedirs(self.data)
        self.pid = 0
        self.host = '127.0.0.1'
        self.pids = []
        self.images = 0

    def start(self, arguments, user=None):
        how = {'user': user, 'group': user, 'extra_groups': []} if user else {}
        process = subprocess.Popen(arguments, cwd=self.data, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True, env=ENVIRONMENT, **how)
        self.pid = process.pid
        self.pids.append(process.pid)
        self.process = process

    def connect(self, port):
        return socket.create_connection((self.host, port), timeout=HANG)

    def move(self):
        """Checkpoint and restore."""
        self.images += 1
        images = os.path.join(self.directory, f'images{self.images}')
        os.mkdir(images)
        # What it has started and who has been orphaned since is one session, so one tree.
        self.pids += tasks.tree(self.pid)
        self.log(command('criu', 'dump', '-t', str(self.pid), '-D', images, '-v4', '-o', 'dump.log', ok=False), images, 'dump.log')
        if self.process:
            self.process.wait()
            self.process = None
        until(lambda: not any(os.path.exists(f'/proc/{pid}') for pid in self.pids), 'the tasks to go')
        self.log(command('criu', 'restore', '-d', '-D', images, '-v4', '-o', 'restore.log', ok=False), images, 'restore.log')

    @staticmethod
    def log(done, images, name):
        if done.returncode:
            path = os.path.join(images, name)
            text = tasks.read(path) if os.path.exists(path) else done.stdout
            raise Failed(f'{name}: {" ".join(line for line in text.splitlines() if "rror" in line)[-500:]}')

    def clean(self):
        for pid in self.pids + (tasks.tree(self.pid) if self.pid else []):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        if getattr(self, 'process', None):
            self.process.wait()


class Container(Bare):
    """runc, with the host's programs, in a network namespace of its own; clients are in another."""
    name = 'runc'
    number = 0

    def __init__(self, directory):
        super().__init__(directory)
        Container.number += 1
        self.id = f'stasis-app-{os.getpid()}-{Container.number}'
        self.host = '10.77.0.1'
        self.networks = [f'{self.id}-{side}' for side in 'ab']
        self.made = []
        for i, name in enumerate(self.networks):
            command('ip', 'netns', 'add', name)
            self.made.append(name)
            command('ip', '-n', name, 'link', 'set', 'lo', 'up')
        command('ip', '-n', self.networks[0], 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', self.networks[1])
        for i, name in enumerate(self.networks):
            command('ip', '-n', name, 'addr', 'add', f'10.77.0.{i + 1}/24', 'dev', 'eth0')
            command('ip', '-n', name, 'link', 'set', 'eth0', 'up')

    def start(self, arguments, user=None):
        bundle = os.path.join(self.directory, 'bundle')
        root = os.path.join(bundle, 'rootfs')
        for name in ('usr', 'etc', 'proc', 'dev', 'sys', 'tmp', 'run', 'var', 'data', 'apps'):
            os.makedirs(os.path.join(root, name))
        for name in ('bin', 'sbin', 'lib', 'lib64'):
            os.symlink(f'usr/{name}', os.path.join(root, name))
        command('runc', 'spec', '-b', bundle)
        path = os.path.join(bundle, 'config.json')
        config = json.loads(tasks.read(path))
        process = config['process']
        process.update(terminal=False, args=[word.replace(self.data, '/data').replace(APPS, '/apps') for word in arguments], cwd='/data',
                       rlimits=[{'type': 'RLIMIT_NOFILE', 'hard': 1024, 'soft': 1024}], noNewPrivileges=True)
        process['env'] = [f'{key}={value}' for key, value in ENVIRONMENT.items() if key != 'PATH'] + ['PATH=/usr/sbin:/usr/bin']
        if user:
            process['user'] = {'uid': user, 'gid': user}
        for name, mode in (('/usr', 'ro'), ('/etc', 'ro'), ('/data', 'rw'), ('/apps', 'ro')):
            source = {'/data': self.data, '/apps': APPS}.get(name, name)
            config['mounts'].append({'destination': name, 'type': 'bind', 'source': source, 'options': ['rbind', mode]})
        for name in ('/tmp', '/run'):
            config['mounts'].append({'destination': name, 'type': 'tmpfs', 'source': 'tmpfs', 'options': ['mode=1777', 'size=64m']})
        config['linux']['cgroupsPath'] = f'/{self.id}'
        for namespace in config['linux']['namespaces']:
            if namespace['type'] == 'network':
                namespace['path'] = f'/run/netns/{self.networks[0]}'
        with open(path, 'w') as file:
            json.dump(config, file)
        self.bundle = bundle
        self.process = None
        command('runc', 'run', '-d', '-b', bundle, self.id, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.pid = json.loads(command('runc', 'state', self.id).stdout)['pid']

    def connect(self, port):
        found = []

        def inside():
            with open(f'/run/netns/{self.networks[1]}') as namespace:
                if libc.setns(namespace.fileno(), 0x40000000):
                    return
            try:
                found.append(socket.create_connection((self.host, port), timeout=HANG))
            except OSError as error:
                found.append(error)
        thread = threading.Thread(target=inside)   # what enters the namespace ends with it
        thread.start()
        thread.join()
        check(found, 'setns')
        if isinstance(found[0], OSError):
            raise found[0]
        return found[0]

    def move(self):
        self.images += 1
        images, work = (os.path.join(self.directory, f'{kind}{self.images}') for kind in ('images', 'work'))
        paths = ('--image-path', images, '--work-path', work)
        self.log(command('runc', 'checkpoint', *paths, self.id, ok=False), work, 'dump.log')
        self.log(command('runc', 'restore', '-d', '-b', self.bundle, *paths, self.id, ok=False, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL), work, 'restore.log')
        self.pid = json.loads(command('runc', 'state', self.id).stdout)['pid']

    def clean(self):
        command('runc', 'delete', '-f', self.id, ok=False)
        for name in self.made:
            command('ip', 'netns', 'del', name, ok=False)


# --- what runs there

class Lines:
    """A client that stays connected; half a line is under way when the server is checkpointed."""

    def __init__(self, place, port):
        self.socket = place.connect(port)
        self.file = self.socket.makefile('rb')
        self.seen = (0, 0)

    def ask(self, text=b'inc\n'):
        self.socket.sendall(text)
        line = self.file.readline()
        check(line, 'the server has closed the connection')
        count, ticks = map(int, line.split())
        check(count > self.seen[0] and ticks >= self.seen[1], f'{count} {ticks} after {self.seen}')
        self.seen = (count, ticks)


def line_server(arguments):
    def run(place, directory):
        port = 20000 + os.getpid() % 10000
        place.start([word.replace('PORT', str(port)) for word in arguments(place, directory)])
        clients = []

        def connected():
            clients.append(Lines(place, port))
            return True
        until(connected, 'the server to listen')
        for _ in range(3):
            clients.append(Lines(place, port))
        for client in clients:
            client.ask()
        for _ in range(2):
            for client in clients:
                client.socket.sendall(b'in')
            place.move()
            seen = max(client.seen for client in clients)
            for client in clients:
                client.seen = seen
                client.ask(b'c\n')
                seen = client.seen
            clients.append(Lines(place, port))
            clients[-1].ask()
            before = clients[0].seen[1]

            def ticks():
                clients[0].seen = (0, 0)
                clients[0].ask()
                return clients[0].seen[1] > before
            until(ticks, 'its timer to go on')
    return run


def python(place, directory):
    return ['/usr/bin/python3', os.path.join(APPS, 'server.py'), 'PORT']


def node(place, directory):
    need('node')
    return [shutil.which('node'), os.path.join(APPS, 'server.js'), 'PORT']


def go(place, directory):
    need('go')
    binary = os.path.join(place.data, 'server')
    command('go', 'build', '-o', binary, os.path.join(APPS, 'server.go'),
            env={**ENVIRONMENT, 'GOCACHE': os.path.join(directory, 'cache'), 'CGO_ENABLED': '0', 'GOFLAGS': '-mod=mod', 'GO111MODULE': 'off'})
    return [binary, 'PORT']


def java(place, directory):
    need('java', 'javac')
    command('javac', '-d', place.data, os.path.join(APPS, 'Server.java'))
    home = os.path.dirname(os.path.dirname(os.path.realpath(shutil.which('java'))))
    return [os.path.join(home, 'bin', 'java'), '-Xmx64m', '-cp', place.data, 'Server', 'PORT']


def redis(place, directory):
    """Under load: every write that was acknowledged is there afterwards."""
    need('redis-server')
    port = 20000 + os.getpid() % 10000
    place.start(['/usr/bin/redis-server', '--port', str(port), '--bind', '0.0.0.0', '--protected-mode', 'no', '--dir', place.data,
                 '--save', '', '--appendonly', 'yes', '--daemonize', 'no'])
    first = []

    def connected():
        first.append(place.connect(port))
        return True
    until(connected, 'redis to listen')
    acknowledged, errors, stop = [0] * 3, [], threading.Event()

    def load(index, connection):
        file = connection.makefile('rb')
        try:
            while not stop.is_set():
                number = acknowledged[index] + 1
                words = [b'SET', b'key%d' % index, b'%d' % number]
                connection.sendall(b'*%d\r\n' % len(words) + b''.join(b'$%d\r\n%s\r\n' % (len(word), word) for word in words))
                answer = file.readline()
                if answer != b'+OK\r\n':
                    return errors.append(f'client {index} got {answer}')
                acknowledged[index] = number
        except OSError as error:
            errors.append(f'client {index}: {error}')
    threads = [threading.Thread(target=load, args=(i, place.connect(port))) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            before = list(acknowledged)
            until(lambda: errors or all(now > was + 50 for now, was in zip(acknowledged, before)), 'the load')
            place.move()
            before = list(acknowledged)
            until(lambda: errors or all(now > was + 50 for now, was in zip(acknowledged, before)), 'the load to go on')
            check(not errors, '; '.join(errors))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    check(not errors, '; '.join(errors))
    for i, number in enumerate(acknowledged):
        first[0].sendall(b'GET key%d\r\n' % i)
        answer = first[0].recv(100).split(b'\r\n')
        check(answer[1] == b'%d' % number, f'key{i} is {answer}, and {number} was acknowledged')


def nginx(place, directory):
    """Keep-alive clients, a request that is half sent, a download that is half received."""
    need('nginx')
    port = 20000 + os.getpid() % 10000
    data = '/data' if place.name == 'runc' else place.data
    os.makedirs(os.path.join(place.data, 'www'))
    content = os.urandom(8 << 20)
    for name, text in (('small', b'hello\n'), ('large', content)):
        with open(os.path.join(place.data, 'www', name), 'wb') as file:
            file.write(text)
    with open(os.path.join(place.data, 'nginx.conf'), 'w') as file:
        file.write(f'''user root; daemon off; worker_processes 2; pid {data}/nginx.pid; error_log {data}/error.log;
events {{ worker_connections 64; }}
http {{ access_log off; keepalive_timeout 600; client_body_temp_path {data}/b; proxy_temp_path {data}/p; fastcgi_temp_path {data}/f;
uwsgi_temp_path {data}/u; scgi_temp_path {data}/s; server {{ listen {port}; root {data}/www; }} }}''')
    place.start(['/usr/sbin/nginx', '-c', f'{place.data}/nginx.conf', '-p', place.data])
    until(lambda: place.connect(port), 'nginx to listen')

    def get(file, connection, name, rest=None):
        connection.sendall(rest or f'GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
        return read_answer(file)

    def read_answer(file):
        check(b'200' in file.readline(), 'nginx does not answer 200')
        length = 0
        while (line := file.readline().strip()):
            if line.lower().startswith(b'content-length:'):
                length = int(line.split(b':')[1])
        return file.read(length)
    keep = [place.connect(port) for _ in range(4)]
    files = [connection.makefile('rb') for connection in keep]
    for file, connection in zip(files, keep):
        check(get(file, connection, 'small') == b'hello\n', 'not what is in the file')
    for _ in range(2):
        keep[0].sendall(b'GET /small HTTP/1.1\r\nHos')
        keep[1].sendall(b'GET /large HTTP/1.1\r\nHost: x\r\n\r\n')   # more than any buffer holds
        place.move()
        check(get(files[0], keep[0], 'small', b't: x\r\n\r\n') == b'hello\n', 'the half request')
        check(read_answer(files[1]) == content, 'the half download')
        for file, connection in zip(files, keep):
            check(get(file, connection, 'small') == b'hello\n', 'a connection after the restore')


def postgresql(place, directory):
    """In the middle of a transaction, which is committed afterwards."""
    versions = sorted(os.listdir('/usr/lib/postgresql')) if os.path.isdir('/usr/lib/postgresql') else []
    if not versions:
        raise Skip('postgresql is not installed')
    need('psql')
    programs = f'/usr/lib/postgresql/{versions[-1]}/bin'
    user, port = pwd.getpwnam('nobody').pw_uid, 20000 + os.getpid() % 10000
    os.chown(place.data, user, user)
    command(f'{programs}/initdb', '-D', f'{place.data}/db', '-A', 'trust', '-U', 'tester', '--no-sync', user=user, group=user, extra_groups=[])
    with open(f'{place.data}/db/pg_hba.conf', 'a') as file:
        file.write('host all all 0.0.0.0/0 trust\n')
    # Its segment of System V memory is to be its own.
    bare = place.name == 'bare'
    own_ipc = ['/usr/bin/unshare', '--ipc', '/usr/bin/setpriv', f'--reuid={user}', f'--regid={user}', '--clear-groups'] if bare else []
    place.start([*own_ipc, f'{programs}/postgres', '-D', f'{place.data}/db', '-p', str(port), '-k', place.data, '-h', '0.0.0.0',
                 '-c', 'shared_buffers=16MB'], user=None if bare else user)
    client = ['psql', '-h', place.host, '-p', str(port), '-U', 'tester', '-d', 'postgres', '-X', '-A', '-t', '-q']
    if not bare:
        client = ['ip', 'netns', 'exec', place.networks[1], *client]
    until(lambda: command(*client, '-c', 'create table t (n int)', ok=False).returncode == 0, 'postgresql to serve')
    session = subprocess.Popen(client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)

    def say(text, answer):
        session.stdin.write(text + '\n')
        session.stdin.flush()
        line = session.stdout.readline().strip()
        check(line == answer, f'{text}: "{line}", not "{answer}"')
    try:
        for number in range(2):
            say(f'begin; insert into t values ({number}); select count(*) from t;', str(number + 1))
            place.move()
            check(command(*client, '-c', 'select count(*) from t').stdout.strip() == str(number), 'a new session sees what is not committed')
            say('commit; select count(*) from t;', str(number + 1))
            check(command(*client, '-c', 'select count(*) from t').stdout.strip() == str(number + 1), 'it is not committed')
    finally:
        session.kill()
        session.wait()


def tmux(place, directory):
    """A shell in a terminal of the server's, with a variable, a job, a half-typed command, and what is on the screen."""
    need('tmux')
    path = f'{place.data}/socket'
    place.start(['/usr/bin/tmux', '-D', '-S', path, '-f', '/dev/null'])

    def tell(*words, ok=True):
        return command('tmux', '-S', path, *words, ok=ok)
    until(lambda: os.path.exists(path), 'tmux to listen')   # or the client makes a server of its own
    until(lambda: tell('new-session', '-d', '-x', '80', '-y', '24', '/bin/sh', ok=False).returncode == 0, 'tmux to serve')

    def shows(text):
        return any(line.strip() == text for line in tell('capture-pane', '-p').stdout.splitlines())
    until(lambda: shows('#') or shows('$'), 'a prompt')   # or what is typed is echoed before it
    tell('send-keys', 'N=40; sleep 1000 & echo begun', 'Enter')
    until(lambda: shows('begun'), 'the shell')
    for number in range(41, 43):
        tell('send-keys', 'N=$((N + 1)); kill -0 $! && echo now')
        place.move()
        check(shows('begun'), 'the screen is lost')
        tell('send-keys', ' $N', 'Enter')
        until(lambda: shows(f'now {number}'), 'the shell to answer')
    tell('resize-window', '-x', '100', '-y', '30')
    tell('send-keys', 'stty size', 'Enter')
    until(lambda: shows('30 100'), 'the new size of the window')


def stress(place, directory):
    """Workers of many kinds go on."""
    need('stress-ng')
    place.start(['/usr/bin/stress-ng', '--cpu', '1', '--vm', '1', '--vm-bytes', '16M', '--pipe', '1', '--timer', '1', '--futex', '1',
                 '--switch', '1', '--temp-path', place.data, '--no-rand-seed'])

    def worker():
        return [pid for pid in tasks.tree(place.pid) if pid != place.pid]
    until(lambda: len(worker()) >= 10, 'the workers')
    for _ in range(2):
        place.move()
        pids = worker()
        check(len(pids) >= 6, f'{len(pids)} workers are left')

        def used(pid):
            return sum(map(int, tasks.read(f'/proc/{pid}/stat').rpartition(')')[2].split()[11:13]))
        before = {pid: used(pid) for pid in pids}
        until(lambda: sum(used(pid) > before.get(pid, 0) for pid in worker() if pid in before) >= 3, 'the workers to work')


CASES = {'python': line_server(python), 'node': line_server(node), 'go': line_server(go), 'java': line_server(java),
         'redis': redis, 'nginx': nginx, 'postgresql': postgresql, 'tmux': tmux, 'stress': stress}


def main():
    wanted = os.environ.get('STASIS_TEST_FILTER', '')
    bad = False
    for case, run in CASES.items():
        for place in (Bare, Container):
            name = f'apps {case}_{place.name}'
            if os.environ.get('STASIS_TEST_LIST'):
                print(name)
                continue
            if wanted not in name:
                continue
            with tempfile.TemporaryDirectory(prefix='stasis-app-', dir='/var/tmp') as directory:
                os.chmod(directory, 0o755)
                here = None
                try:
                    here = place(directory)
                    run(here, directory)
                    print(f'ok {name}')
                except Skip as why:
                    print(f'skip {name}: {why}')
                except (Failed, OSError, subprocess.SubprocessError, ValueError) as error:
                    bad = True
                    print(f'FAIL {name}: {type(error).__name__} {error}'.replace('\n', ' ')[:700])
                finally:
                    if here:
                        here.clean()
            sys.stdout.flush()
    sys.exit(bad)


main()
