/*
 * space: a small disk that is really full.
 *
 * Promise: on a full disk the call that needs space returns OURDB_NO_SPACE with a message, and
 * nothing of it is ever seen; everything stays readable, by ids never used too; when space is
 * there again, writes go on through the same handle. No signal: space that a mapping is stored to
 * was had before. A database that is closed or killed on a full disk has lost nothing.
 *
 *   space [rounds]     the last line but one is how many calls found the disk full
 *
 * Needs the right to mount: a small tmpfs and, where there is a loop device, a small ext4 and a
 * small btrfs, in a mount namespace of its own. Under LD_PRELOAD=libinject.so it runs a second time
 * on a file system that can't reserve space.
 */
#define _GNU_SOURCE
#include "../harness.h"

#include "../commits.h"
#include "inject.h"

#include <dlfcn.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>

typedef struct counts {
    uint64_t full;
} counts;

static counts *shared;

/* ---- a small file system ------------------------------------------------------------------- */

static void
mount_tmpfs(const char *where)
{
    test_make_directory(where);
    if (mount("tmpfs", where, "tmpfs", 0, "size=6m") != 0) {
        test_fail(__FILE__, __LINE__, "mount: %s", strerror(errno));
    }
}

/* Whether there is a file system in a file now, through a loop device. */
static int
mount_image(const char *where, const char *size, const char *make)
{
    char command[5 * TEST_PATH_MAX];

    test_make_directory(where);
    snprintf(command, sizeof command,
             "exec >/dev/null 2>&1; truncate -s %s '%s.image' && %s '%s.image' && "
             "mount -o loop '%s.image' '%s'",
             size, where, make, where, where, where);
    return system(command) == 0;
}

static int
mount_ext4(const char *where)
{
    return mount_image(where, "8M", "mkfs.ext4 -q -F -O ^has_journal");
}

static int
mount_btrfs(const char *where)
{
    return mount_image(where, "128M", "mkfs.btrfs -q -f -d single -m single");
}

/* Whether the kernel knows btrfs, its module loaded by an attempt to mount one. */
static int
has_btrfs(void)
{
    FILE *file = fopen("/proc/filesystems", "r");
    char line[100];
    int found = 0;

    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        found |= strcmp(line, "\tbtrfs\n") == 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

static void
unmount(const char *where)
{
    CHECK(umount2(where, MNT_DETACH) == 0);
}

/* Has the kernel write back all that it holds, as it does by itself now and then. */
static void
write_back(const char *where)
{
    int fd = open(where, O_RDONLY);

    CHECK(fd >= 0 && syncfs(fd) == 0);
    CHECK(close(fd) == 0);
}

/* ---- filling it ---------------------------------------------------------------------------- */

/* A file that takes so much space, to be removed when space is wanted back. */
static void
make_ballast(const char *path, uint64_t bytes)
{
    static const uint8_t page[4096];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

    CHECK(fd >= 0);
    while (bytes > 0) {
        size_t now = bytes < sizeof page ? (size_t)bytes : sizeof page;

        CHECK(write(fd, page, now) == (ssize_t)now);
        bytes -= now;
    }
    CHECK(close(fd) == 0);
}

/* Takes what is left, but for about `spare` bytes: in large pieces, and then in smaller ones. */
static void
fill_up(const char *path, off_t spare)
{
    static const uint8_t piece[1 << 20];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    off_t len = 0;
    size_t size;

    CHECK(fd >= 0);
    for (size = sizeof piece; size >= 4096; size /= 2) {
        ssize_t written;

        while ((written = write(fd, piece, size)) > 0) {
            len += written;
        }
    }
    CHECK(errno == ENOSPC && ftruncate(fd, len > spare ? len - spare : 0) == 0);
    CHECK(close(fd) == 0);
}

static void
check_full(const char *what, int code)
{
    if (code != OURDB_NO_SPACE || ourdb_os_error() != ENOSPC || ourdb_errmsg()[0] == '\0') {
        test_fail(__FILE__, __LINE__, "%s on a full disk gave %d, errno %d: %s", what, code,
                  ourdb_os_error(), ourdb_errmsg());
    }
    shared->full++;
}

/* Commits until the disk is full. */
static void
write_until_full(ourdb *db, model *state, uint32_t *attempt)
{
    for (;;) {
        change made = next_change(state);
        int code = ask_commit(db, state, &made, ++*attempt);

        if (code != OURDB_OK) {
            check_full("a commit", code);
            return;
        }
        apply(state, &made, *attempt);
    }
}

/* Ids that no record ever had: nothing of the lookup is there for them, on disk or in memory. */
static void
read_unused_ids(const ourdb *db)
{
    uint64_t id;

    for (id = IDS; id < 16000000; id += 99991) {
        ourdb_buf buf;

        CHECK_CODE(ourdb_contains(db, (uint32_t)id), OURDB_NOT_FOUND);
        CHECK_CODE(ourdb_get(db, (uint32_t)id, &buf), OURDB_NOT_FOUND);
    }
}

/* Every kind of write while nothing fits: each gives the code, or is small enough to fit. */
static void
write_while_full(ourdb *db, model *state, uint32_t *attempt, uint64_t *random)
{
    static uint8_t value[60000];
    ourdb_slice slices[3] = {{value, sizeof value}, {value, sizeof value}, {value, sizeof value}};
    uint32_t ids[3] = {0, 0, 0};
    uint32_t first = 0;
    int i;

    for (i = 0; i < 3; i++) {
        int code = state->key_value ? ourdb_set_many(db, ids, slices, 1)
                                    : ourdb_insert_many(db, slices, 3, ids);

        check_full("a long commit", code);
    }
    CHECK_OK(ourdb_first(db, &first));
    check_full("a long set", ourdb_set(db, first, value, sizeof value));
    for (i = 0; i < 20; i++) {
        change made = next_change(state);
        int code = ask_commit(db, state, &made, ++*attempt);

        if (code == OURDB_OK) {
            apply(state, &made, *attempt);
        } else {
            check_full("a commit", code);
        }
    }
    CHECK_OK(ourdb_sync(db));
    check_all(db, state, random);
    read_unused_ids(db);
}

enum how { CLOSE, KILL, GO_ON };

/* One database on one small disk, filled again and again. Runs in a process of its own. */
static void
fill_again_and_again(const setup *with, const char *disk, uint64_t seed, unsigned long rounds)
{
    ourdb_options options = options_of(with, 0);
    const char *path = test_join(disk, "db");
    const char *ballast = test_join(disk, "ballast");
    uint64_t random = seed;
    uint32_t attempt = 0;
    model state;
    ourdb *db;

    begin_model(&state, seed, with->key_value);
    db = OPEN(path, &options);
    make_commits(db, &state, 100);
    while (rounds-- > 0 && state.last_commit < 20000) {
        enum how how = (enum how)test_random_below(&random, 3);
        uint64_t more = test_random_below(&random, 40);
        int code;

        make_ballast(ballast, test_random_below(&random, 4096));
        fill_up(ballast, (off_t)test_random_below(&random, 300000));
        write_until_full(db, &state, &attempt);
        check_all(db, &state, &random);
        write_while_full(db, &state, &attempt, &random);
        if (how == CLOSE) {
            code = ourdb_close(db);
            if (code != OURDB_OK) {
                check_full("close", code);
            }
            code = ourdb_open(path, &options, &db);
            if (code != OURDB_OK) {
                check_full("open", code);
                CHECK(unlink(ballast) == 0);
                db = OPEN(path, &options);
            }
            check_all(db, &state, &random);
        }
        unlink(ballast);
        make_commits(db, &state, more);
        check_all(db, &state, &random);
        if (how == KILL) {
            _exit(0);
        }
    }
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, &options);
    check_all(db, &state, &random);
    CHECK_OK(ourdb_close(db));
    _exit(0);
}

static void
on_a_small_disk(const char *kind, unsigned long rounds)
{
    size_t with;

    for (with = 0; with < SETUP_COUNT; with++) {
        unsigned long round;

        for (round = 0; round < rounds; round++) {
            const char *disk = test_path("disk");
            pid_t child;

            test_phase("%s, %s, round %lu", kind, setups[with].name, round);
            if (strcmp(kind, "ext4") != 0) {
                mount_tmpfs(disk);
            } else if (!mount_ext4(disk)) {
                printf("SKIPPED: a full ext4: a file can't be mounted here\n");
                test_remove(disk);
                return;
            }
            child = test_fork();
            if (child == 0) {
                fill_again_and_again(&setups[with], disk, round * SETUP_COUNT + with, 5);
            }
            test_wait(child);
            unmount(disk);
            test_remove(disk);
            test_remove(test_path("disk.image"));
        }
    }
}

/* A btrfs that was full keeps for data what it has given to them, for a while: as long as it does,
   there may be no room for the name of another file. */
static void
close_without_new_files(ourdb *db)
{
    int code = ourdb_close(db);

    if (code != OURDB_OK) {
        check_full("close", code);
    }
}

/*
 * Where a file system writes what is changed to another place, space that was reserved serves for
 * one write: what the kernel has written back needs space anew. Runs in a process of its own.
 */
static void
fill_after_write_back(const char *disk)
{
    ourdb_options options = test_options(NULL, 0);
    const char *path = test_join(disk, "db");
    const char *ballast = test_join(disk, "ballast");
    uint64_t random = 1;
    uint32_t attempt = 0;
    model state;
    ourdb *db;

    begin_model(&state, 1, 0);
    db = OPEN(path, &options);
    make_commits(db, &state, 20);
    fill_up(ballast, 0);
    write_back(disk);
    write_until_full(db, &state, &attempt);
    check_all(db, &state, &random);
    CHECK(unlink(ballast) == 0);
    write_back(disk);
    make_commits(db, &state, 100);
    check_all(db, &state, &random);
    close_without_new_files(db);
    db = OPEN(path, &options);
    check_all(db, &state, &random);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    close_without_new_files(db);
    _exit(0);
}

static void
on_btrfs(void)
{
    const char *disk = test_path("disk");
    pid_t child;

    test_phase("btrfs");
    if (mount_btrfs(disk)) {
        child = test_fork();
        if (child == 0) {
            fill_after_write_back(disk);
        }
        test_wait(child);
        unmount(disk);
    } else if (has_btrfs()) {
        printf("SKIPPED: a full btrfs: a file can't be mounted here\n");
    } else {
        printf("NOTE: no full btrfs: this kernel knows none\n");
    }
    test_remove(disk);
    test_remove(test_path("disk.image"));
}

/* A record that came after a compaction: the table on disk that a snapshot of before still reads has no
 * space for it. Runs in a process of its own. */
static void
erase_beside_a_snapshot(const char *disk)
{
    const char *path = test_join(disk, "db");
    const char *ballast = test_join(disk, "ballast");
    ourdb_options options;
    ourdb_retention retention;
    ourdb_txn *snapshot;
    uint32_t id = 15000000;
    ourdb *db;
    int code;

    CHECK_OK(ourdb_options_init(&options, sizeof options));
    CHECK_OK(ourdb_retention_init(&retention, sizeof retention));
    options.flags = OURDB_OPEN_KEY_VALUE;
    options.lookup = OURDB_LOOKUP_DISK;
    db = OPEN(path, &options);
    CHECK_OK(ourdb_set(db, 1, "one", 3));
    CHECK_OK(ourdb_txn_begin(db, OURDB_TXN_READ_ONLY, &snapshot));
    CHECK_OK(ourdb_compact(db, &retention, NULL, NULL));
    CHECK_OK(ourdb_set(db, id, "new", 3));
    fill_up(ballast, 0);
    check_full("an erasure", ourdb_erase(db, id));
    CHECK_CODE(ourdb_contains(db, id), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_txn_contains(snapshot, id), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_txn_contains(snapshot, 1));
    ourdb_txn_abort(snapshot);
    code = ourdb_close(db);
    CHECK(code == OURDB_POISONED);
    CHECK(unlink(ballast) == 0);
    db = OPEN(path, &options);
    CHECK_CODE(ourdb_contains(db, id), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_contains(db, 1));
    CHECK_OK(ourdb_close(db));
    _exit(0);
}

static void
erase_on_a_small_disk(void)
{
    const char *disk = test_path("disk");
    pid_t child;

    test_phase("an erasure beside a snapshot");
    mount_tmpfs(disk);
    child = test_fork();
    if (child == 0) {
        erase_beside_a_snapshot(disk);
    }
    test_wait(child);
    unmount(disk);
    test_remove(disk);
}

int
main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
    inject_plan no_reserve;
    void (*use_plan)(inject_plan *);
    void *found;

    test_begin("space");
    alarm(0);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        printf("SKIPPED: a full disk: mounting is not allowed: %s\n0\n", strerror(errno));
        return test_end();
    }
    erase_on_a_small_disk();
    on_a_small_disk("tmpfs", rounds);
    on_a_small_disk("ext4", rounds);
    on_btrfs();
    found = dlsym(RTLD_DEFAULT, "inject_use");
    if (found != NULL) {
        memset(&no_reserve, 0, sizeof no_reserve);
        no_reserve.no_reserve = 1;
        no_reserve.armed = 1;
        memcpy(&use_plan, &found, sizeof use_plan);
        use_plan(&no_reserve);
        on_a_small_disk("tmpfs that can't reserve", rounds);
    }
    printf("%" PRIu64 "\n", shared->full);
    return test_end();
}
