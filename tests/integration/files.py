#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Open files, what the live programs cannot see of them: files that changed between checkpoint and restore are named,
locks that somebody else holds by then, hostile records. Lines as in tests/live/run.py."""
import contextlib
import fcntl
import json
import os
import stat
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'support'), os.path.join(HERE, '..', 'live')]
import run as live  # noqa: E402

check = live.check


@contextlib.contextmanager
def checkpointed(name, directory, flavour='host', options=()):
    """(program, its images, directory of its files); it must come back in the end and find itself whole."""
    program = live.Program(name, flavour, directory)
    try:
        images = os.path.join(directory, 'images')
        os.mkdir(images)
        live.Cli().dump(program, images, {'cli dump': list(options)})
        live.until(program.gone, 'tasks are left after dump')
        yield program, images, os.path.dirname(program.result)
        program.pid = live.Cli().restore(program, images, {})
        program.pids.append(program.pid)
        program.finish()
    finally:
        program.clean()


def refused(program, images, *texts):
    try:
        live.Cli().restore(program, images, {})
    except live.Failed as why:
        for text in texts:
            check(text in str(why), f'"{text}" is not in: {why}')
        return
    raise live.Failed('this restore should have failed')


def changed_files_are_named(directory):
    with checkpointed('regular_files', directory) as (program, images, files):
        path = os.path.join(files, 'data.txt')
        mode = os.stat(path).st_mode & 0o7777
        os.chmod(path, 0o604)
        refused(program, images, 'STASIS-E-FILE-MISSING', path, 'had mode', '604')
        os.chmod(path, mode)
        with open(path, 'ab') as file:
            file.write(b'!')
        refused(program, images, 'STASIS-E-FILE-MISSING', path, 'had 16 bytes')
        os.truncate(path, 16)
        os.rename(path, path + '.away')
        refused(program, images, 'STASIS-E-FILE-MISSING', path, 'is missing')
        os.mkdir(path)
        refused(program, images, 'STASIS-E-FILE-MISSING', path, 'another type')
        os.rmdir(path)
        os.rename(path + '.away', path)


def another_build_is_named(directory):
    with checkpointed('regular_files', directory, 'ns', ['--file-validation', 'buildid']) as (program, images, files):
        path = os.path.join(files, 'program')
        notes = subprocess.run(['readelf', '-n', path], capture_output=True, text=True, timeout=60).stdout
        ident = bytes.fromhex(notes.split('Build ID:')[1].split()[0])
        with open(path, 'rb') as file:
            whole = file.read()
        check(whole.count(ident) == 1, 'no build id')
        with open(path, 'wb') as file:
            file.write(whole.replace(ident, bytes([ident[0] ^ 1]) + ident[1:]))
        refused(program, images, 'STASIS-E-FILE-MISSING', '/live/program', 'another build')
        with open(path, 'wb') as file:
            file.write(whole)


def later_changes_are_named(directory):
    with checkpointed('regular_files', directory, options=['--file-validation', 'mtime']) as (program, images, files):
        path = os.path.join(files, 'data.txt')
        before = os.stat(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        refused(program, images, 'STASIS-E-FILE-MISSING', path, 'mtime')
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def external_file(directory, dump, restore):
    """A file that the client names is not looked for: it gives another one."""
    program = live.Program('regular_files', 'host', directory)
    path, moved = os.path.join(directory, 'data.txt'), os.path.join(directory, 'moved')
    given = -1
    try:
        images = os.path.join(directory, 'images')
        os.mkdir(images)
        keys = {}
        for fd in os.listdir(f'/proc/{program.pid}/fd'):
            if os.readlink(f'/proc/{program.pid}/fd/{fd}') == path:
                info = dict(line.split(':', 1) for line in live.tasks.read(f'/proc/{program.pid}/fdinfo/{fd}').splitlines() if ':' in line)
                keys[f'file[{int(info["mnt_id"]):x}:{os.stat(path).st_ino:x}]'] = int(info['flags'].strip(), 8) & os.O_ACCMODE
        check(keys, 'the program has no such file open')
        dump(program, images, list(keys))
        live.until(program.gone, 'tasks are left after dump')
        os.rename(path, moved)   # where it was, nothing is
        try:
            restore(program, images, [])
        except live.Failed as why:
            check('STASIS-E-BAD-OPTION' in str(why) and 'file[' in str(why), str(why))
        else:
            raise live.Failed('nothing was given, and it was restored')
        given = os.open(moved, os.O_RDWR)
        program.pid = restore(program, images, [(given, key) for key in keys])
        program.pids.append(program.pid)
        shown = [os.readlink(f'/proc/{program.pid}/fd/{fd}') for fd in os.listdir(f'/proc/{program.pid}/fd')]
        check(moved in shown and path not in shown, f'open are {shown}')
    finally:
        if given >= 0:
            os.close(given)
        program.clean()


def external_file_by_cli(directory):
    def dump(program, images, keys):
        live.Cli().dump(program, images, {'cli dump': [word for key in keys for word in ('--external', key)]})

    def restore(program, images, given):
        for fd, _ in given:
            os.set_inheritable(fd, True)
        words = [word for fd, key in given for word in ('--inherit-fd', f'fd[{fd}]:{key}')]
        pidfile = os.path.join(program.directory, 'pidfile')
        done = subprocess.run([live.ENGINE, 'restore', '-d', '--pidfile', pidfile, '-D', images, '-o', 'restore.log', *words], capture_output=True,
                              stdin=subprocess.DEVNULL, text=True, timeout=live.HANG, close_fds=False)
        check(done.returncode == 0, f'restore: {done.stderr}')
        return int(live.tasks.read(pidfile))
    external_file(directory, dump, restore)


def external_file_by_rpc(directory):
    def dump(program, images, keys):
        live.Rpc().dump(program, images, {'rpc dump': lambda opts: opts.external.extend(keys)})

    def restore(program, images, given):
        def fill(opts):
            for fd, key in given:
                opts.inherit_fd.add(key=key, fd=fd)
        return live.Rpc().restore(program, images, {'rpc restore': fill})
    external_file(directory, dump, restore)


def locks_of_others_are_named(directory):
    with checkpointed('locks', directory) as (program, images, files):
        for name in 'whole', 'described', 'ranges':
            with open(os.path.join(files, name), 'r+b') as file:
                (fcntl.flock if name == 'whole' else fcntl.lockf)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                refused(program, images, 'STASIS-E-RESTORE-FAILED', os.path.join(files, name), 'held by somebody outside')


def watched_file_that_is_missing_is_named(directory):
    with checkpointed('inotify', directory) as (program, images, files):
        path = os.path.join(files, 'watched')
        os.rename(path, path + '.away')
        refused(program, images, 'STASIS-E-FILE-MISSING', path, 'inotify')
        os.rename(path + '.away', path)


def watches_survive_new_inodes(directory):
    with checkpointed('inotify', directory) as (_, _, files):
        path = os.path.join(files, 'watched')
        os.rename(path, path + '.old')
        os.mkdir(path, 0o700)


def block_device(directory):
    """By its path, at its position; another device under the same name is named."""
    disk, node, other = (os.path.join(directory, name) for name in ('disk', 'node', 'other'))
    with open(disk, 'wb') as file:
        file.truncate(1 << 20)
    made = subprocess.run(['losetup', '-f', '--show', disk], capture_output=True, text=True, timeout=60)
    if made.returncode:
        raise live.Skipped(f'no loop device: {made.stderr.strip()}')
    loop = made.stdout.strip()
    device = os.stat(loop).st_rdev
    program = None
    try:
        os.mknod(node, 0o600 | stat.S_IFBLK, device)
        os.mknod(other, 0o600 | stat.S_IFBLK, os.makedev(os.major(device), os.minor(device) + 1))
        program = live.Program('dev_nodes', 'host', directory, [node])
        for number in 0, 1:
            images = os.path.join(directory, f'images{number}')
            os.mkdir(images)
            live.Cli().dump(program, images, {})
            live.until(program.gone, 'tasks are left after dump')
            os.rename(node, node + '.away')
            os.rename(other, node)
            refused(program, images, 'STASIS-E-FILE-MISSING', node, 'another device')
            os.rename(node, other)
            os.rename(node + '.away', node)
            program.pid = live.Cli().restore(program, images, {})
            program.pids.append(program.pid)
        program.finish()
    finally:
        if program:
            program.clean()
        subprocess.run(['losetup', '-d', loop], timeout=60, check=False)


def other_modes_pass_if_so_told(directory):
    with checkpointed('umask', directory, 'ns') as (program, images, files):
        path = os.path.join(files, 'program')
        mode = os.stat(path).st_mode & 0o7777
        os.chmod(path, 0o711)
        refused(program, images, 'STASIS-E-FILE-MISSING', '/live/program', 'had mode')
        live.Cli().restore(program, images, {'cli restore': ['--skip-file-rwx-check', '--leave-stopped']})
        program.pid = int(live.tasks.read(os.path.join(directory, 'pidfile')))
        program.pids.append(program.pid)
        os.kill(program.pid, 9)
        live.until(lambda: not program.alive(), 'the program does not end')
        os.chmod(path, mode)


def watched_paths(images):
    done = subprocess.run([os.path.join(live.BUILD, 'bin/stasis'), 'show', os.path.join(images, 'files.img')], capture_output=True, text=True, timeout=60)
    return {wd['f_handle']['path'] for entry in json.loads(done.stdout)['entries'] if 'ify' in entry for wd in entry['ify'].get('wd', [])}


def watched_files_are_looked_for_where_told(directory):
    program = live.Program('inotify', 'host', directory)
    try:
        for number, place in enumerate(['here', 'there']):
            images, place = os.path.join(directory, f'images{number}'), os.path.join(directory, place)
            os.mkdir(images)
            os.mkdir(place)
            wanted = os.path.join(place, 'linked')
            os.link(os.path.join(directory, 'new'), wanted)
            live.Cli().dump(program, images, {'cli dump': ['--force-irmap', '--irmap-scan-path', place], 'leave running': number == 0})
            check(wanted in watched_paths(images), f'{wanted} is not among {watched_paths(images)}')
        live.until(program.gone, 'tasks are left after dump')
        program.pid = live.Cli().restore(program, images, {})
        program.pids.append(program.pid)
        program.finish()
    finally:
        program.clean()


def watches_on_overlayfs(directory):
    """Its files have handles that nobody can open, and tell the devices of their layers."""
    for flavour, options in ('ns', 'xino=off'), ('ns', 'xino=auto'), ('userns', 'xino=off'):
        place = os.path.join(directory, f'{flavour}-{options}')
        layers = [os.path.join(place, name) for name in ('lower', 'upper')]
        top = os.path.join(place, 'run', 'root')
        os.makedirs(top)
        mounted = []
        try:
            for layer in layers:   # a file system each
                os.mkdir(layer)
                check(live.libc.mount(b'layer', layer.encode(), b'tmpfs', 0, None) == 0, 'mount of tmpfs')
                mounted.append(layer)
            for name in 'data', 'work':
                os.mkdir(os.path.join(layers[1], name))
            os.chmod(os.path.join(layers[1], 'data'), 0o755)
            words = f'lowerdir={layers[0]},upperdir={layers[1]}/data,workdir={layers[1]}/work,{options}'
            if live.libc.mount(b'overlay', top.encode(), b'overlay', 0, words.encode()) < 0:
                raise live.Skipped('no overlayfs with these options here')
            mounted.append(top)
            live.run_program(os.path.join(place, 'run'), 'inotify', flavour, live.Cli(), 2, {})
        finally:
            for path in reversed(mounted):
                live.libc.umount2(path.encode(), 2)


CASES = [changed_files_are_named, other_modes_pass_if_so_told, block_device, another_build_is_named, later_changes_are_named,
         external_file_by_cli, external_file_by_rpc, locks_of_others_are_named, watched_file_that_is_missing_is_named,
         watches_survive_new_inodes, watched_files_are_looked_for_where_told, watches_on_overlayfs]


if __name__ == '__main__':
    if not os.environ.get('STASIS_TEST_LIST'):   # roots of containers are mounted
        check(live.libc.unshare(live.CLONE_NEWNS) == 0 and live.libc.mount(b'none', b'/', None, 0x4000 | 0x40000, None) == 0, 'unshare')
    sys.exit(live.run_cases('files', CASES))
