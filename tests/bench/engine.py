#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The engine alone, on plain processes: many tasks, threads, mappings, much memory. Times in ms, the images' size, the engine's peak memory; as
ratios to STASIS_BENCH_PEER (a criu binary) if it is set, and to what one process needs to write (read) as many bytes. STASIS_BENCH_FILTER selects rows.
Nothing here passes or fails."""
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from run import stats  # noqa: E402

BUILD = os.environ.get('STASIS_BUILD', 'build')
ROUNDS = int(os.environ.get('STASIS_BENCH_ROUNDS', '3'))
ROWS = ([('processes', n) for n in (1, 10, 100, 500)] + [('threads', n) for n in (1, 100, 1000)] +
        [('memory', n) for n in (64, 1024, 4096)] + [('huge', n) for n in (64, 1024, 4096)] + [('vmas', n) for n in (500, 5000)] +
        [('workers', n) for n in (10, 100)] + [('connections', 1000), ('pairs', 1000), ('pipes', 10000 if resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 21500 else 9000), ('files', 10000)])
UNITS = {'memory': 'MiB', 'huge': 'MiB, huge pages', 'workers': 'workers share 500 MiB'}
COLUMNS = ('dump', 'frozen', 'restore', 'image', 'dump RSS', 'rest. RSS', 'pss')


def timed(arguments):
    """Milliseconds and peak KiB of the process and what it waited for."""
    begin = time.monotonic()
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f'bench: {" ".join(arguments)}: {said.decode()[-500:]}')
    return (time.monotonic() - begin) * 1000, usage.ru_maxrss


def tree(pid):
    found = [pid]
    for each in found:
        try:
            for thread in os.listdir(f'/proc/{each}/task'):
                with open(f'/proc/{each}/task/{thread}/children') as file:
                    found += [int(child) for child in file.read().split()]
        except OSError:
            pass
    return found


def pss(pids):
    total = 0
    for pid in pids:
        with open(f'/proc/{pid}/smaps_rollup') as file:
            total += next(int(line.split()[1]) for line in file if line.startswith('Pss:'))
    return total / 1024


def kill(pid):
    for each in reversed(tree(pid)):
        try:
            os.kill(each, signal.SIGKILL)
        except OSError:
            pass
    while os.path.exists(f'/proc/{pid}'):
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pass
        time.sleep(0.01)


def in_a_child(work):
    """What it returns: milliseconds. Its memory would count as that of every engine that is started from here later."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(theirs, str(work()).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as file:
        said = file.read()
    os.waitpid(pid, 0)
    return float(said)


def plain(directory, size):
    """One process writes, and reads, as many bytes in 1 MiB pieces: page cache, no fsync."""
    path = os.path.join(directory, 'plain')

    def write():
        chunk, begin = bytearray(b'x' * (1 << 20)), time.monotonic()
        with open(path, 'wb', buffering=0) as file:
            left = size
            while left > 0:
                left -= file.write(memoryview(chunk)[:left])
        return (time.monotonic() - begin) * 1000

    def read():
        begin = time.monotonic()
        whole, at = bytearray(size), 0
        with open(path, 'rb', buffering=0) as file:
            while at < size:
                at += file.readinto(memoryview(whole)[at:at + (1 << 20)])
        return (time.monotonic() - begin) * 1000

    times = {'write': [], 'read': []}
    for _ in range(ROUNDS):
        times['write'].append(in_a_child(write))
        times['read'].append(in_a_child(read))
        os.unlink(path)
    return {key: statistics.median(each) for key, each in times.items()}


def warm(size):
    """A virtual machine touches memory that it has never used several times slower."""
    subprocess.run([sys.executable, '-c', f'x = bytearray({size})\nfor i in range(0, {size}, 4096): x[i] = 1'], check=True)


def measure(engine, kind, n, directory):
    ready = os.path.join(directory, 'ready')
    if os.path.exists(ready):
        os.unlink(ready)
    process = subprocess.Popen([os.path.join(BUILD, 'bench/load'), ready, kind, str(n)], start_new_session=True, cwd='/', stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pid, found = process.pid, {column: [] for column in COLUMNS}
    try:
        while not os.path.exists(ready):
            if process.poll() is not None:
                sys.exit(f'bench: load {kind} {n} ended')
            time.sleep(0.01)
        for round_ in range(ROUNDS + 1):
            # ext4 looks long for an inode that was not deleted in the last seconds: what has many files stays until the end.
            if round_ and len(os.listdir(images)) < 50:
                shutil.rmtree(images)
            images = tempfile.mkdtemp(dir=directory)
            pids = tree(pid)
            timed([engine, 'dump', '-t', str(pid), '-D', images, '--shell-job', '--leave-running'])
            frozen = stats(os.path.join(images, 'stats-dump')).dump.frozen_time / 1000
            images = tempfile.mkdtemp(dir=directory)
            dump, dump_peak = timed([engine, 'dump', '-t', str(pid), '-D', images, '--shell-job'])
            while any(os.path.exists(f'/proc/{each}') for each in pids):
                try:
                    os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    pass
                time.sleep(0.002)
            restore, restore_peak = timed([engine, 'restore', '-d', '-D', images, '--shell-job'])
            if round_ == 0:
                continue
            size = sum(os.stat(os.path.join(images, f)).st_blocks * 512 for f in os.listdir(images))
            for column, value in zip(COLUMNS, (dump, frozen, restore, size / (1 << 20), dump_peak / 1024, restore_peak / 1024, pss(tree(pid)))):
                found[column].append(value)
    finally:
        if os.path.exists(f'/proc/{pid}'):
            kill(pid)
    return {column: statistics.median(values) for column, values in found.items()}


def show(name, row, form='{:10.1f}'):
    print(f'  {name:22}' + ''.join(form.format(row[column]) for column in COLUMNS), flush=True)


def main():
    engines = {'stasis': os.path.abspath(os.path.join(BUILD, 'libexec/stasis/criu'))}
    if os.environ.get('STASIS_BENCH_PEER'):
        engines['peer'] = os.environ['STASIS_BENCH_PEER']
    selected = [row for row in ROWS if os.environ.get('STASIS_BENCH_FILTER', '') in ' '.join(map(str, row))]
    directory = tempfile.mkdtemp(prefix='stasis-bench-', dir=os.environ.get('STASIS_BENCH_DIR'))
    # What is restored comes to us when the engine has gone.
    __import__('ctypes').CDLL(None).prctl(36, 1, 0, 0, 0)
    try:
        print(f'median of {ROUNDS} rounds: dump in ms; standstill of one that is left running in ms; restore in ms; MiB on disk; MiB of the engine, twice; MiB of all tasks after the restore')
        print(f'  {"":22}' + ''.join(f'{column:>10}' for column in COLUMNS))
        for kind, n in selected:
            print(f'{n} {UNITS.get(kind, kind)}')
            warm((n << 20) * 2 if kind in ('memory', 'huge') else 1 << 30)
            rows = {name: measure(engine, kind, n, directory) for name, engine in engines.items()}
            for name, row in rows.items():
                show(name, row)
            if 'peer' in rows:
                show('ratio to the peer', {column: rows['stasis'][column] / max(rows['peer'][column], 1e-3) for column in COLUMNS}, '{:10.2f}')
            if kind in ('memory', 'huge', 'workers'):
                least = plain(directory, int(rows['stasis']['image'] * (1 << 20)))
                print(f'  a plain write {least["write"]:.0f} ms, {least["write"] / rows["stasis"]["frozen"]:.0%} of the standstill; '
                      f'a plain read {least["read"]:.0f} ms, {least["read"] / rows["stasis"]["restore"]:.0%} of the restore')
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == '__main__':
    main()
