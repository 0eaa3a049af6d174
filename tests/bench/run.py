#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Dump and restore of a busybox container by unmodified runc: total time of the engine, and the time the container
stands still, for us and for STASIS_BENCH_PEER (a criu binary) if it is set; and what writing the same bytes costs.
Numbers are medians; the ratios are what to look at. Nothing here passes or fails."""
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SUPPORT = os.path.join(HERE, '..', 'support')
sys.path.insert(0, SUPPORT)
sys.path.append('/usr/lib/python3/dist-packages')
from pycriu.images import stats_pb2  # noqa: E402

BUILD = os.environ.get('STASIS_BUILD', 'build')
ROUNDS = int(os.environ.get('STASIS_BENCH_ROUNDS', '7'))
COUNTER = 'i=0; while :; do i=$((i+1)); echo $i >/files/n; usleep 1000; done'


def stats(path):
    with open(path, 'rb') as file:
        data = file.read()
    entry = stats_pb2.stats_entry()
    entry.ParseFromString(data[12:12 + int.from_bytes(data[8:12], 'little')])
    return entry


def runc(directory, criu, *arguments):
    """Milliseconds. Errors go by a log: standard error would be the container's, a file outside of it."""
    begin, log = time.monotonic(), os.path.join(directory, 'runc.log')
    done = subprocess.run(['runc', '--log', log, '--criu', criu, *arguments], cwd=directory, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if done.returncode:
        with open(log) as file:
            sys.exit(f'bench: runc {" ".join(arguments)}: {file.read().strip()}')
    return (time.monotonic() - begin) * 1000


def wait_for(path):
    end = time.monotonic() + 30
    while not os.path.exists(path) or not os.path.getsize(path):
        if time.monotonic() > end:
            sys.exit('bench: the container does not count')
        time.sleep(0.005)


def measure(criu, container_id, directory, memory):
    """Rounds of checkpoint and restore; a dict of lists of milliseconds."""
    bundle, files = os.path.join(directory, 'bundle'), os.path.join(directory, 'files')
    os.makedirs(files, exist_ok=True)
    command = (f'x=$(head -c {memory} /dev/zero | tr "\\000" x); ' if memory else '') + COUNTER
    subprocess.run([sys.executable, os.path.join(SUPPORT, 'make_bundle.py'), bundle, '--bind', f'{files}:/files', '--cgroup', f'/{container_id}',
                    '--', 'sh', '-c', command], check=True)
    found = {'dump': [], 'restore': [], 'frozen': [], 'memory': [], 'bytes': 0}
    try:
        runc(directory, criu, 'run', '-d', '-b', bundle, container_id)
        wait_for(os.path.join(files, 'n'))
        for round_ in range(ROUNDS + 1):
            images, work = os.path.join(directory, 'images'), os.path.join(directory, 'work')
            shutil.rmtree(images, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)
            dump = runc(directory, criu, 'checkpoint', '--image-path', images, '--work-path', work, container_id)
            restore = runc(directory, criu, 'restore', '-d', '-b', bundle, '--image-path', images, '--work-path', work, container_id)
            if round_ == 0:   # the first one warms memory and the page cache
                continue
            entry = stats(os.path.join(work, 'stats-dump')).dump
            found['dump'].append(dump)
            found['restore'].append(restore)
            found['frozen'].append(entry.frozen_time / 1000)
            found['memory'].append((entry.memdump_time + entry.memwrite_time) / 1000)
            found['bytes'] = sum(os.path.getsize(os.path.join(images, f)) for f in os.listdir(images))
    finally:
        subprocess.run(['runc', 'delete', '-f', container_id], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return found


def plain_write(directory, size):
    """What the disk alone takes for as many bytes, in 1 MiB writes, without fsync."""
    chunk, times = b'x' * (1 << 20), []
    for _ in range(ROUNDS):
        path = os.path.join(directory, 'plain')
        begin = time.monotonic()
        with open(path, 'wb', buffering=0) as file:
            left = size
            while left > 0:
                left -= file.write(chunk[:left])
        times.append((time.monotonic() - begin) * 1000)
        os.unlink(path)
    return statistics.median(times)


def runc_alone():
    """runc's own share, which every command pays at least."""
    times = []
    for _ in range(ROUNDS):
        begin = time.monotonic()
        subprocess.run(['runc', 'list'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append((time.monotonic() - begin) * 1000)
    return statistics.median(times)


def main():
    engines = {'stasis': os.path.abspath(os.path.join(BUILD, 'libexec/stasis/criu'))}
    if os.environ.get('STASIS_BENCH_PEER'):
        engines['peer'] = os.environ['STASIS_BENCH_PEER']
    directory = tempfile.mkdtemp(prefix='stasis-bench-')
    try:
        for title, memory in (('busybox container', 0), ('with 64 MiB in its shell', 64 << 20)):
            results = {name: measure(criu, f'stasis-bench-{os.getpid()}-{name}', os.path.join(directory, f'{name}{memory}'), memory)
                       for name, criu in engines.items()}
            size = results['stasis']['bytes']
            print(f'{title}: {size / 1024:.0f} KiB of images; median of {ROUNDS} rounds in ms, runc included')
            print(f'  {"":10}{"dump":>10}{"frozen":>10}{"memory":>10}{"restore":>10}')
            medians = {name: {key: statistics.median(found[key]) for key in ('dump', 'frozen', 'memory', 'restore')} for name, found in results.items()}
            for name, row in medians.items():
                print(f'  {name:10}' + ''.join(f'{row[key]:10.1f}' for key in ('dump', 'frozen', 'memory', 'restore')))
            if 'peer' in medians:
                print(f'  {"ratio":10}' + ''.join(f'{medians["stasis"][key] / max(medians["peer"][key], 1e-3):10.2f}' for key in ('dump', 'frozen', 'memory', 'restore')))
            print(f'  a plain write of as many bytes: {plain_write(directory, size):.1f} ms; runc alone: {runc_alone():.1f} ms')
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == '__main__':
    main()
