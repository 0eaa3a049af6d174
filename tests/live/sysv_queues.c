// SPDX-License-Identifier: Apache-2.0
// System V semaphore sets and message queues: ids, keys, owners, values, messages of several types and lengths in their
// order, limits, a parent and a child that wait for each other by them; semop(2), msgrcv(2).
#include "live.h"
#include <sys/msg.h>
#include <sys/sem.h>

union semun { int val; struct semid_ds *buf; unsigned short *array; };
struct message { long type; char text[5000]; };
static const key_t kKey = 0x5ca1ab1e;

static void operate(int id, unsigned short which, short by) {
  struct sembuf operation = {which, by, 0};
  int got;
  do got = semop(id, &operation, 1);
  while (got < 0 && errno == EINTR);
  CHECK(got == 0, "semaphore %d", which);
}
static void put(int id, long type, size_t size) {
  struct message m = {.type = type};
  memset(m.text, (int)('a' + type % 26), size);
  CHECK(msgsnd(id, &m, size, IPC_NOWAIT) == 0);
}
static void take(int id, long wanted, long type, ssize_t size) {
  struct message m;
  ssize_t got = msgrcv(id, &m, sizeof m.text, wanted, IPC_NOWAIT);
  CHECK(got == size && m.type == type, "%zd bytes of type %ld", got, m.type);
  for (ssize_t i = 0; i < size; i++) CHECK(m.text[i] == 'a' + type % 26);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  unsigned short values[5] = {0, 7, 32767, 1, 0}, now[5];
  int gone = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);  // the ids that stay are not the first ones
  CHECK(gone >= 0 && semctl(gone, 0, IPC_RMID) == 0);
  int set = semget(kKey, 5, IPC_CREAT | IPC_EXCL | 0640), other = semget(IPC_PRIVATE, 3, IPC_CREAT | 0600);
  CHECK(set >= 0 && other >= 0 && semctl(set, 0, SETALL, (union semun){.array = values}) == 0);
  struct semid_ds ds;
  CHECK(semctl(set, 0, IPC_STAT, (union semun){.buf = &ds}) == 0);
  ds.sem_perm.uid = 1234, ds.sem_perm.gid = 4321;
  CHECK(semctl(set, 0, IPC_SET, (union semun){.buf = &ds}) == 0);

  gone = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
  CHECK(gone >= 0 && msgctl(gone, IPC_RMID, NULL) == 0);
  CHECK(seteuid(77) == 0);
  int queue = msgget(kKey, IPC_CREAT | IPC_EXCL | 0666);
  CHECK(seteuid(0) == 0);
  int empty = msgget(kKey + 1, IPC_CREAT | 0600);
  CHECK(queue >= 0 && empty >= 0);
  put(queue, 5, 5000), put(queue, 1, 0), put(queue, 5, 3), put(queue, 9, 8), put(queue, 1l << 40, 1);
  struct msqid_ds msq;
  CHECK(msgctl(empty, IPC_STAT, &msq) == 0);
  msq.msg_qbytes = 100;
  CHECK(msgctl(empty, IPC_SET, &msq) == 0);

  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    live_gate_pass(gate);
    operate(set, 0, -1);  // sleeps until the parent says so, across the checkpoint
    operate(set, 4, 1);
    _exit(0);
  }
  live_gate_await(gate, 1);
  live_ready();
  live_wait();

  CHECK(semget(kKey, 0, 0) == set && msgget(kKey, 0) == queue && msgget(kKey + 1, 0) == empty, "ids have changed");
  CHECK(semctl(set, 0, GETALL, (union semun){.array = now}) == 0 && !memcmp(values, now, sizeof values), "values");
  CHECK(semctl(set, 0, IPC_STAT, (union semun){.buf = &ds}) == 0 && ds.sem_nsems == 5);
  CHECK(ds.sem_perm.uid == 1234 && ds.sem_perm.gid == 4321 && ds.sem_perm.cuid == 0 && (ds.sem_perm.mode & 0777) == 0640);
  CHECK(semctl(other, 2, GETVAL) == 0);
  CHECK(msgctl(queue, IPC_STAT, &msq) == 0 && msq.msg_qnum == 5 && msq.msg_perm.cuid == 77 && msq.msg_perm.uid == 77);
  take(queue, 9, 9, 8);
  take(queue, 0, 5, 5000), take(queue, 0, 1, 0), take(queue, 0, 5, 3), take(queue, 0, 1l << 40, 1);
  CHECK(msgctl(empty, IPC_STAT, &msq) == 0 && msq.msg_qbytes == 100 && msq.msg_qnum == 0);
  operate(set, 0, 1);
  operate(set, 4, -1);
  live_reap_ok(child);
  live_ok();
}
