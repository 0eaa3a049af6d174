#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Memory of every kind, what the live programs cannot see of it: the size of the images, what another host may lack,
the limit for deleted files, what other readers make of the images. Lines as in tests/live/run.py."""
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'support'), os.path.join(HERE, '..', 'live')]
import run as live  # noqa: E402
from stasis_test import tasks  # noqa: E402

check = live.check


def images_of(program):
    images = os.path.join(program.directory, 'images')
    os.mkdir(images)
    return images


def restored(program, images, options=None):
    live.until(program.gone, 'tasks are left after dump')
    program.pid = live.Cli().restore(program, images, options or {})
    program.pids.append(program.pid)
    program.finish()


def shown(images, name):
    """As Debian's crit reads it; contents that follow records are left out."""
    done = subprocess.run(['crit', 'decode', '-i', os.path.join(images, name)], capture_output=True, text=True, timeout=60)
    check(done.returncode == 0, f'crit {name}: {done.stderr[-300:]}')
    return json.loads(done.stdout)['entries']


def what_is_not_there_costs_nothing(directory):
    # A shared gigabyte with three pages, and shared objects with holes and without anything.
    program = live.Program('shm_anon', 'host', directory)
    try:
        images = images_of(program)
        live.Cli().dump(program, images, {})
        size = sum(os.stat(os.path.join(images, name)).st_size for name in os.listdir(images))
        check(size < 3 << 20, f'the images have {size} bytes')
        maps = [name for name in os.listdir(images) if name.startswith('pagemap-shmem-')]
        pages = [sum(run['nr_pages'] for run in shown(images, name)[1:]) for name in maps]
        check(sorted(pages) == [0, 0, 1, 3, 60], f'pages by object: {pages}')
        restored(program, images)
    finally:
        program.clean()


def reserved_and_zero_pages_cost_nothing(directory):
    program = live.Program('memory', 'host', directory)   # reserves a gigabyte and never touches it
    try:
        images = images_of(program)
        live.Cli().dump(program, images, {})
        size = sum(os.stat(os.path.join(images, name)).st_size for name in os.listdir(images))
        check(size < 40 << 20, f'the images have {size} bytes')
        restored(program, images)
    finally:
        program.clean()


def huge_pages_are_looked_for_first(directory):
    with live.huge_pages('hugetlb'):
        program = live.Program('hugetlb', 'host', directory)
        try:
            program.must_be_there()
            images = images_of(program)
            live.Cli().dump(program, images, {})
            live.until(program.gone, 'tasks are left after dump')
            before = tasks.read(live.HUGE_PAGES).strip()
            with open(live.HUGE_PAGES, 'w') as file:
                file.write('0')
            done, why = live.Cli.run(['restore', '-d'], images, 'restore.log')
            check(done.returncode == 1 and 'huge pages of 2048 kB' in why, f'status {done.returncode}: {why}')
            with open(live.HUGE_PAGES, 'w') as file:
                file.write(before)
            restored(program, images)
        finally:
            program.clean()


def limit_for_deleted_files(directory):
    program = live.Program('refused', 'host', directory, ['deleted_large_mapping'])
    try:
        images = images_of(program)
        live.Cli().dump(program, images, {'cli dump': ['--ghost-limit', '8M']})
        restored(program, images)
    finally:
        program.clean()


def other_readers(directory):
    for name, files in (('memfd', ['memfd.img']), ('deleted_mapping', ['remap-fpath.img', 'ghost-file-1.img']),
                        ('sysv_shm', ['ipcns-shm-13.img']), ('sysv_queues', ['ipcns-sem-13.img', 'ipcns-msg-13.img'])):
        inside = os.path.join(directory, name)
        os.mkdir(inside)
        program = live.Program(name, 'ns', inside)
        try:
            images = images_of(program)
            live.Cli().dump(program, images, {})
            for file in files + ['mm-1.img'] + [f for f in os.listdir(images) if f.startswith('pagemap-shmem-')]:
                check(shown(images, file), f'{file} is empty')
            done = subprocess.run([os.path.join(live.BUILD, 'bin/stasis'), 'show', images], capture_output=True, text=True, timeout=60)
            check(done.returncode == 0, f'stasis show: {done.stderr[-300:]}')
            restored(program, images)
        finally:
            program.clean()


def damaged_images(directory):
    """Every record of the files that are new here, cut short: an error, and nothing is left."""
    for name, files in (('memfd', ['memfd.img']), ('deleted_mapping', ['ghost-file-1.img', 'remap-fpath.img']),
                        ('sysv_shm', ['ipcns-shm-13.img']), ('sysv_queues', ['ipcns-sem-13.img', 'ipcns-msg-13.img'])):
        inside = os.path.join(directory, name)
        os.mkdir(inside)
        program = live.Program(name, 'ns', inside)
        try:
            images = images_of(program)
            live.Cli().dump(program, images, {})
            live.until(program.gone, 'tasks are left after dump')
            os.unlink(os.path.join(images, 'stasis-manifest.img'))   # whose checksums would find it first
            for file in files:
                path = os.path.join(images, file)
                whole = open(path, 'rb').read()
                for length in (9, len(whole) - 1):
                    with open(path, 'wb') as cut:
                        cut.write(whole[:length])
                    done, why = live.Cli.run(['restore', '-d', '--root', program.root, '--empty-ns', 'net'], images, 'restore.log')
                    check(done.returncode == 1 and 'STASIS-E-IMAGE' in why, f'{file} of {length} bytes: status {done.returncode}: {why}')
                with open(path, 'wb') as again:
                    again.write(whole)
        finally:
            program.clean()


def deleted_executable(directory):
    shutil.copy(os.path.join(live.BUILD, 'live', 'umask'), directory)
    usual, live.LIVE = live.LIVE, directory
    try:
        program = live.Program('umask', 'host', directory)
    finally:
        live.LIVE = usual
    try:
        os.unlink(os.path.join(directory, 'umask'))
        images = images_of(program)
        before = program.look()
        live.Cli().dump(program, images, {'cli dump': ['--ghost-limit', '8M']})
        live.until(program.gone, 'tasks are left after dump')
        program.pid = live.Cli().restore(program, images, {})
        program.pids.append(program.pid)
        exe = os.readlink(f'/proc/{program.pid}/exe')
        check(exe == os.path.join(directory, 'umask') + ' (deleted)', f'the executable is {exe}')
        differs = tasks.difference(before, program.look())
        check(not differs, differs)
        program.finish()
    finally:
        program.clean()


def semaphore_adjustments_are_refused(directory):
    program = live.Program('refused', 'ns', directory, ['semaphore_undo'])
    try:
        images = images_of(program)
        done, why = live.Cli.run(['dump', '-t', str(program.pid), '--empty-ns', 'net'], images, 'dump.log')
        check(done.returncode == 1 and 'SEM_UNDO' in why, f'status {done.returncode}: {why}')
        check(program.alive(), 'the program is gone after a refusal')
    finally:
        program.clean()


CASES = [what_is_not_there_costs_nothing, reserved_and_zero_pages_cost_nothing, huge_pages_are_looked_for_first, limit_for_deleted_files,
         deleted_executable, semaphore_adjustments_are_refused, other_readers, damaged_images]


if __name__ == '__main__':
    if not os.environ.get('STASIS_TEST_LIST'):   # roots of containers are mounted
        check(live.libc.unshare(live.CLONE_NEWNS) == 0 and live.libc.mount(b'none', b'/', None, 0x4000 | 0x40000, None) == 0, 'unshare')
    sys.exit(live.run_cases('memory', CASES))
