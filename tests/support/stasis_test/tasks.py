# SPDX-License-Identifier: Apache-2.0
"""What /proc shows of a tree of tasks, in a form that can be compared before a checkpoint and after a restore."""
import fcntl
import os
import re
import time

STATUS_LINES = ('Name', 'Umask', 'Uid', 'Gid', 'Groups', 'Threads', 'SigBlk', 'SigIgn', 'SigCgt', 'CapInh', 'CapPrm', 'CapEff',
                'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp', 'Seccomp_filters', 'THP_enabled', 'Cpus_allowed')


def read(path):
    try:
        with open(path, errors='surrogateescape') as file:
            return file.read()
    except OSError:
        return ''


def status_of(pid):
    return dict(line.split(':\t', 1) for line in read(f'/proc/{pid}/status').splitlines() if ':\t' in line)


def stat_of(pid):
    """Fields of /proc/PID/stat from field 3 on; empty if there is no such task."""
    return read(f'/proc/{pid}/stat').rpartition(')')[2].split()


def numbers_in(directory):
    try:
        return [int(name) for name in os.listdir(directory) if name.isdigit()]
    except OSError:
        return []


def exists(pid):
    return bool(stat_of(pid))


def tree(root):
    """root and all its descendants, parents first."""
    children = {}
    for name in os.listdir('/proc'):
        if name.isdigit():
            fields = stat_of(name)
            if fields:
                children.setdefault(int(fields[1]), []).append(int(name))
    found = [root]
    for pid in found:
        found += sorted(children.get(pid, []))
    return found


def inner_pid(pid):
    return int((status_of(pid).get('NSpid') or str(pid)).split()[-1])


def namespace_owner(pid):
    """The user of the host whom the user namespace belongs to: NS_GET_OWNER_UID, ioctl_ns(2)."""
    fd = os.open(f'/proc/{pid}/ns/user', os.O_RDONLY)
    try:
        return int.from_bytes(fcntl.ioctl(fd, 0xb704, bytes(4)), 'little')
    finally:
        os.close(fd)


def merged_maps(pid, numbers):
    """Files without a name have a new inode after a restore: they are numbered in order of appearance. Neighbours that continue each other are one: the kernel merges them or not by the history of their pages."""
    areas = []
    for line in read(f'/proc/{pid}/maps').splitlines():
        span, protection, offset, *rest = line.split(None, 5)
        if rest[-1] == '[vsyscall]':   # no mapping of the task's: shown, by the kernel, of what was not made as 32-bit code
            continue
        start, end = (int(part, 16) for part in span.split('-'))
        offset = int(offset, 16)
        if rest[-1].startswith('/anon_hugepage') and 'p' in protection:
            offset, rest[1] = 0, '0'   # of no meaning: nobody else has that file
        elif rest[-1].endswith('(deleted)') and not rest[-1].startswith('/SYSV'):
            rest[1] = f'nameless {numbers.setdefault(("map", rest[0], rest[1]), len(numbers))}'
        same = [protection] + rest
        if areas:
            last_start, last_end, last_offset, last_same = areas[-1]
            continues = rest[1] == '0' or offset == last_offset + last_end - last_start
            if last_end == start and last_same == same and continues:
                areas[-1][1] = end
                continue
        areas.append([start, end, offset, same])
    return [f'{start:x}-{end:x} {same[0]} {offset:x} {" ".join(same[1:])}' for start, end, offset, same in areas]


NAMESPACES = ('cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts')


def descriptors(pid, pipes):
    """fd -> (what it is, position, flags). Pipes and sockets are numbered in order of appearance over all tasks."""
    found = {}
    try:
        names = sorted(os.listdir(f'/proc/{pid}/fd'), key=int)
    except OSError:
        return found
    for fd in names:
        try:
            target = os.readlink(f'/proc/{pid}/fd/{fd}')
        except OSError:
            continue
        if target.startswith(('pipe:[', 'socket:[')):
            target = f'{target.split(":")[0]} {pipes.setdefault(target, len(pipes))}'
        if target.split(':')[0] in NAMESPACES:
            target = target.split(':')[0]   # the restored ones are new
        info = dict(line.split(':\t', 1) for line in read(f'/proc/{pid}/fdinfo/{fd}').splitlines() if ':\t' in line)
        flags = int(info.get('flags', '0'), 8)
        if target.endswith(' (deleted)') and not target.startswith('/memfd:'):
            # The name is another one if somebody has taken it; O_TMPFILE acts when a file is opened.
            target, flags = f'{os.path.dirname(target)}/ (deleted)', flags & ~0o20200000
        found[int(fd)] = (target, info.get('pos'), f'{flags:o}')
    return found


def mounts(pid):
    """Mountpoint, root, options, whether shared or slave, type and options of the file system; ids are new each time."""
    found = []
    for line in read(f'/proc/{pid}/mountinfo').splitlines():
        left, right = line.split(' - ', 1)
        fields, kind = left.split(), right.split()
        sharing = sorted(field.split(':')[0] for field in fields[6:])
        options = sorted(kind[2].split(','))
        found.append((fields[4], fields[3], ','.join(sorted(fields[5].split(','))), ','.join(sharing), kind[0], ','.join(options)))
    return sorted(found)


def settle(root):
    """Waits until all threads have gone to sleep, each once, so that what they do between their word that they are ready and
    their call that waits is over; those of a program that never sleeps are not waited for long."""
    busy = {f'{pid}/task/{tid}' for pid in tree(root) for tid in numbers_in(f'/proc/{pid}/task')}
    for _ in range(150):
        busy = {task for task in busy if stat_of(task)[:1] in (['R'], ['D'])}
        if not busy:
            return
        time.sleep(0.005)


def snapshot(root):
    """Everything of the tree below root, keyed by the pid that the tasks themselves see."""
    pids = tree(root)
    names = {pid: inner_pid(pid) for pid in pids}
    pipes, found = {}, {}
    for pid in pids:
        status, stat = status_of(pid), stat_of(pid)
        if not stat:
            continue

        def name(text):
            return names.get(int(text), 'outside' if int(text) else 0)
        state = stat[0] if stat[0] in 'TZ' else 'live'
        entry = {'state': state, 'ppid': name(stat[1]) if pid != root else 'outside', 'pgrp': name(stat[2]), 'session': name(stat[3])}
        if state != 'Z':
            entry.update({line: status.get(line) for line in STATUS_LINES})
            entry['nice'], entry['exit signal'] = stat[16], stat[35]
            entry['maps'] = merged_maps(pid, pipes)
            entry['fds'] = descriptors(pid, pipes)
            entry['user namespace belongs to'] = namespace_owner(pid)
            entry['cgroup'] = read(f'/proc/{pid}/cgroup')
            entry['oom_score_adj'] = read(f'/proc/{pid}/oom_score_adj')
            entry['limits'] = read(f'/proc/{pid}/limits')
            entry['cmdline'] = read(f'/proc/{pid}/cmdline')
            entry['threads'] = sorted(
                (status_of(f'{pid}/task/{tid}').get('NSpid', '').split()[-1:], status_of(f'{pid}/task/{tid}').get('SigBlk'),
                 read(f'/proc/{pid}/task/{tid}/comm')) for tid in os.listdir(f'/proc/{pid}/task'))
            if pid == root:
                entry['mounts'] = mounts(pid)
        found[names[pid]] = entry
    return found


def difference(before, after):
    """The first things that differ, as one line; empty if nothing does."""
    out = []
    for pid in sorted(set(before) | set(after)):
        if pid not in after or pid not in before:
            out.append(f'task {pid} is {"missing" if pid not in after else "new"}')
            continue
        for key, value in before[pid].items():
            now = after[pid].get(key)
            if now == value:
                continue
            if now is None:
                out.append(f'task {pid} has no {key} any more: it is in state {after[pid]["state"]}')
            elif isinstance(value, list):
                lost = [item for item in value if item not in now]
                new = [item for item in now if item not in value]
                out.append(f'task {pid} {key}: lost {lost[:3]} new {new[:3]}' if lost or new else f'task {pid} {key}: other order')
            elif isinstance(value, dict):
                changed = {k: (value.get(k), now.get(k)) for k in set(value) | set(now) if value.get(k) != now.get(k)}
                out.append(f'task {pid} {key}: {dict(list(changed.items())[:3])}')
            else:
                out.append(f'task {pid} {key}: {value!r} -> {now!r}')
    return re.sub(r'\s+', ' ', '; '.join(out[:4]))
