#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Open files, what the live programs cannot see of them: files that changed between checkpoint and restore are named,
locks that somebody else holds by then, hostile records. Lines as in tests/live/run.py."""
import contextlib
import fcntl
import os
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


CASES = [changed_files_are_named, another_build_is_named, locks_of_others_are_named, watched_file_that_is_missing_is_named,
         watches_survive_new_inodes]


if __name__ == '__main__':
    if not os.environ.get('STASIS_TEST_LIST'):   # roots of containers are mounted
        check(live.libc.unshare(live.CLONE_NEWNS) == 0 and live.libc.mount(b'none', b'/', None, 0x4000 | 0x40000, None) == 0, 'unshare')
    sys.exit(live.run_cases('files', CASES))
