#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make_bundle.py DIR [OPTIONS] [--] COMMAND...: an OCI bundle of Debian's busybox-static, config.json by `runc spec`."""
import argparse
import json
import os
import shutil
import subprocess

parser = argparse.ArgumentParser()
parser.add_argument('directory')
parser.add_argument('--readonly', action='store_true')
parser.add_argument('--terminal', action='store_true')
parser.add_argument('--hostname')
parser.add_argument('--cgroup')
parser.add_argument('--cgroup-namespace', action='store_true')
parser.add_argument('--pids', type=int, default=0)
# One list: mounts are made in the order they are given.
parser.add_argument('--bind', action='append', dest='mounts', default=[], metavar='SOURCE:DESTINATION')
parser.add_argument('--tmpfs', action='append', dest='mounts', metavar='DESTINATION')
parser.add_argument('command', nargs='+')
arguments = parser.parse_args()

root = os.path.join(arguments.directory, 'rootfs')
for name in ('bin', 'proc', 'dev', 'sys', 'tmp', 'etc', 'root'):
    os.makedirs(os.path.join(root, name), exist_ok=True)
shutil.copy('/usr/bin/busybox' if os.path.exists('/usr/bin/busybox') else '/bin/busybox', os.path.join(root, 'bin/busybox'))
subprocess.run(['chroot', root, '/bin/busybox', '--install', '-s', '/bin'], check=True)
path = os.path.join(arguments.directory, 'config.json')
if not os.path.exists(path):
    subprocess.run(['runc', 'spec', '-b', arguments.directory], check=True)
with open(path) as file:
    config = json.load(file)
config['process'].update(terminal=arguments.terminal, args=arguments.command, cwd='/',
                         rlimits=[{'type': 'RLIMIT_NOFILE', 'hard': 1024, 'soft': 1024}])   # more would need CAP_SYS_RESOURCE
config['root']['readonly'] = arguments.readonly
if arguments.hostname:
    config['hostname'] = arguments.hostname
if arguments.cgroup:
    config['linux']['cgroupsPath'] = arguments.cgroup
if arguments.cgroup_namespace and {'type': 'cgroup'} not in config['linux']['namespaces']:
    config['linux']['namespaces'].append({'type': 'cgroup'})
if arguments.pids:
    config['linux'].setdefault('resources', {})['pids'] = {'limit': arguments.pids}
for mount in arguments.mounts:
    source, _, destination = mount.rpartition(':')
    config['mounts'].append({'destination': destination, 'type': 'bind', 'source': source, 'options': ['bind', 'rw']} if source else
                            {'destination': destination, 'type': 'tmpfs', 'source': 'tmpfs', 'options': ['nosuid', 'size=16m', 'mode=1777']})
with open(path, 'w') as file:
    json.dump(config, file, indent=1)
