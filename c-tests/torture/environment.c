/*
 * environment: what surrounds the database is not as it should be.
 *
 * Promise: too few descriptors, too little address space, no permission, a read-only file system,
 * a directory or a file taken away under a running handle, an impossible path: each gives a code
 * with a message, no signal; and what only passes by leaves a handle that works on. An overlay that
 * moves a file at its first change misleads no reader.
 *
 *   environment
 *
 * The last line but one is how many situations were looked at. What needs root is skipped without.
 */
#define _GNU_SOURCE
#include "../harness.h"

#include "../commits.h"

#include <limits.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>

static uint64_t *situations;

/* The code is one of those that say that the system is at fault; there is a message. */
static void
check_refusal(const char *what, int code)
{
    if ((code != OURDB_IO && code != OURDB_OUT_OF_MEMORY && code != OURDB_CORRUPT &&
         code != OURDB_NOT_FOUND && code != OURDB_POISONED) ||
        ourdb_errmsg()[0] == '\0') {
        test_fail(__FILE__, __LINE__, "%s gave %d: %s", what, code, ourdb_errmsg());
    }
}

/* Makes a database of so many commits, and closes it. */
static void
make_database(const char *path, const setup *with, model *state, uint64_t commits)
{
    ourdb_options options = options_of(with, 0);
    ourdb *db;

    test_remove(path);
    begin_model(state, 11, with->key_value);
    db = OPEN(path, &options);
    make_commits(db, state, commits);
    CHECK_OK(ourdb_close(db));
}

/* Runs `body` for each way of opening, each in a process of its own. */
static void
for_each_setup(const char *what, void (*body)(const setup *with, const char *path))
{
    size_t with;

    for (with = 0; with < SETUP_COUNT; with++) {
        const char *path = test_path("db");
        pid_t child;

        test_phase("%s: %s", what, setups[with].name);
        child = test_fork();
        if (child == 0) {
            body(&setups[with], path);
            _exit(0);
        }
        test_wait(child);
        test_remove(path);
    }
}

/* ---- limits of the process ----------------------------------------------------------------- */

static void
set_limit(int which, rlim_t soft)
{
    struct rlimit limit;

    CHECK(getrlimit(which, &limit) == 0);
    limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
    CHECK(setrlimit(which, &limit) == 0);
}

/* Opens and writes with `which` at `tight`; then with `ample` the same handle goes on. */
static void
work_within(const setup *with, const char *path, int which, rlim_t tight, rlim_t ample)
{
    ourdb_options options = options_of(with, 0);
    uint64_t random = tight;
    model state;
    ourdb *db;
    int code;
    int i;

    make_database(path, with, &state, 80);
    set_limit(which, tight);
    code = ourdb_open(path, &options, &db);
    if (code != OURDB_OK) {
        check_refusal("open", code);
        set_limit(which, ample);
        db = OPEN(path, &options);
    } else {
        for (i = 0; i < 60; i++) {
            change made = next_change(&state);

            code = ask_commit(db, &state, &made, 0);
            if (code == OURDB_OK) {
                apply(&state, &made, 0);
            } else {
                check_refusal("a commit", code);
                CHECK(code != OURDB_POISONED);
            }
        }
        set_limit(which, ample);
    }
    make_commits(db, &state, 60);
    check_all(db, &state, &random);
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, &options);
    check_all(db, &state, &random);
    CHECK_OK(ourdb_close(db));
    ++*situations;
}

static void
few_descriptors(const setup *with, const char *path)
{
    rlim_t tight;

    for (tight = 3; tight < 16; tight++) {
        work_within(with, path, RLIMIT_NOFILE, tight, 1024);
    }
}

/* Every record holds its second version. */
static void
check_revised(const ourdb *db, uint32_t records)
{
    uint8_t value[TEST_VALUE_MAX];
    uint32_t id;

    for (id = 0; id < records; id++) {
        size_t len = test_value(id, 2, value);

        CHECK_VALUE(db, id, value, len);
    }
}

/* Work over a whole database of many more data files than the process may have open. */
static void
more_files_than_descriptors(const setup *with, const char *path)
{
    enum { RECORDS = 3000, DESCRIPTORS = 400, FILE_SIZE = 1000 };
    ourdb_options options = options_of(with, OURDB_OPEN_KEY_VALUE);
    char backup[PATH_MAX], copy[PATH_MAX];
    uint8_t value[TEST_VALUE_MAX];
    ourdb_retention keep = test_retention(2);
    uint64_t since = 0, last;
    ourdb *db, *fed;
    ourdb_txn *then;
    ourdb_buf changes;
    uint32_t id, number;

    snprintf(backup, sizeof backup, "%s-backup", path);
    snprintf(copy, sizeof copy, "%s-copy", path);
    options.file_size = FILE_SIZE;
    options.sync = OURDB_SYNC_OS;
    set_limit(RLIMIT_NOFILE, DESCRIPTORS);
    db = OPEN(path, &options);
    for (number = 1; number <= 2; number++) {
        for (id = 0; id < RECORDS; id++) {
            CHECK_OK(ourdb_set(db, id, value, test_value(id, number, value)));
        }
    }
    CHECK(test_stats(db).data_files > DESCRIPTORS);
    CHECK_OK(ourdb_sync(db));
    CHECK_OK(ourdb_backup(db, backup, NULL, NULL));
    then = SNAPSHOT(db);
    CHECK_OK(ourdb_compact(db, &keep, NULL, NULL));
    CHECK(test_stats(db).data_files > DESCRIPTORS);
    for (id = 0; id < RECORDS; id += RECORDS / 8) {
        CHECK_OK(ourdb_erase(db, id));
        CHECK_OK(ourdb_set(db, id, value, test_value(id, 2, value)));
    }
    CHECK_OK(ourdb_check(db, NULL, NULL));
    ourdb_txn_abort(then);
    CHECK_OK(ourdb_compact(db, &keep, NULL, NULL));
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, &options);
    check_revised(db, RECORDS);
    CHECK_OK(ourdb_backup(db, backup, NULL, NULL));
    fed = OPEN(copy, &options);
    CHECK_OK(ourdb_last_commit(db, &last));
    while (since < last) {
        CHECK_OK(ourdb_changes(db, since, 100000, &changes, &since));
        CHECK_OK(ourdb_apply(fed, changes.data, changes.len));
        ourdb_free_buf(&changes);
    }
    check_revised(fed, RECORDS);
    CHECK_OK(ourdb_destroy(fed));
    CHECK_OK(ourdb_destroy(db));
    options.flags |= OURDB_OPEN_READ_ONLY;
    db = OPEN(backup, &options);
    check_revised(db, RECORDS);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_close(db));
    test_remove(backup);
    ++*situations;
}

/* Bytes of address space that the process has by now; 0: it can't be told. */
static rlim_t
address_space(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;

    if (file == NULL) {
        return 0;
    }
    if (fscanf(file, "%lu", &pages) != 1) {
        pages = 0;
    }
    fclose(file);
    return (rlim_t)pages * 4096;
}

static void
little_address_space(const setup *with, const char *path)
{
    rlim_t now = address_space();
    rlim_t more;

    for (more = UINT64_C(4) << 20; now != 0 && more < UINT64_C(16) << 30; more *= 2) {
        work_within(with, path, RLIMIT_AS, now + more, RLIM_INFINITY);
    }
}

/* Mapped whatever comes, and after the opening there is room for no mapping more: it is written all
   the same. */
static void
no_room_to_write_through(const setup *with, const char *path)
{
    enum { SETS = 2000, LEN = 4000 };
    static uint8_t value[LEN];
    ourdb_options options = options_of(with, OURDB_OPEN_KEY_VALUE);
    ourdb *db;
    int i;

    options.io = OURDB_IO_MAP;
    options.sync = OURDB_SYNC_OS;
    /* In one data file: another one would have to be mapped. */
    options.file_size = 0;
    db = OPEN(path, &options);
    value[0] = 1;
    CHECK_OK(ourdb_set(db, 1, value, LEN));
    if (address_space() != 0) {
        set_limit(RLIMIT_AS, address_space() + (1 << 20));
        for (i = 0; i < SETS; i++) {
            CHECK_OK(ourdb_set(db, 1, value, LEN));
        }
        set_limit(RLIMIT_AS, RLIM_INFINITY);
    }
    CHECK_OK(ourdb_set(db, 2, value, LEN));
    CHECK_VALUE(db, 1, value, LEN);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_close(db));
    ++*situations;
}

/* Mapped whatever comes, and no data file can be: what fails uses up no number of one. */
static void
no_data_file_more(const setup *with, const char *path)
{
    enum { SETS = 400, LEN = 60, FILE_SIZE = 100 };
    static const uint8_t value[LEN];
    ourdb_options options = options_of(with, OURDB_OPEN_KEY_VALUE);
    char next[32];
    uint64_t files;
    ourdb *db;
    int i;

    options.io = OURDB_IO_MAP;
    options.file_size = FILE_SIZE;
    db = OPEN(path, &options);
    for (i = 0; i < 3; i++) {
        CHECK_OK(ourdb_set(db, (uint32_t)i, value, LEN));
    }
    files = test_stats(db).data_files;
    snprintf(next, sizeof next, "%" PRIu64 ".db", files);
    CHECK(!test_exists(test_join(path, next)));
    if (address_space() != 0) {
        set_limit(RLIMIT_AS, address_space() + (UINT64_C(64) << 20));
        for (i = 0; i < SETS; i++) {
            CHECK_CODE(ourdb_set(db, 1, value, LEN), OURDB_OUT_OF_MEMORY);
        }
        set_limit(RLIMIT_AS, RLIM_INFINITY);
    }
    CHECK_LAST_COMMIT(db, 3);
    CHECK_OK(ourdb_set(db, 1, value, LEN));
    CHECK_NUMBER(test_stats(db).data_files, files + 1);
    CHECK(test_exists(test_join(path, next)));
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, &options);
    CHECK_LAST_COMMIT(db, 4);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_close(db));
    ++*situations;
}

/* ---- files taken away ---------------------------------------------------------------------- */

/* Writes and syncs after something happened to the files: a code, or it did no harm. */
static void
write_regardless(ourdb *db, model *state)
{
    int i;

    for (i = 0; i < 300; i++) {
        change made = next_change(state);
        int code = ask_commit(db, state, &made, 0);

        if (code != OURDB_OK) {
            check_refusal("a commit", code);
            break;
        }
        apply(state, &made, 0);
    }
}

static void
directory_removed(const setup *with, const char *path)
{
    ourdb_options options = options_of(with, 0);
    model state;
    ourdb *db;
    uint32_t id;
    int code;

    make_database(path, with, &state, 80);
    db = OPEN(path, &options);
    make_commits(db, &state, 5);
    test_remove(path);
    for (id = 0; id < IDS; id++) {
        ourdb_buf buf;

        code = ourdb_get(db, id, &buf);
        if (code == OURDB_OK) {
            ourdb_free_buf(&buf);
        } else {
            check_refusal("get", code);
        }
    }
    write_regardless(db, &state);
    code = ourdb_sync(db);
    if (code == OURDB_OK) {
        test_fail(__FILE__, __LINE__, "the directory is gone, and a sync succeeds");
    }
    check_refusal("sync", code);
    code = ourdb_close(db);
    if (code == OURDB_OK) {
        test_fail(__FILE__, __LINE__, "the directory is gone, and close succeeds");
    }
    check_refusal("close", code);
    ++*situations;
}

/* The last data file of a database. */
static const char *
last_data_file(const char *path)
{
    char name[32];
    unsigned number = 0;

    for (;;) {
        snprintf(name, sizeof name, "%u.db", number + 1);
        if (!test_exists(test_join(path, name))) {
            break;
        }
        number++;
    }
    snprintf(name, sizeof name, "%u.db", number);
    return test_join(path, name);
}

/* Reading a value that is gone is a code with OURDB_IO_FILE; see ourdb.h for mappings. */
static void
data_file_cut(const setup *with, const char *path)
{
    setup by_calls = *with;
    ourdb_options options;
    model state;
    ourdb *db;
    uint32_t id;
    int missing = 0;

    by_calls.io = OURDB_IO_FILE;
    options = options_of(&by_calls, 0);
    make_database(path, &by_calls, &state, 80);
    db = OPEN(path, &options);
    make_commits(db, &state, 5);
    CHECK(truncate(last_data_file(path), 100) == 0);
    for (id = 0; id < IDS; id++) {
        static uint8_t value[VALUE_MAX];
        ourdb_buf buf;
        int code = ourdb_get(db, id, &buf);

        if (code == OURDB_OK) {
            CHECK(is_live(&state, id));
            CHECK_BYTES(buf.data, buf.len, value, live_value(&state, id, value));
            ourdb_free_buf(&buf);
        } else if (is_live(&state, id)) {
            CHECK_NUMBER(code, OURDB_CORRUPT);
            missing++;
        }
    }
    CHECK(missing > 0);
    ourdb_close(db);
    ++*situations;
}

/* Nothing is read, so mappings do as well: writing must notice, at the latest in a sync. */
static void
data_file_cut_below_the_writer(const setup *with, const char *path)
{
    ourdb_options options = options_of(with, 0);
    model state;
    ourdb *db;

    make_database(path, with, &state, 80);
    db = OPEN(path, &options);
    CHECK(truncate(last_data_file(path), 100) == 0);
    write_regardless(db, &state);
    CHECK(ourdb_sync(db) != OURDB_OK);
    check_refusal("sync", ourdb_sync(db));
    ourdb_close(db);
    ++*situations;
}

/* ---- file systems --------------------------------------------------------------------------- */

/* A small one at `path`, in a mount namespace of its own; whether it may be mounted. */
static int
mount_tmpfs(const char *what, const char *path)
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        printf("SKIPPED: %s: mounting is not allowed\n", what);
        return 0;
    }
    test_make_directory(path);
    CHECK(mount("tmpfs", path, "tmpfs", 0, "size=32m") == 0);
    return 1;
}

static void
read_only_file_system(const setup *with, const char *path)
{
    ourdb_options options = options_of(with, OURDB_OPEN_READ_ONLY);
    ourdb_options writing = options_of(with, 0);
    uint64_t random = 1;
    model state;
    ourdb *before;
    ourdb *db;

    if (!mount_tmpfs("a read-only file system", path)) {
        return;
    }
    path = test_join(path, "db");
    make_database(path, with, &state, 80);
    before = OPEN(path, &options);
    CHECK(mount("tmpfs", test_path("db"), "tmpfs", MS_REMOUNT | MS_RDONLY, NULL) == 0);
    check_all(before, &state, &random);
    db = OPEN(path, &options);
    check_all(db, &state, &random);
    CHECK_OK(ourdb_close(db));
    CHECK_OK(ourdb_close(before));
    CHECK_OPEN_FAILS(path, &writing, OURDB_IO);
    CHECK_NUMBER(ourdb_os_error(), EROFS);
    CHECK(umount2(test_path("db"), MNT_DETACH) == 0);
    ++*situations;
}

/*
 * A database in a layer that is only read, as in the image of a container: the first write moves a
 * data file to another place, and what had been mapped of it before stays where it was.
 */
static void
lower_layer(const setup *with, const char *path)
{
    ourdb_options options = options_of(with, 0);
    ourdb_options reading = options_of(with, OURDB_OPEN_READ_ONLY);
    char layers[4 * TEST_PATH_MAX];
    uint64_t random = 1;
    const char *merged;
    ourdb *reader, *writer;
    model state;
    int i;

    if (!mount_tmpfs("an overlay", path)) {
        return;
    }
    test_make_directory(test_join(path, "lower"));
    test_make_directory(test_join(path, "upper"));
    test_make_directory(test_join(path, "work"));
    merged = test_join(path, "merged");
    test_make_directory(merged);
    make_database(test_join(path, "lower/db"), with, &state, 80);
    snprintf(layers, sizeof layers, "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", path,
             path, path);
    if (mount("overlay", merged, "overlay", 0, layers) != 0) {
        printf("SKIPPED: an overlay: %s\n", strerror(errno));
        return;
    }
    reader = OPEN(test_join(merged, "db"), &reading);
    check_all(reader, &state, &random);
    writer = OPEN(test_join(merged, "db"), &options);
    for (i = 0; i < 3; i++) {
        make_commits(writer, &state, 40);
        CHECK_OK(ourdb_refresh(reader));
        check_all(reader, &state, &random);
        CHECK_OK(ourdb_check(reader, NULL, NULL));
    }
    CHECK_OK(ourdb_close(reader));
    CHECK_OK(ourdb_close(writer));
    CHECK(umount2(merged, MNT_DETACH) == 0 && umount2(path, MNT_DETACH) == 0);
    ++*situations;
}

/* ---- permission ---------------------------------------------------------------------------- */

static void
no_permission(const setup *with, const char *path)
{
    ourdb_options options = options_of(with, 0);
    ourdb_options reading = options_of(with, OURDB_OPEN_READ_ONLY);
    uint64_t random = 1;
    model state;
    ourdb *db;

    make_database(path, with, &state, 80);
    CHECK(chmod(test_directory, 0755) == 0);
    if (geteuid() == 0 && setuid(65534) != 0) {
        printf("SKIPPED: no permission: root can't become somebody else\n");
        return;
    }
    if (access(path, W_OK) == 0) {
        printf("SKIPPED: no permission: this user may write everywhere\n");
        return;
    }
    if (access(path, R_OK) != 0) {
        printf("SKIPPED: no permission: the directory above can't be entered\n");
        return;
    }
    CHECK_OPEN_FAILS(path, &options, OURDB_IO);
    CHECK_NUMBER(ourdb_os_error(), EACCES);
    db = OPEN(path, &reading);
    check_all(db, &state, &random);
    CHECK_OK(ourdb_close(db));
    ++*situations;
}

/* ---- paths --------------------------------------------------------------------------------- */

static void
odd_paths(const setup *with, const char *path)
{
    static const char *const names[] = {" ", "a b", "new\nline", "quote'\"", "\xff\xfe", "%s%n",
                                        "-rf", "semi;colon", "tab\t", "\xe2\x82\xac", "db/", "."};
    ourdb_options options = options_of(with, 0);
    char longest[6000];
    size_t i;

    test_make_directory(path);
    for (i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *odd = test_join(path, names[i]);
        uint64_t random = 1;
        model state;
        ourdb *db;

        begin_model(&state, i, with->key_value);
        db = OPEN(odd, &options);
        make_commits(db, &state, 30);
        CHECK_OK(ourdb_close(db));
        db = OPEN(odd, &options);
        check_all(db, &state, &random);
        CHECK_OK(ourdb_destroy(db));
        if (!test_exists(path)) {
            test_make_directory(path);
        }
        ++*situations;
        free_model(&state);
    }
    memset(longest, 'x', sizeof longest);
    longest[0] = '/';
    longest[sizeof longest - 1] = '\0';
    CHECK_OPEN_FAILS(longest, &options, OURDB_IO);
    CHECK_NUMBER(ourdb_os_error(), ENAMETOOLONG);
}

int
main(void)
{
    test_begin("environment");
    situations =
        mmap(NULL, sizeof *situations, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(situations != MAP_FAILED);
    for_each_setup("few descriptors", few_descriptors);
    for_each_setup("more data files than descriptors", more_files_than_descriptors);
    for_each_setup("little address space", little_address_space);
    for_each_setup("no room to write through", no_room_to_write_through);
    for_each_setup("no data file more", no_data_file_more);
    for_each_setup("the directory is removed", directory_removed);
    for_each_setup("a data file is cut", data_file_cut);
    for_each_setup("a data file is cut below the writer", data_file_cut_below_the_writer);
    for_each_setup("a read-only file system", read_only_file_system);
    for_each_setup("a lower layer", lower_layer);
    for_each_setup("no permission", no_permission);
    for_each_setup("paths", odd_paths);
    printf("%" PRIu64 "\n", *situations);
    return test_end();
}
