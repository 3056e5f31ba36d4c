/*
 * sandbox: a program confines itself after opening a database.
 *
 * Promise: where a filter of system calls forbids membarrier(2), getrandom(2) and the opening of
 * files, what can be done without them goes on as before: nothing panics, no handle is poisoned,
 * and readers beside a compaction and an erasure see what was committed.
 */
#define _GNU_SOURCE
#include "harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define IDS 100
#define READERS 2

/* Forbids these system calls to this thread. */
static void
confine(const int *forbidden, size_t count)
{
    struct sock_filter filter[16];
    struct sock_fprog program = {0, filter};
    size_t i;

    CHECK(count <= 4);
    filter[program.len++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                         offsetof(struct seccomp_data, nr));
    for (i = 0; i < count; i++) {
        filter[program.len++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)forbidden[i], 0, 1);
        filter[program.len++] =
            (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    }
    filter[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

typedef struct reading {
    ourdb *db;
    volatile int *stop;
    pthread_t thread;
} reading;

static void *
read_on(void *argument)
{
    reading *reading = argument;

    while (!*reading->stop) {
        char value[16];
        size_t len;
        uint32_t id;

        for (id = 1; id <= IDS; id++) {
            int code = ourdb_get_into(reading->db, id, value, sizeof value, &len);

            CHECK(code == OURDB_NOT_FOUND ? id % 10 == 5 : code == OURDB_OK && len == 5);
        }
    }
    return NULL;
}

static void
without_membarrier(void)
{
    const int forbidden[] = {SYS_membarrier};
    ourdb *db = OPEN(test_path("sandbox-db"), NULL);
    reading readers[READERS];
    ourdb_retention retention;
    volatile int stop = 0;
    uint32_t id;
    int i;

    test_phase("without membarrier");
    for (id = 1; id <= IDS; id++) {
        uint32_t given;

        CHECK_OK(ourdb_insert(db, "value", 5, &given));
    }
    for (i = 0; i < READERS; i++) {
        readers[i].db = db;
        readers[i].stop = &stop;
        CHECK(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]) == 0);
    }
    confine(forbidden, 1);
    ourdb_retention_init(&retention, sizeof retention);
    for (id = 5; id <= IDS; id += 10) {
        CHECK_OK(ourdb_set(db, id - 1, "other", 5));
        CHECK_OK(ourdb_erase(db, id));
        CHECK_OK(ourdb_compact(db, &retention, NULL, NULL));
    }
    stop = 1;
    for (i = 0; i < READERS; i++) {
        CHECK(pthread_join(readers[i].thread, NULL) == 0);
    }
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_COUNT(db, IDS - IDS / 10);
    CHECK_OK(ourdb_close(db));
    db = OPEN(test_path("sandbox-db"), NULL);
    CHECK_OK(ourdb_erase(db, 4));
    CHECK_COUNT(db, IDS - IDS / 10 - 1);
    CHECK_OK(ourdb_close(db));
}

static void
without_randomness_and_files(void)
{
    const int forbidden[] = {SYS_membarrier, SYS_getrandom, SYS_openat};
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY);
    ourdb *db = OPEN(NULL, &options);
    ourdb_txn *txn;
    uint32_t id;
    uint64_t count;

    test_phase("without randomness and files");
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    confine(forbidden, 3);
    CHECK_OK(ourdb_txn_begin(db, 0, &txn));
    CHECK_TXN_VALUE(txn, id, "one", 3);
    CHECK_OK(ourdb_txn_count(txn, &count));
    CHECK_OK(ourdb_txn_set(txn, id, "two", 3));
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_VALUE(db, id, "two", 3);
    CHECK_OK(ourdb_erase(db, id));
    CHECK_ABSENT(db, id);
    CHECK_OK(ourdb_close(db));
}

int
main(void)
{
    static void (*const parts[])(void) = {without_membarrier, without_randomness_and_files};
    size_t i;

    test_begin("sandbox");
    for (i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        pid_t child = test_fork();

        if (child == 0) {
            parts[i]();
            _exit(0);
        }
        test_wait(child);
    }
    return test_end();
}
