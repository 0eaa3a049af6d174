# SPDX-License-Identifier: Apache-2.0
"""Every kind of tests/live/refused.c: the code that the dump must end with and what its text must name."""
FILE = 'STASIS-E-UNSUPPORTED-FILE'
MEMORY = 'STASIS-E-UNSUPPORTED-MEMORY'
NAMESPACE = 'STASIS-E-UNSUPPORTED-NAMESPACE'
OTHER = 'STASIS-E-UNSUPPORTED'

# (kind, code, texts). A row leaves this table when its object can be preserved; a live program takes its place.
REFUSALS = [
    ('eventfd', FILE, ['fd 33', 'eventfd']),
    ('epoll', FILE, ['fd 33', 'eventpoll']),
    ('unix_socket', FILE, ['fd 33', 'socket']),
    ('unix_pair', FILE, ['fd 33', 'socket']),
    ('tcp_connection', FILE, ['fd 33', 'TCP connection', 'ESTABLISHED']),
    ('tcp_ended', FILE, ['fd 33', 'TCP connection', 'ended']),
    ('unaccepted_connection', FILE, ['fd 33', '1 connections not yet accepted']),
    ('udp_queue', FILE, ['fd 33', 'datagrams not yet read']),
    ('multicast_group', FILE, ['fd 33', 'multicast']),
    ('packet_filter', FILE, ['fd 33', 'packet filter']),
    ('raw_socket', FILE, ['fd 33', 'socket']),
    ('foreign_socket', FILE, ['fd 33', 'another network namespace']),
    ('netlink_socket', FILE, ['fd 33', 'socket']),
    ('inotify', FILE, ['fd 33', 'inotify']),
    ('timerfd', FILE, ['fd 33', 'timerfd']),
    ('signalfd', FILE, ['fd 33', 'signalfd']),
    ('memfd', FILE, ['fd 33', 'memfd']),
    ('pidfd', FILE, ['fd 33', 'pidfd']),
    ('io_uring', FILE, ['fd 33', 'io_uring']),
    ('pty', FILE, ['fd 33', 'ptmx']),
    ('fifo', FILE, ['fd 33', 'fifo']),
    ('deleted_file', FILE, ['fd 33', 'deleted']),
    ('flock', OTHER, ['lock']),
    ('posix_lock', OTHER, ['lock']),
    ('shared_anonymous', MEMORY, ['shared']),
    ('sysv_shm', MEMORY, ['SYSV']),
    ('huge_pages', MEMORY, ['huge']),
    ('deleted_mapping', OTHER, ['deleted']),
    ('user_namespace', NAMESPACE, ['user']),
    ('root_in_user_namespace', NAMESPACE, ['user']),
    ('nested_pid_namespace', NAMESPACE, ['pid']),
    ('nested_mount_namespace', NAMESPACE, ['mnt']),
    ('nested_net_namespace', NAMESPACE, ['net']),
    ('nested_uts_namespace', NAMESPACE, ['uts']),
    ('traced', 'STASIS-E-TRACED', ['is traced by pid']),
    ('traced_and_stopped', 'STASIS-E-TRACED', ['is traced by pid', 'and stopped by it']),
    ('shared_descriptor_table', OTHER, ['file table']),
    ('shared_memory_space', OTHER, ['memory']),
    ('vfork_child_that_stays', 'STASIS-E-TIMEOUT', ['waits for its vfork child']),
    ('exited_leader', OTHER, ['has exited while threads of it live on']),
]
