/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Made from src/ffi by cbindgen; not to be edited. After a change there:
 * OURDB_UPDATE_HEADER=1 cargo test --test header
 */

/** @file ourdb.h
 *
 * OurDB, an embedded, versioned record store
 * ==========================================
 *
 * A database is a directory of records. A record is a value of any bytes under an id of 32 bits.
 * Nothing is ever overwritten: a new value becomes a new version of its record, a deletion is a
 * version too, and every version can be read again, with the number of its commit and its time.
 *
 * Data files are only appended to, and mapped into memory. A read is a look into a table from id to
 * place and a check of the value's checksum; it takes no lock and makes no system call. The library
 * starts no thread unless it is asked to, installs no signal handler, prints nothing, and needs no
 * configuration.
 *
 * Contents
 *
 *   A first program
 *   Records and ids
 *   Handles and memory
 *   Errors
 *   Threads
 *   fork
 *   Durability
 *   Versions, history and time
 *   Transactions
 *   Snapshots and the past
 *   Scans
 *   Compaction and retention
 *   Erasure
 *   Backup
 *   Changes and replication
 *   Other processes
 *   Statistics
 *   herolib directories
 *   Files
 *   Limits
 *   Other languages
 *
 * and then every constant, type and function, in the order in which a newcomer needs them.
 *
 *
 * A first program
 * ---------------
 *
 *     #include <stdio.h>
 *     #include "ourdb.h"
 *
 *     int main(void)
 *     {
 *         ourdb *db = NULL;
 *         ourdb_buf value;
 *         uint32_t id;
 *         int failed = ourdb_open("contacts", NULL, &db)
 *                   || ourdb_insert(db, "Ada", 3, &id)
 *                   || ourdb_set(db, id, "Ada Lovelace", 12)
 *                   || ourdb_get(db, id, &value);
 *         if (!failed) {
 *             printf("%lu: %.*s\n", (unsigned long)id, (int)value.len, (char *)value.data);
 *             ourdb_free_buf(&value);
 *             failed = ourdb_delete(db, id);
 *         }
 *         if (failed) fprintf(stderr, "%s\n", ourdb_errmsg());
 *         if (ourdb_close(db) != OURDB_OK) fprintf(stderr, "%s\n", ourdb_errmsg());
 *         return failed != 0;
 *     }
 *
 * Compiled with "cc first.c -lourdb" it prints "1: Ada Lovelace", and when it is run again, "2: Ada
 * Lovelace": ids are given out once. The records in the directory "contacts" are deleted by then,
 * but ourdb_history() still has both values of each.
 *
 *
 * Records and ids
 * ---------------
 *
 * A database is made in one of two modes, and stays in it:
 *
 * - Incremental, the default: ourdb_insert() gives out the ids 1, 2, 3 and so on, each only once.
 *   ourdb_set() can only overwrite a live record.
 * - Key-value, with OURDB_OPEN_KEY_VALUE: the caller chooses the ids, from 0 up; ourdb_set() makes
 *   a record or overwrites it, and ourdb_insert() is OURDB_WRONG_MODE.
 *
 * In both, ids are below record_nr_max. A record is live from when it is stored until it is
 * deleted. An empty value is a value; it is not the same as no record.
 *
 * One call is one commit. The calls that end in _many write many records in one commit: all of
 * them or, if the call fails, none. They are also faster for each record. What belongs together and
 * doesn't fit one call is a transaction (see Transactions).
 *
 *
 * Handles and memory
 * ------------------
 *
 * - A database handle comes from ourdb_open() and ends with ourdb_close() or ourdb_destroy(). A
 *   transaction ends with ourdb_txn_commit() or ourdb_txn_abort(), an iterator with
 *   ourdb_iter_close(). A handle that has ended is noticed as far as possible, and is
 *   OURDB_INVALID_ARGUMENT: until 64 more of its kind were begun at least.
 * - Transactions and iterators end before their database: otherwise ourdb_close() and
 *   ourdb_destroy() are OURDB_BUSY, and do nothing. An iterator doesn't need the transaction that
 *   it was opened on.
 * - Pointers are checked: NULL where one is needed is OURDB_INVALID_ARGUMENT. ourdb_close(),
 *   ourdb_txn_abort(), ourdb_iter_close() and the functions that free accept NULL.
 * - Bytes that are passed in are only read during the call; the library keeps no pointer to them.
 * - What the library allocates, the library frees: an ourdb_buf with ourdb_free_buf(), an
 *   ourdb_records with ourdb_free_records(), never with free(). Both zero what they are given, so
 *   freeing twice does no harm. Neither depends on the database being open. Only the record that
 *   ourdb_iter_next() gives is lent: it is valid until the next call on that iterator.
 * - After a failure an out parameter is zeroed; a caller's buffer or array is untouched.
 * - An ourdb_buf or ourdb_records that is passed to be filled is filled and not freed: free what it
 *   holds before it is used again.
 * - A struct that the caller fills begins with its size, and is prepared by a function for it. A
 *   program that was compiled with an older header runs with a newer library. The other way round
 *   it runs too, unless it asks for something that the library doesn't know:
 *   OURDB_INCOMPATIBLE.
 *
 *
 * Errors
 * ------
 *
 * A function that can fail returns an int: OURDB_OK, which is 0, or a code below 0. The code is
 * enough to act on. Numbers never change their meaning; later versions may add some.
 *
 * ourdb_errmsg() has the last failure of the calling thread in words, such as
 *
 *     ourdb_get: no live record has id 7
 *
 * and ourdb_os_error() has its errno, where the operating system was the cause. Messages are for
 * people and may change; ourdb_strerror() has a short text for each code.
 *
 * Each function names the codes of its own. Others can come from anywhere. Any function on a
 * database can return
 *
 *     OURDB_INVALID_ARGUMENT  a pointer is NULL or not aligned, or the handle is not open
 *     OURDB_FORKED            the handle was opened before fork(), and this is the child
 *     OURDB_PANIC             a bug in the library was stopped; please report the message
 *
 * Any read can return these, and
 *
 *     OURDB_CORRUPT           the record is damaged on disk; others can still be read
 *     OURDB_IO                the operating system failed
 *     OURDB_OUT_OF_MEMORY     there is no memory for the answer (where there is none for a few
 *                             hundred bytes, the process ends)
 *
 * Any write can return all of these, and
 *
 *     OURDB_READ_ONLY         the handle was opened for reading only
 *     OURDB_NO_SPACE          disk or quota is full; free some and try again
 *     OURDB_FULL              no number for a data file is left; compact to make some free
 *     OURDB_POISONED          an earlier write or sync failed, and what reached the disk is not
 *                             certain; reads go on; close and open again to write
 *
 * A sync that fails is never tried again: the kernel may have dropped what it could not write, and
 * would not say so twice.
 *
 * After a write that failed nothing of it is in the database, with three exceptions. After
 * OURDB_PANIC, and with OURDB_SYNC_COMMIT after the sync has failed that the commit waited for, its
 * own or another thread's (OURDB_IO, OURDB_NO_SPACE, OURDB_CORRUPT or OURDB_POISONED), the commit
 * may turn out to be there or not when the database is opened again. And see ourdb_erase().
 *
 *
 * Threads
 * -------
 *
 * Every function on a database may be called from any thread at any time, also on the same handle,
 * except that no other call may be at work on a handle, or on a transaction or an iterator of it,
 * while it is closed or destroyed. A handle doesn't belong to the thread that opened it.
 *
 * A transaction or an iterator belongs to one thread at a time: it may go from thread to thread,
 * but no two calls may be at work on it at once. Iterators of one transaction may be in different
 * threads.
 *
 * Reads never wait, neither for a write nor for each other. Writes are done one after the other. A
 * read sees every write that had returned when it began. A call that reads many records sees them
 * all as of one moment; between two calls anything may change.
 *
 * The last failure belongs to the thread. No function may be called from a signal handler. A thread
 * needs 64 KiB of stack, and more for callbacks of its own. Threads that may be cancelled disable
 * that (pthread_setcancelstate()) around a call: to be cancelled within one ends the process.
 *
 * A directory is open for writing once at a time: a second ourdb_open(), in this process or in
 * another, is OURDB_LOCKED. With OURDB_OPEN_READ_ONLY any number of handles may be open besides
 * (see Other processes).
 *
 *
 * fork
 * ----
 *
 * A child process can't use the handles of its parent: calls return OURDB_FORKED. It may close,
 * commit or abort them to release their memory, in any order, which touches nothing on disk and
 * returns OURDB_FORKED too; some 2 KB stay for each thread that the parent has in the background.
 * What a child opens itself is a handle like any other.
 *
 * The lock stays with the parent: a child that lives on does not keep the directory locked.
 *
 *
 * Durability
 * ----------
 *
 * When a write has returned OURDB_OK it outlives the process, however that ends: a crash or kill -9
 * takes nothing back. What a power loss can take back depends on ourdb_options.sync:
 *
 *     sync                  on disk                               a power loss takes at most
 *     OURDB_SYNC_OS         when the operating system likes       the last seconds
 *     OURDB_SYNC_INTERVAL   every sync_interval_ms, by a thread   commits since the last sync
 *     OURDB_SYNC_COMMIT     before the call returns               nothing
 *
 * What is lost is always the newest: never a commit in the middle, never a part of one.
 * ourdb_sync() makes everything so far durable in any mode, and so does ourdb_close(). With
 * OURDB_SYNC_COMMIT, threads that commit at the same time share one fsync.
 *
 * Every value carries a checksum, which is checked whenever it is read. A database that was cut off
 * by a crash is put in order by the next open. One that is damaged otherwise is OURDB_CORRUPT: the
 * library does not guess. OURDB_OPEN_SALVAGE opens what can still be read, and ourdb_check() names
 * every damaged place.
 *
 * What can't be guarded: another program that changes, cuts off or removes the files of an open
 * database. Damage is found by the checksums, and a file that was cut off or removed by the next
 * sync (OURDB_CORRUPT, and writing stops). But to touch a mapped file behind its new end is a
 * SIGBUS, in a read or a write, because a library can't install a handler for it; with
 * OURDB_IO_FILE, and the lookup in memory, it is OURDB_CORRUPT.
 * Nor can a disk that says that something is written, and has not written it.
 *
 *
 * Versions, history and time
 * --------------------------
 *
 * Commits are numbered from 1, without gaps: ourdb_last_commit(). A commit has a time too, in
 * microseconds since the Unix epoch (1970-01-01 00:00 UTC), by the clock of the computer, but never
 * less than the time of the commit before, even if the clock is set back.
 *
 * - ourdb_history() lists the versions of a record, newest first, deletions among them.
 * - ourdb_get_version() reads the value as of a commit, ourdb_get_at() as of a moment.
 *
 * The history of a record goes on through its deletion: what is stored under the same id later is
 * one more version. A call that fails, or that has nothing to do, makes no commit.
 *
 * - ourdb_revert() gives a record the value again that it had as of a commit, ourdb_revert_all()
 *   does so with all records in one commit. Both add versions, and take none away.
 *
 * Versions that herolib wrote have commit 0 and time 0, unknown: in the history of a record they
 * count as older than the versions of OurDB that come after them, and as newer than those before.
 * A snapshot of an earlier commit sees them already, and so do the reverts to it, unless the record
 * has a version of OurDB's of that very commit or of a later one; of the last commit before them it
 * sees them in any case. ourdb_get_version() reads what that very commit wrote, if it wrote the
 * record.
 *
 * Every version stays until a compaction drops it (see Compaction and retention) or the record is
 * erased (see Erasure).
 *
 *
 * Transactions
 * ------------
 *
 * A transaction is for work that reads and writes several records, and must not see or leave
 * anything half done. It sees the database as of its beginning, and its own writes. Nobody else
 * sees those before ourdb_txn_commit(), which writes all of them in one commit, or none.
 *
 * Transactions don't wait for each other, and can't deadlock. Instead, a commit fails with
 * OURDB_CONFLICT if somebody has changed meanwhile what the transaction has read; then the work is
 * done again:
 *
 *     int pay(ourdb *db, uint32_t from, uint32_t to, uint64_t amount)
 *     {
 *         int code;
 *         do {
 *             ourdb_txn *txn;
 *             uint64_t a, b;
 *             size_t len;
 *             code = ourdb_txn_begin(db, 0, &txn);
 *             if (code != OURDB_OK) return code;
 *             code = ourdb_txn_get_into(txn, from, &a, sizeof a, &len);
 *             if (code == OURDB_OK) code = ourdb_txn_get_into(txn, to, &b, sizeof b, &len);
 *             if (code == OURDB_OK && a < amount) code = OURDB_NOT_FOUND;
 *             if (code != OURDB_OK) {
 *                 ourdb_txn_abort(txn);
 *                 return code;
 *             }
 *             a -= amount;
 *             b += amount;
 *             code = ourdb_txn_set(txn, from, &a, sizeof a);
 *             if (code == OURDB_OK) code = ourdb_txn_set(txn, to, &b, sizeof b);
 *             if (code == OURDB_OK) code = ourdb_txn_commit(txn);
 *             else ourdb_txn_abort(txn);
 *         } while (code == OURDB_CONFLICT);
 *         return code;
 *     }
 *
 * What counts as read:
 *
 * - by ourdb_txn_get(), ourdb_txn_get_into() and ourdb_txn_contains(), the record, whether it was
 *   there or not;
 * - by ourdb_txn_first(), _last(), _above() and _below(), the record that was found and all ids
 *   that were passed over on the way to it;
 * - by ourdb_txn_count(), all records;
 * - by an iterator, all records of its range;
 * - by ourdb_txn_delete(), and in an incremental database by ourdb_txn_set(), whether the record is
 *   live, but not its value.
 *
 * Writes alone never conflict: of two transactions that set the same record without reading it, the
 * one that commits last has the last word.
 *
 * The writes of a transaction are in memory until it commits. Of several writes to one record one
 * version is made, the last. All versions of a transaction have the same commit number and time. A
 * transaction that wrote nothing makes no commit, but conflicts like any other: to read only, take
 * a snapshot, which never does.
 *
 * A transaction costs the others nothing while it is open, but for the space that compactions can't
 * give back: a snapshot keeps the files that it reads in, with their mappings and the lookup; any
 * other transaction those of each compaction since it began, too. A process has mappings for some
 * thousands of compactions; then it can't open or compact (OURDB_OUT_OF_MEMORY). Do keep it short:
 * the longer it is, the likelier is a conflict.
 *
 *
 * Snapshots and the past
 * ----------------------
 *
 * ourdb_txn_begin() with OURDB_TXN_READ_ONLY takes a snapshot: any number of reads see the database
 * as of one moment, while others go on writing. ourdb_txn_begin_at() takes one of the past, as the
 * database was right after a commit. It reaches back to ourdb_stats.oldest_commit, which is 0 until
 * a compaction drops something: before that, and beyond the last commit, it is OURDB_NOT_FOUND.
 *
 * A snapshot is a transaction that can't write (OURDB_READ_ONLY), and ends with ourdb_txn_abort()
 * or ourdb_txn_commit(), which then do the same. It copies nothing, and may be held for as long as
 * one likes: writers don't wait for it, and a compaction leaves it the files that it reads.
 *
 * A read in a snapshot takes one step for each version of the record that is newer. To count the
 * records of the past is a walk over all ids.
 *
 * Deletions beside a snapshot take 24 bytes of memory each until it ends, and who began before
 * finds the way past them: the searches of a transaction or snapshot (first, last, above, below)
 * and a scan look at each id on the way that was deleted since the oldest snapshot that is open
 * began, at some 0.1 us each. Where those are far more than were deleted since they began
 * themselves, up to 2,000, they look at the latter alone.
 *
 *
 * Scans
 * -----
 *
 * An iterator goes over the live records of a range of ids, up or down, with their values or, with
 * OURDB_ITER_KEYS, without:
 *
 *     ourdb_iter *iter;
 *     ourdb_record record;
 *     int code = ourdb_iter_open(db, 0, UINT32_MAX, 0, &iter);
 *     if (code == OURDB_OK) {
 *         while ((code = ourdb_iter_next(iter, &record)) == OURDB_OK)
 *             use(record.id, record.data, record.len);
 *         ourdb_iter_close(iter);
 *     }
 *     if (code != OURDB_NOT_FOUND) complain(ourdb_errmsg());
 *
 * It sees the moment in which it was opened: what is written or deleted while it is on its way
 * changes nothing for it, so the loop may write. The record belongs to the iterator and is valid
 * until the next call on that; copy what is to be kept, or use ourdb_iter_next_many(), whose
 * records are the caller's. Where the ids alone are wanted, ourdb_iter_next_ids() writes many at
 * once into an array of the caller's.
 *
 *
 * Compaction and retention
 * ------------------------
 *
 * Data files only grow, until ourdb_compact() writes what is to be kept into new ones, and removes
 * the old ones. What is to be kept says an ourdb_retention. A version is kept if
 *
 *     keep_versions       it is among the last so many versions of its record, or
 *     keep_since_commit   its commit has this number or a higher one, or
 *     keep_since_us       its time is this or later.
 *
 * A rule of 0 is switched off. Whatever the rules say, the newest version of a live record stays. A
 * record of which no version is kept disappears: its id holds no record, as if it never had. In an
 * incremental database the id is not given out again all the same.
 *
 *     to keep                        set
 *     the last version of each       keep_versions = 1, as ourdb_retention_init() does
 *     only what is live              keep_versions = 0
 *     ten versions of each record    keep_versions = 10
 *     the last 30 days, and 3        keep_since_us = now - 30 * 86400 * 1000000, keep_versions = 3
 *     what came with a commit on     keep_since_commit = that commit
 *
 * The last two keep what is newer, not what was there at that moment: of a record that has changed
 * since, the version of before goes, unless another rule keeps it, and ourdb_txn_begin_at() can't
 * go back to that moment any more.
 *
 * A deletion is a version and counts as one: with keep_versions 1 it is what is left of a record
 * that was deleted, and with all rules off such a record disappears.
 *
 * Commit numbers and times stay what they are, and go on from where they were. The past is gone as
 * a whole up to where a version was dropped: ourdb_stats.oldest_commit says from where on
 * ourdb_txn_begin_at() and the reverts work. Versions that were kept can be read by ourdb_history()
 * and ourdb_get_version() as before.
 *
 * A compaction needs room on the disk for what it keeps, beside the old files. It may be stopped by
 * its progress callback at any time, and a crash leaves the database as it was or compacted. It
 * reads every value that it keeps, and refuses to copy a damaged one.
 *
 * While the log is taken over that is written meanwhile, a writer may be made to wait before each
 * commit: a fifth of a millisecond, or longer where many write quicker than it can be copied, in
 * proportion to what they commit at a time; 13 seconds, where that takes seconds to copy.
 *
 * With ourdb_options.auto_compact_percent a background thread compacts whenever so large a share of
 * the data files is dead, and keeps auto_keep_versions versions of each record. Dead is all but the
 * newest versions of live records; what the last compaction had to keep of that is not counted.
 * The thread looks four times a second whether anything was written. Only then does it walk through
 * the table of ids, a few nanoseconds for each, and so seldom that this takes a hundredth of its
 * time at most. Data files of less than 256 KiB together are left alone. Databases in memory are
 * compacted, too.
 *
 * ourdb_close() and ourdb_destroy() cancel such a compaction and wait for it to stop, for a few
 * syncs at most; in a forked child there is none. ourdb_compact() returns OURDB_BUSY while it is at
 * work. Where it fails, mostly because the disk has no room for the copy, everything goes on as
 * before, and it is tried again after a second, then after twice as long each time, up to an hour.
 *
 *
 * Erasure
 * -------
 *
 * ourdb_delete() keeps the old values, and a compaction drops them some day. ourdb_erase() is for
 * what must be gone now: it deletes the record if it is live, and removes the values of all its
 * versions from the data files before it returns. The history shows then that it was erased
 * (OURDB_RECORD_DELETED | OURDB_RECORD_ERASED), and nothing of what it was. OURDB_NOT_FOUND says
 * that the id never held a record, or that nothing is left to erase.
 *
 * What the library can't reach: backups and copies, what receivers of changes have until they are
 * sent the erasure, read-only handles that were opened before a compaction and have not been
 * refreshed since, with their snapshots, and what a file system or a disk keeps of blocks that were
 * overwritten.
 *
 *
 * Backup
 * ------
 *
 * ourdb_backup() copies an open database, with its history, as of the moment of the call, while
 * others read and write. The copy is a database like any other: ourdb_open() opens it.
 *
 * The destination is a directory that is absent, is empty, or holds an earlier backup of the same
 * database; then only what is new is copied. A backup that was opened for writing and written to
 * has a history of its own from then on, and is refused: OURDB_INCOMPATIBLE. To read one, open it
 * with OURDB_OPEN_READ_ONLY.
 *
 *
 * Changes and replication
 * -----------------------
 *
 * ourdb_changes() gives what was committed after a commit as bytes, ourdb_apply() puts them into
 * another database, on the same machine or elsewhere. So a copy is kept up to date:
 *
 *     sender                                          receiver
 *                                                     ourdb_last_commit(copy, &have);
 *     ourdb_changes(db, have, 1 << 20, &buf, &have);
 *     send(buf.data, buf.len);
 *                                                     ourdb_apply(copy, bytes, len);
 *     ... until buf.len is 0
 *
 * - The receiver is a database, of either mode, that is only written to by ourdb_apply(). It
 *   begins empty, or as a backup of the sender.
 * - Commits come in whole and in order, with the numbers and times of the sender. Applying the same
 *   bytes twice changes nothing. Bytes that leave a gap are OURDB_INCOMPATIBLE, damaged ones
 *   OURDB_CORRUPT.
 * - An erasure is a change too: the receiver removes its values as well. It does so already when it
 *   is sent a version that was erased since, which is OURDB_RECORD_DELETED | OURDB_RECORD_ERASED in
 *   its history: what it had of that record before is gone. What tells of an erasure is a version
 *   in the history, which a compaction may drop before a receiver is sent it; that one keeps what
 *   it had then. So where something is erased, let keep_since_commit be the lowest last commit that
 *   a receiver has: from there on everything is kept.
 * - After the sender was compacted, changes from before that are a difference of states: the
 *   versions that its retention kept, in the order of their commits, and the ids that are gone. A
 *   receiver in the middle of them is between two states, none that the sender ever had; it has
 *   reached one again when ourdb_changes() has nothing more. One that had applied everything before
 *   the compaction notices nothing of it.
 * - What was left out is not told apart at the receiver: asked for the value as of a commit before
 *   the end of the difference, it answers with the newest version up to there that it has, where
 *   the sender says OURDB_NOT_FOUND. ourdb_txn_begin_at() refuses such commits at both.
 *
 * There is no call that waits for changes: ask ourdb_last_commit(), which costs nothing.
 *
 *
 * Other processes
 * ---------------
 *
 * One handle at a time has a directory open for writing: a second ourdb_open(), in this process or
 * in another, is OURDB_LOCKED. With OURDB_OPEN_READ_ONLY any number of handles in any number of
 * processes may be open besides. They take no lock, change nothing, and don't disturb the writer.
 *
 * Such a handle sees the moment in which it was opened. ourdb_refresh() takes it to the present, as
 * often as one likes; it reads only what is new. It sees what the writer has committed, whether
 * that is on disk yet or not. The writer may compact meanwhile: the reader keeps its moment, and is
 * taken to the new files by its next ourdb_refresh(). Where it can't map files, or with
 * OURDB_IO_FILE, it holds some 128 data files open: with more of them a read after a compaction may
 * be OURDB_INCOMPATIBLE until ourdb_refresh(). What the writer erases is gone for a reader at once:
 * to read it is OURDB_NOT_FOUND, or zeros if herolib wrote it. But until ourdb_refresh() it is
 * there for ourdb_contains(), ourdb_count() and whatever gives out ids alone.
 *
 *
 * Statistics
 * ----------
 *
 * ourdb_stats_get() tells how many records and versions there are, how many bytes of the data files
 * are dead, what is on disk and what isn't yet, and what is open:
 *
 *     ourdb_stats stats;
 *     ourdb_stats_init(&stats, sizeof stats);
 *     if (ourdb_stats_get(db, &stats) == OURDB_OK && stats.bytes_dead > stats.bytes_live) ...
 *
 *
 * herolib directories
 * -------------------
 *
 * OurDB is the successor of herolib's OurDB in V and of its port to Go, and opens their directories
 * in place, with every value, every history and the next id. What is new goes into files of its own
 * beside theirs, which stay as they are until an erasure overwrites a record in them, or a
 * compaction replaces them. Their lookup dump goes at the first change.
 *
 * - The originals keep the ids in a lookup dump, which they write at close, and mostly do not
 *   write. A directory that lacks it is OURDB_INCOMPATIBLE, never an empty database. With
 *   OURDB_OPEN_ADOPT the ids of an incremental database are reconstructed from its data files;
 *   where deletions leave them uncertain it is OURDB_CORRUPT. Two things are believed that bytes
 *   can't prove: 12 zeros are an empty value that is there; and the zeros of one deleted record
 *   were the first version of an id, where there are but first versions before them and right
 *   behind. In key-value mode no file has the ids, and it stays OURDB_INCOMPATIBLE.
 * - ourdb_close() writes a lookup dump, so that the originals can open the directory and read every
 *   value up to 65535 bytes. They must be given the same record_nr_max and record_size_max that the
 *   database has stored, because these decide how wide the dump's entries are. What they write is
 *   noticed by the next open. OURDB_OPEN_NATIVE does without the dump. In an incremental database
 *   every id that was given out has an entry in it: where, after a compaction, there are a million
 *   ids more than the data files have room for records, no dump is written.
 *
 *
 * Files
 * -----
 *
 *     MANIFEST            what belongs to the database: mode, limits, data files, what is on disk
 *     LOCK                locked by the one who writes; empty
 *     0.db 1.db 2.db ...  data files: the records, in the order in which they were written
 *     index               checkpoint of the lookup, the table from id to place in the data files
 *     lookup              the lookup itself, with OURDB_LOOKUP_DISK
 *     base.G              the lookup of a herolib directory as it was when it was taken over
 *     lookup_dump.db/     the lookup as herolib writes it
 *     erasing             what an erasure overwrites; after a crash the next opening finishes it
 *     *.next              the same of index and lookup, which a compaction is making
 *     torn-*              bytes that a crash had left at the end of a data file, set aside
 *     *.tmp               a file that a crash caught in the making
 *
 * Files with other names are left alone. To copy a database, use ourdb_backup(), or close it and
 * copy the directory.
 *
 *
 * Limits
 * ------
 *
 *     ids            below record_nr_max: 16777215 by default, 4294967295 at most; from 0 in
 *                    key-value mode, from 1 in incremental mode
 *     a value        record_size_max: 65535 bytes by default, 2147483647 at most; from 0 bytes
 *     a commit       4 GiB, all its values together
 *     data files     65536, of 4 GiB at most
 *     versions       no limit but the data files
 *
 * A version takes the length of its value and 40 bytes in a data file. The lookup takes 8 bytes for
 * each id in use, of memory or, with OURDB_LOOKUP_DISK, of disk.
 *
 *
 * Other languages
 * ---------------
 *
 * Everything here is plain C: opaque handles, structs passed by pointer, integers; no macros with
 * arguments, no variable arguments, and callbacks only for the progress of long work, where NULL
 * will do. The order of fields in a struct is fixed.
 *
 * The message belongs to the thread that made the call. Where the language moves code between
 * threads, as Go does with goroutines and V may with coroutines, fetch code and message in one
 * call into C, through a small function of your own:
 *
 *     static int my_get(ourdb *db, uint32_t id, ourdb_buf *out, const char **message)
 *     {
 *         int code = ourdb_get(db, id, out);
 *         *message = code == OURDB_OK ? NULL : strdup(ourdb_errmsg());
 *         return code;
 *     }
 *
 * A call from another language costs more than the work of reading a record: read and write many
 * at once. Structs that the library fills hold C memory; copy what you need and free them.
 */

#ifndef OURDB_H
#define OURDB_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------
 * The version of the library
 * --------------------------------------------------------------------------------------------- */

/** Changes when a program written for an older version may have to be changed. */
#define OURDB_VERSION_MAJOR 0

/** Changes when something was added. */
#define OURDB_VERSION_MINOR 1

/** Changes when something was mended. */
#define OURDB_VERSION_PATCH 0

/** The version of this header in one number, to be compared in the preprocessor. */
#define OURDB_VERSION_NUMBER (((OURDB_VERSION_MAJOR * 1000000) + (OURDB_VERSION_MINOR * 1000)) + OURDB_VERSION_PATCH)

/**
 * The version of the library that the program runs with.
 *
 * @return for example "0.1.0"; static, not to be freed
 *
 * Cost: none.
 */
const char *ourdb_version(void);

/**
 * The same as a number, to be compared with OURDB_VERSION_NUMBER, the version of the header that
 * the program was compiled with.
 *
 * @return major * 1000000 + minor * 1000 + patch
 *
 * Cost: none.
 */
uint32_t ourdb_version_number(void);

/* ------------------------------------------------------------------------------------------------
 * Errors
 * --------------------------------------------------------------------------------------------- */

/** Success. */
#define OURDB_OK 0

/**
 * There is no live record with that id, no such neighbour, version, snapshot or database, or the
 * iteration is over.
 */
#define OURDB_NOT_FOUND -1

/**
 * NULL where a pointer is needed, a handle that is not open, an unknown flag, an option that
 * can't be meant, a size field that was not set.
 */
#define OURDB_INVALID_ARGUMENT -2

/** Incremental mode: set of an id that holds no live record. Ids are given out by insert. */
#define OURDB_ID_NOT_ASSIGNED -3

/** The id is not below record_nr_max. */
#define OURDB_ID_OUT_OF_RANGE -4

/** The value is longer than record_size_max, or one commit is longer than 4 GiB. */
#define OURDB_RECORD_TOO_LARGE -5

/** No id, or no number for a data file, is left. */
#define OURDB_FULL -6

/**
 * Something that the transaction has read was changed since. Nothing of it was written; begin it
 * again.
 */
#define OURDB_CONFLICT -7

/** The directory is open for writing already, in this process or in another. */
#define OURDB_LOCKED -8

/** A write on a handle that was opened for reading only, or in a snapshot. */
#define OURDB_READ_ONLY -9

/** A checksum or a structure is wrong: the files are damaged. The message names file and offset. */
#define OURDB_CORRUPT -10

/** A format, feature, mode or limit that does not fit the database or this library. */
#define OURDB_INCOMPATIBLE -11

/** The operating system failed: ourdb_errmsg() says at what, ourdb_os_error() gives errno. */
#define OURDB_IO -12

/** Disk or quota is full. Nothing was changed, and it goes away when space is freed. */
#define OURDB_NO_SPACE -13

/** Memory could not be had. */
#define OURDB_OUT_OF_MEMORY -14

/**
 * Something is open or at work that forbids this: transactions or iterators when the database is
 * to be closed, another compaction.
 */
#define OURDB_BUSY -15

/** The caller's buffer is too small: it is untouched, and *len holds what is needed. */
#define OURDB_BUFFER_TOO_SMALL -16

/** An earlier write or sync failed. Reads go on; close and open again to write. */
#define OURDB_POISONED -17

/** The progress callback asked to stop. Nothing was changed. */
#define OURDB_CANCELLED -18

/** The handle was opened before fork(), and this is the child. */
#define OURDB_FORKED -19

/** ourdb_insert() or ourdb_next_id() on a key-value database. */
#define OURDB_WRONG_MODE -20

/** A bug in the library. It was stopped before it reached the caller; the handle is poisoned. */
#define OURDB_PANIC -21

/**
 * A short text for a code.
 *
 * @param code  a code of this library, or any other integer
 * @return the text, in English and without a full stop; static, never NULL, not to be freed
 *
 * Cost: none.
 */
const char *ourdb_strerror(int code);

/**
 * The last failure of the calling thread in words: which function, and then what was asked,
 * which id, which file and offset, which limit, what the operating system said.
 *
 * A call that succeeds leaves the message as it is, so ask only after a call has failed.
 *
 * @return the message; "" if no call of this thread has failed. Never NULL. It belongs to the
 *     library and is valid until this thread's next call.
 *
 * Cost: the text is made when it is asked for; a failure that nobody asks about costs nothing.
 */
const char *ourdb_errmsg(void);

/**
 * errno of the last failure of the calling thread.
 *
 * @return errno, if the operating system was the cause (OURDB_IO, OURDB_NO_SPACE); otherwise 0
 *
 * Cost: none.
 */
int ourdb_os_error(void);

/* ------------------------------------------------------------------------------------------------
 * Opening and closing
 * --------------------------------------------------------------------------------------------- */

/** A database. ourdb_open() makes the handle; ourdb_close() or ourdb_destroy() ends it. */
typedef struct ourdb ourdb;

/**
 * An ordered scan. ourdb_iter_open() or ourdb_txn_iter_open() makes the handle;
 * ourdb_iter_close() ends it.
 */
typedef struct ourdb_iter ourdb_iter;

/**
 * A transaction or a snapshot. ourdb_txn_begin() or ourdb_txn_begin_at() makes the handle;
 * ourdb_txn_commit() or ourdb_txn_abort() ends it.
 */
typedef struct ourdb_txn ourdb_txn;

/**
 * The caller chooses the ids (key-value mode). The mode is fixed when the database is made:
 * without this flag a new database is incremental, and an existing one is what it is; with it an
 * incremental one is OURDB_INCOMPATIBLE.
 */
#define OURDB_OPEN_KEY_VALUE 1

/**
 * For reading only: nothing in the directory is changed, no lock is taken, and a writer may be at
 * work, here or in another process. The handle sees what was committed when it was opened, or
 * when ourdb_refresh() was called last. An absent database is OURDB_NOT_FOUND.
 */
#define OURDB_OPEN_READ_ONLY 2

/**
 * An absent database is OURDB_NOT_FOUND, and nothing is created. Without this flag the directory
 * is made, with its parents.
 */
#define OURDB_OPEN_MUST_EXIST 4

/**
 * Start empty: removes the database's own files, and nothing else in the directory. Of a directory
 * of herolib's those are its data files and its lookup dump, whether it could be opened or not.
 */
#define OURDB_OPEN_RESET 8

/**
 * No files: everything is in memory and gone after ourdb_close(). The path is ignored and may be
 * NULL. Goes with neither READ_ONLY, MUST_EXIST, SALVAGE nor ADOPT.
 */
#define OURDB_OPEN_MEMORY 16

/**
 * Open what can be read of a damaged database, for reading only; what can't be read is missing,
 * OURDB_CORRUPT, or, where the disk fails, OURDB_IO. Where the newest version of a record is
 * missing, the one before it takes its place, and a record whose deletion is missing is live;
 * ourdb_check() names what is missing. Without a sound MANIFEST nothing is salvaged. What
 * herolib has written since OurDB's last close is left out. No file is mapped. To rescue what is
 * there; never the normal way to open.
 */
#define OURDB_OPEN_SALVAGE 32

/**
 * A new database writes no lookup dump for herolib at close, which makes the close faster. Stored
 * with the database.
 */
#define OURDB_OPEN_NATIVE 64

/** Reconstruct the ids of a herolib directory that has no lookup dump (see herolib directories). */
#define OURDB_OPEN_ADOPT 128

/** ourdb_options.lookup: the table from id to place is in memory. The default. */
#define OURDB_LOOKUP_MEMORY 0

/** ourdb_options.lookup: the table is in a file, for more ids than memory has room for. */
#define OURDB_LOOKUP_DISK 1

/** ourdb_options.sync: the operating system writes when it likes. The default. */
#define OURDB_SYNC_OS 0

/** ourdb_options.sync: a commit is on disk before the call returns. */
#define OURDB_SYNC_COMMIT 1

/** ourdb_options.sync: a background thread syncs every sync_interval_ms. */
#define OURDB_SYNC_INTERVAL 2

/**
 * ourdb_options.io: data files are mapped into memory where the file system allows it, otherwise
 * read and written by system calls. The default.
 */
#define OURDB_IO_AUTO 0

/** ourdb_options.io: mapped, or the open fails. */
#define OURDB_IO_MAP 1

/**
 * ourdb_options.io: by system calls only. Slower by far; for file systems that can't be trusted
 * with mappings, and programs that are short of address space.
 */
#define OURDB_IO_FILE 2

/**
 * How a database is opened. Prepare it with ourdb_options_init(), then set what is wanted:
 * every field but size is 0 after that, and 0 means the default.
 */
typedef struct ourdb_options {
    /** sizeof(ourdb_options), as ourdb_options_init() set it. */
    size_t size;
    /** OURDB_OPEN_..., combined with |. */
    uint32_t flags;
    /**
     * Ids are below this. 0: what the database has stored, otherwise 16777215. Stored; may be
     * raised at a later open; lower than what is stored is OURDB_INCOMPATIBLE.
     */
    uint32_t record_nr_max;
    /**
     * The longest value in bytes, up to 2147483647. 0: what the database has stored, otherwise
     * 65535. Stored; may be changed at a later open, and longer values from before stay readable.
     * herolib can't read values over 65535 bytes.
     */
    uint32_t record_size_max;
    /**
     * A data file that has reached this many bytes is closed and a new one begun. A compaction
     * makes longer ones where few of the 65536 numbers for them are left. 0: what the
     * database has stored, otherwise 524288000. Stored; may be changed at a later open.
     */
    uint32_t file_size;
    /** OURDB_LOOKUP_... */
    uint32_t lookup;
    /** OURDB_SYNC_... */
    uint32_t sync;
    /** For OURDB_SYNC_INTERVAL: the interval in milliseconds; 0: 1000. */
    uint32_t sync_interval_ms;
    /** OURDB_IO_... */
    uint32_t io;
    /**
     * Compact by a background thread once so many percent of the bytes in the data files are dead,
     * those not counted that the last compaction had to keep: from 1 to 99; 0: never (see
     * Compaction and retention). Not stored. A handle for reading only ignores it.
     */
    uint32_t auto_compact_percent;
    /** 0. */
    uint32_t reserved;
    /** How many versions of each record that compaction keeps; 0: 1. Not stored. */
    uint64_t auto_keep_versions;
} ourdb_options;

/**
 * Prepares options: zeroes the struct, and sets its size.
 *
 * The size tells the library which version of this header the program was compiled with. What a
 * later version's struct has besides is zeroed too.
 *
 * @param options  to be filled
 * @param size     sizeof(ourdb_options)
 *
 * @return OURDB_OK, or
 * - OURDB_INVALID_ARGUMENT: options is NULL, or size is one that no version's ourdb_options can
 *   have; nothing was written
 *
 * Cost: none.
 */
int ourdb_options_init(ourdb_options *options, size_t size);

/**
 * Opens a database, or makes one.
 *
 * A directory that V's or Go's OurDB wrote opens too (see herolib directories). After a crash the
 * database is put in order here: what was committed is there.
 *
 * @param path     the directory: bytes as the file system likes them, ended by a zero byte.
 *     Ignored with OURDB_OPEN_MEMORY, and may then be NULL.
 * @param options  from ourdb_options_init(), only read during the call. NULL: open what is there,
 *     otherwise make an incremental database with the defaults.
 * @param out      receives the handle; NULL on failure
 *
 * @return OURDB_OK, or
 * - OURDB_INVALID_ARGUMENT: path or out is NULL, path is empty, an unknown flag or value in the
 *   options, flags that exclude each other, options not prepared by ourdb_options_init()
 * - OURDB_NOT_FOUND: no database is there, and OURDB_OPEN_MUST_EXIST or OURDB_OPEN_READ_ONLY was
 *   given
 * - OURDB_LOCKED: it is open for writing already, in this process or in another
 * - OURDB_INCOMPATIBLE: it was made with another mode or format than is asked for or known; a
 *   limit lower than what is stored; an option that this version of the library doesn't know; a
 *   herolib directory without a lookup dump, and OURDB_OPEN_ADOPT was not given
 * - OURDB_CORRUPT: its files are damaged, and not in the way a crash leaves them
 * - OURDB_IO, OURDB_NO_SPACE, OURDB_OUT_OF_MEMORY, OURDB_PANIC
 *
 * Cost: of a cleanly closed database the manifest and the lookup are read, not the data. After a
 * crash, what was written since the last checkpoint is read as well; with OURDB_LOOKUP_DISK the
 * whole log.
 */
int ourdb_open(const char *path, const ourdb_options *options, ourdb **out);

/**
 * Closes a database: makes everything durable, writes the checkpoint that makes the next open
 * fast and the lookup dump for herolib, and gives up the lock.
 *
 * Whatever it returns, the handle is gone, and must not be used again, except for OURDB_BUSY. A
 * failure means that not everything may be durable; what was committed is recovered at the next
 * open as after a crash. Buffers and records that the library handed out stay valid until they are
 * freed.
 *
 * No other function may run on this handle during the call.
 *
 * @param db  the database; NULL does nothing and is OURDB_OK
 *
 * @return OURDB_OK, or
 * - OURDB_INVALID_ARGUMENT: db is not an open handle; nothing was done
 * - OURDB_BUSY: transactions, snapshots or iterators of it are open, or this was called by the
 *   progress function of long work on it; nothing was done, and the handle stays open
 * - OURDB_FORKED: this is a child of the process that opened it: the handle's memory was released,
 *   and nothing on disk was touched
 * - OURDB_POISONED: an earlier write failed, so that no checkpoint could be written
 * - OURDB_IO, OURDB_NO_SPACE, OURDB_OUT_OF_MEMORY, OURDB_PANIC
 *
 * Cost: syncs what is not on disk yet, and writes the lookup; the dump for herolib takes time by
 * the number of live records (OURDB_OPEN_NATIVE does without).
 */
int ourdb_close(ourdb *db);

/**
 * Closes a database and removes its own files, and the directory if it is empty then and was opened
 * by its own name, not by a symbolic link. Files that are not the database's stay.
 *
 * Whatever it returns, the handle is gone, except for OURDB_READ_ONLY and OURDB_BUSY.
 *
 * No other function may run on this handle during the call.
 *
 * @param db  the database
 *
 * @return OURDB_OK, or
 * - OURDB_INVALID_ARGUMENT: db is NULL or not an open handle; nothing was done
 * - OURDB_READ_ONLY: it was opened for reading only; nothing was done, and the handle stays open
 * - OURDB_BUSY: transactions, snapshots or iterators of it are open, or this was called by the
 *   progress function of long work on it; nothing was done, and the handle stays open
 * - OURDB_FORKED: this is a child of the process that opened it: the handle's memory was released,
 *   and nothing on disk was touched
 * - OURDB_IO: a file could not be removed; some may be gone already
 * - OURDB_PANIC
 *
 * Cost: removes each file.
 */
int ourdb_destroy(ourdb *db);

/**
 * Makes everything durable that was committed so far, in whatever sync mode.
 *
 * @param db  the database; one that was opened for reading only has nothing to sync
 *
 * @return OURDB_OK: everything that was committed before the call is on disk. Or
 * - a code that any write can return (see Errors); after OURDB_IO the handle is poisoned
 *
 * Cost: one fsync, shared with other threads that ask at the same time.
 */
int ourdb_sync(ourdb *db);

/**
 * Lets a handle that was opened for reading only see what was committed until now, by the writer in
 * this process or another. On a writer's handle it does nothing.
 *
 * Between two calls such a handle sees one moment, whatever the writer does, also when the writer
 * compacts. Transactions, snapshots and iterators that are open keep the moment that they have.
 *
 * @param db  the database
 *
 * @return OURDB_OK, or, and then the handle sees what it saw before:
 * - OURDB_NOT_FOUND: the database was removed meanwhile
 * - OURDB_INCOMPATIBLE: another database is in the directory now, or this one was set back to
 *   before what the handle has seen, also if it has gone on from there
 * - a code that any read can return (see Errors)
 *
 * Cost: reads what was written since, and the header of each data file. After a compaction, or
 * where the files were replaced, as to open it again, and a data file up to what the handle has
 * seen, if the log has that still.
 */
int ourdb_refresh(ourdb *db);

/* ------------------------------------------------------------------------------------------------
 * Bytes and records that come back, and how they are freed
 * --------------------------------------------------------------------------------------------- */

/** ourdb_record.flags: this version is a deletion. */
#define OURDB_RECORD_DELETED 1

/** ourdb_record.flags: there is no such record (in the answer of ourdb_get_many()). */
#define OURDB_RECORD_MISSING 2

/**
 * ourdb_record.flags, beside OURDB_RECORD_DELETED: what was there before was removed for good, by
 * ourdb_erase().
 */
#define OURDB_RECORD_ERASED 4

/**
 * Bytes of the library's. They are the caller's to keep until ourdb_free_buf(), and don't depend
 * on the database: they stay valid after it is closed.
 */
typedef struct ourdb_buf {
    /**
     * The first byte; not NULL after a success, also when the value is empty. After a failure
     * NULL. No zero byte follows the last one.
     */
    uint8_t *data;
    /** How many there are. */
    size_t len;
} ourdb_buf;

/** One version of one record. */
typedef struct ourdb_record {
    /** The record's id. */
    uint32_t id;
    /**
     * 0: it holds a value. Otherwise OURDB_RECORD_DELETED, perhaps with OURDB_RECORD_ERASED, or
     * OURDB_RECORD_MISSING.
     */
    uint32_t flags;
    /** The number of the commit that wrote it; 0 if herolib did, or if it is missing. */
    uint64_t commit;
    /**
     * When: microseconds since the Unix epoch, never less than an earlier commit's. 0 if unknown
     * (herolib keeps no times), or if it is missing.
     */
    uint64_t time_us;
    /** The value; NULL if it is deleted or missing. An empty value is not NULL. */
    const uint8_t *data;
    /** The value's length in bytes. */
    size_t len;
} ourdb_record;

/**
 * A list of records. It is the caller's to keep until ourdb_free_records(), all of it together:
 * the items and the bytes that they point at. It doesn't depend on the database.
 */
typedef struct ourdb_records {
    /** The records; NULL if there are none. */
    ourdb_record *items;
    /** How many there are. */
    size_t count;
    /** The library's; leave it alone. */
    void *owner;
} ourdb_records;

/** Bytes of the caller's, only read during the call. */
typedef struct ourdb_slice {
    /** The first byte; may be NULL when len is 0. */
    const uint8_t *data;
    /** How many there are. */
    size_t len;
} ourdb_slice;

/**
 * Frees the bytes, and sets data to NULL and len to 0, so that freeing twice does no harm.
 *
 * A copy of the struct is not a second owner: free one of the two.
 *
 * @param buf  as the library filled it; NULL and zeroed ones are fine
 *
 * Cost: one free().
 */
void ourdb_free_buf(ourdb_buf *buf);

/**
 * Frees the items and all that they point at, and zeroes the struct, so that freeing twice does
 * no harm.
 *
 * A copy of the struct is not a second owner: free one of the two.
 *
 * @param records  as the library filled it; NULL and zeroed ones are fine
 *
 * Cost: a few free(), however many records there are. A thread keeps one list of up to 256 KiB for
 * its next one.
 */
void ourdb_free_records(ourdb_records *records);

/* ------------------------------------------------------------------------------------------------
 * One record at a time
 * --------------------------------------------------------------------------------------------- */

/**
 * Stores a value under the next id. For incremental databases.
 *
 * Ids begin at 1, and none is given out twice, also after its record was deleted.
 *
 * @param db      the database
 * @param data    the value; may be NULL when len is 0
 * @param len     its length in bytes; 0 is a value like any other
 * @param out_id  receives the id; 0 on failure
 *
 * @return OURDB_OK, or
 * - OURDB_WRONG_MODE: in this database the caller chooses the ids
 * - OURDB_RECORD_TOO_LARGE: len is over record_size_max
 * - OURDB_FULL: every id below record_nr_max has been given out
 * - a code that any write can return (see Errors)
 *
 * Cost: one append to the log, as for ourdb_set().
 */
int ourdb_insert(ourdb *db, const void *data, size_t len, uint32_t *out_id);

/**
 * Stores a value under an id: a new version of the record, on top of those before.
 *
 * In a key-value database any id below record_nr_max will do. In an incremental one the id must
 * hold a live record, so that set only overwrites.
 *
 * @param db    the database
 * @param id    the record
 * @param data  the value; may be NULL when len is 0
 * @param len   its length in bytes; 0 is a value like any other
 *
 * @return OURDB_OK, or
 * - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
 * - OURDB_ID_NOT_ASSIGNED: incremental, and id holds no live record: never inserted, or deleted
 * - OURDB_RECORD_TOO_LARGE: len is over record_size_max
 * - a code that any write can return (see Errors)
 *
 * Cost: one append to the log: the value is copied and its checksum taken, and nothing is
 * allocated. With OURDB_SYNC_COMMIT one fsync more, shared with other threads.
 */
int ourdb_set(ourdb *db, uint32_t id, const void *data, size_t len);

/**
 * Reads a record's value into memory of the library's.
 *
 * @param db   the database
 * @param id   the record
 * @param out  receives the value, to be freed with ourdb_free_buf(); zeroed on failure. What it
 *     held before is not freed.
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: no live record has that id
 * - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
 * - a code that any read can return (see Errors)
 *
 * Cost: one look into the lookup, the checksum over the value, one allocation, one copy. No lock,
 * and no system call where data files are mapped.
 */
int ourdb_get(const ourdb *db, uint32_t id, ourdb_buf *out);

/**
 * Reads a record's value into the caller's memory. The fastest way to read one record.
 *
 * @param db   the database
 * @param id   the record
 * @param buf  receives the value; only written on success. May be NULL when cap is 0, which asks
 *     for the length alone.
 * @param cap  how many bytes buf holds
 * @param len  receives the value's length, on success and with OURDB_BUFFER_TOO_SMALL; otherwise 0
 *
 * @return OURDB_OK, or
 * - OURDB_BUFFER_TOO_SMALL: the value is longer than cap; buf is untouched, *len is its length
 * - OURDB_NOT_FOUND: no live record has that id
 * - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
 * - a code that any read can return (see Errors)
 *
 * Cost: as ourdb_get(), without the allocation.
 */
int ourdb_get_into(const ourdb *db, uint32_t id, void *buf, size_t cap, size_t *len);

/**
 * Deletes a record. The deletion is a version too: the values before it stay in the history.
 *
 * @param db  the database
 * @param id  the record
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: no live record has that id
 * - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
 * - a code that any write can return (see Errors)
 *
 * Cost: one short append to the log, as for ourdb_set().
 */
int ourdb_delete(ourdb *db, uint32_t id);

/**
 * Asks whether a record is there.
 *
 * @param db  the database
 * @param id  the record; any number will do, also one that is not below record_nr_max
 *
 * @return OURDB_OK: a live record has that id. Or
 * - OURDB_NOT_FOUND: none has
 * - a code that any read can return (see Errors)
 *
 * Cost: one look into the lookup; the value is not read.
 */
int ourdb_contains(const ourdb *db, uint32_t id);

/**
 * The id that the next ourdb_insert() will give out, if no other thread is quicker. For
 * incremental databases.
 *
 * @param db      the database
 * @param out_id  receives the id; 0 on failure
 *
 * @return OURDB_OK, or
 * - OURDB_WRONG_MODE: in this database the caller chooses the ids
 * - OURDB_FULL: every id below record_nr_max has been given out
 * - a code that any function on a database can return (see Errors)
 *
 * Cost: none.
 */
int ourdb_next_id(const ourdb *db, uint32_t *out_id);

/**
 * How many live records there are.
 *
 * @param db   the database
 * @param out  receives the number; 0 on failure
 *
 * @return OURDB_OK, or
 * - a code that any function on a database can return (see Errors)
 *
 * Cost: none; the number is kept.
 */
int ourdb_count(const ourdb *db, uint64_t *out);

/* ------------------------------------------------------------------------------------------------
 * Many records in one call, in one commit
 * --------------------------------------------------------------------------------------------- */

/**
 * Stores values under the next ids, in order, in one commit. For incremental databases.
 *
 * @param db       the database
 * @param values   the values; one of length 0 may have NULL as its data
 * @param count    how many; with 0 nothing happens, and values and out_ids may be NULL
 * @param out_ids  receives as many ids; untouched on failure
 *
 * @return OURDB_OK: all are stored. Otherwise nothing is:
 * - OURDB_WRONG_MODE: in this database the caller chooses the ids
 * - OURDB_RECORD_TOO_LARGE: a value is over record_size_max, or all together over 4 GiB
 * - OURDB_FULL: not so many ids are left below record_nr_max
 * - a code that any write can return (see Errors)
 *
 * Cost: less for each than ourdb_insert(), and one fsync for all with OURDB_SYNC_COMMIT.
 */
int ourdb_insert_many(ourdb *db, const ourdb_slice *values, size_t count, uint32_t *out_ids);

/**
 * Stores values under ids in one commit, each by the rules of ourdb_set().
 *
 * Of an id that is given twice the last value counts, and becomes one version.
 *
 * @param db      the database
 * @param ids     the records
 * @param values  their values; one of length 0 may have NULL as its data
 * @param count   how many; with 0 nothing happens, and ids and values may be NULL
 *
 * @return OURDB_OK: all are stored. Otherwise nothing is:
 * - OURDB_ID_OUT_OF_RANGE: an id is not below record_nr_max
 * - OURDB_ID_NOT_ASSIGNED: incremental, and an id holds no live record
 * - OURDB_RECORD_TOO_LARGE: a value is over record_size_max, or all together over 4 GiB
 * - a code that any write can return (see Errors)
 *
 * Cost: less for each than ourdb_set(), and one fsync for all with OURDB_SYNC_COMMIT.
 */
int ourdb_set_many(ourdb *db, const uint32_t *ids, const ourdb_slice *values, size_t count);

/**
 * Reads many records, in the order asked, as of one moment.
 *
 * A record that is not there is an item too: its flags are OURDB_RECORD_MISSING, its data is NULL.
 * So the item at an index always answers the id at that index, and a missing record is no failure.
 *
 * @param db     the database
 * @param ids    the records; any number will do, also one that is not below record_nr_max
 * @param count  how many; with 0 the answer is empty, and ids and out may be NULL
 * @param out    receives as many items, to be freed with ourdb_free_records(); zeroed on failure.
 *     What it held before is not freed.
 *
 * @return OURDB_OK, or
 * - a code that any read can return (see Errors); a damaged record fails the whole call
 *
 * Cost: less for each than ourdb_get(), because the records are fetched side by side, and a few
 * allocations for all.
 */
int ourdb_get_many(const ourdb *db, const uint32_t *ids, size_t count, ourdb_records *out);

/**
 * Deletes records in one commit. An id that is given twice is deleted once.
 *
 * @param db     the database
 * @param ids    the records
 * @param count  how many; with 0 nothing happens, and ids may be NULL
 *
 * @return OURDB_OK: all are deleted. Otherwise none is:
 * - OURDB_NOT_FOUND: no live record has one of the ids
 * - OURDB_ID_OUT_OF_RANGE: an id is not below record_nr_max
 * - a code that any write can return (see Errors)
 *
 * Cost: less for each than ourdb_delete(), and one fsync for all with OURDB_SYNC_COMMIT.
 */
int ourdb_delete_many(ourdb *db, const uint32_t *ids, size_t count);

/**
 * Deletes every live record, in one commit. Each deletion is a version: the history stays, until
 * a compaction drops it. Ids are not given out again. In an empty database it does nothing.
 *
 * @param db  the database
 *
 * @return OURDB_OK, or
 * - a code that any write can return (see Errors)
 *
 * Cost: one record of 40 bytes, however many there are, and a walk over the lookup. After 4,096
 * clears without a compaction, a deletion for each record.
 */
int ourdb_clear(ourdb *db);

/* ------------------------------------------------------------------------------------------------
 * Order: the nearest live id
 * --------------------------------------------------------------------------------------------- */

/**
 * The lowest id that holds a live record. The answer, as that of the other three, is of one moment.
 *
 * @param db      the database
 * @param out_id  receives the id; 0 on failure
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: there is no live record
 * - a code that any read can return (see Errors)
 *
 * Cost: a few steps, never one for each id that is free.
 */
int ourdb_first(const ourdb *db, uint32_t *out_id);

/**
 * The highest id that holds a live record.
 *
 * @param db      the database
 * @param out_id  receives the id; 0 on failure
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: there is no live record
 * - a code that any read can return (see Errors)
 *
 * Cost: as ourdb_first().
 */
int ourdb_last(const ourdb *db, uint32_t *out_id);

/**
 * The lowest id above a given one that holds a live record. To walk over all records, begin with
 * ourdb_first() and go on with this until it says OURDB_NOT_FOUND.
 *
 * @param db      the database
 * @param id      any number, whether a record has it or not; itself never the answer
 * @param out_id  receives the id; 0 on failure
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: no live record has a higher id
 * - a code that any read can return (see Errors)
 *
 * Cost: as ourdb_first().
 */
int ourdb_above(const ourdb *db, uint32_t id, uint32_t *out_id);

/**
 * The highest id below a given one that holds a live record.
 *
 * @param db      the database
 * @param id      any number, whether a record has it or not; itself never the answer
 * @param out_id  receives the id; 0 on failure
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: no live record has a lower id
 * - a code that any read can return (see Errors)
 *
 * Cost: as ourdb_first().
 */
int ourdb_below(const ourdb *db, uint32_t id, uint32_t *out_id);

/* ------------------------------------------------------------------------------------------------
 * History: reading it, going back, erasing
 * --------------------------------------------------------------------------------------------- */

/**
 * Reads the versions of a record, the newest first, deletions among them. The record may be
 * deleted by now.
 *
 * A deletion is an item with OURDB_RECORD_DELETED in its flags and NULL as its data; where
 * ourdb_erase() removed what was before, with OURDB_RECORD_ERASED as well. What a compaction has
 * dropped is not among them.
 *
 * @param db   the database
 * @param id   the record
 * @param max  how many versions at most; 0: all
 * @param out  receives the versions, to be freed with ourdb_free_records(); zeroed on failure.
 *     What it held before is not freed.
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: the id never held a record, or a compaction has dropped all its versions
 * - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
 * - OURDB_CORRUPT: one of the versions is damaged; a smaller max may still succeed
 * - a code that any read can return (see Errors)
 *
 * Cost: one read for each version.
 */
int ourdb_history(const ourdb *db, uint32_t id, size_t max, ourdb_records *out);

/**
 * Reads the value that a record had as of a commit: the newest version that was not written after
 * it. Where changes have left versions out (see ourdb_apply()), of those that are here.
 *
 * @param db      the database
 * @param id      the record
 * @param commit  the commit number, as in ourdb_record.commit or from ourdb_last_commit(); one
 *     beyond the last asks for the current value
 * @param out     receives the value, to be freed with ourdb_free_buf(); zeroed on failure. What it
 *     held before is not freed.
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: the record did not exist yet, or was deleted, as of that commit, or the
 *   version was compacted away or erased
 * - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
 * - a code that any read can return (see Errors)
 *
 * Cost: one step for each version that is newer, and one read.
 */
int ourdb_get_version(const ourdb *db, uint32_t id, uint64_t commit, ourdb_buf *out);

/**
 * Reads the value that a record had at a moment: the newest version that was not written after it.
 *
 * @param db       the database
 * @param id       the record
 * @param time_us  the moment, in microseconds since the Unix epoch; one in the future asks for the
 *     current value
 * @param out      receives the value, to be freed with ourdb_free_buf(); zeroed on failure. What
 *     it held before is not freed.
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: the record did not exist yet, or was deleted, at that moment, or the version
 *   was compacted away or erased
 * - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
 * - a code that any read can return (see Errors)
 *
 * Cost: as ourdb_get_version().
 */
int ourdb_get_at(const ourdb *db, uint32_t id, uint64_t time_us, ourdb_buf *out);

/**
 * The number of the last commit.
 *
 * @param db   the database
 * @param out  receives the number; 0 if nothing was ever committed, and on failure
 *
 * @return OURDB_OK, or
 * - a code that any function on a database can return (see Errors)
 *
 * Cost: none.
 */
int ourdb_last_commit(const ourdb *db, uint64_t *out);

/**
 * Gives a record the value again that it had as of a commit: a new version, on top of those since.
 * A record that was deleted since comes back under its id, also in an incremental database.
 *
 * @param db      the database
 * @param id      the record
 * @param commit  the commit number
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: the record was not there as of that commit, the commit is beyond the last, or
 *   the past from that commit on was compacted away
 * - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
 * - OURDB_RECORD_TOO_LARGE: the value of then is longer than record_size_max is now
 * - a code that any write can return (see Errors)
 *
 * Cost: as ourdb_get_version() and ourdb_set().
 */
int ourdb_revert(ourdb *db, uint32_t id, uint64_t commit);

/**
 * Makes all records again what they were as of a commit, in one new commit: what was changed since
 * gets its value of then, what was deleted since comes back, what is new since is deleted. Nothing
 * of the history is lost, and the next id stays what it is.
 *
 * @param db      the database
 * @param commit  the commit number; 0 is before the first
 *
 * @return OURDB_OK, or, and then nothing was changed:
 * - OURDB_NOT_FOUND: the commit is beyond the last, or the past from that commit on was compacted
 *   away
 * - OURDB_RECORD_TOO_LARGE: what is to be written is over the 4 GiB of one commit, or a value of
 *   then is longer than record_size_max is now
 * - a code that any write can return (see Errors)
 *
 * Cost: a walk over all ids, and one append for each record that has changed.
 */
int ourdb_revert_all(ourdb *db, uint64_t commit);

/**
 * Erases a record: deletes it, and removes the values of all its versions from the data files, so
 * that nobody can read them again, neither through the library nor in the files.
 *
 * The history shows that it was erased: a version with OURDB_RECORD_DELETED and
 * OURDB_RECORD_ERASED. In a key-value database the id can be set again later.
 *
 * Snapshots and iterators that are open don't keep what is erased. Copies of the directory and what
 * ourdb_changes() has given out are the caller's to look after; what it gives out from now on tells
 * a receiver to erase the record too, and a backup that is brought up to date erases it as well.
 *
 * @param db  the database
 * @param id  the record, live or deleted
 *
 * @return OURDB_OK: the values are gone, also from the disk, in whatever sync mode. Or
 * - OURDB_NOT_FOUND: the id never held a record, or there is nothing left to erase
 * - OURDB_ID_OUT_OF_RANGE: id is not below record_nr_max
 * - OURDB_BUSY: called by the progress function of ourdb_backup()
 * - a code that any write can return (see Errors)
 *
 * After another failure the record may be erased in part, and nobody can read it any more: then
 * writes are OURDB_POISONED, and the next opening for writing does the rest.
 *
 * Cost: one write for each version, and a few syncs; meanwhile 50 to 150 bytes of memory for each
 * version. It waits for backups that are being made, and goes before those that begin meanwhile.
 * Beside a compaction it erases what that has copied as well, and has it synced; at its end it
 * waits for that.
 */
int ourdb_erase(ourdb *db, uint32_t id);

/* ------------------------------------------------------------------------------------------------
 * Transactions and snapshots
 * --------------------------------------------------------------------------------------------- */

/** ourdb_txn_begin(): a snapshot, for reading only. */
#define OURDB_TXN_READ_ONLY 1

/**
 * Begins a transaction, or takes a snapshot.
 *
 * It sees the database as of this moment, whatever others commit meanwhile, and its own writes.
 * Any number may be open at once, in any thread; none waits for another. End each one with
 * ourdb_txn_commit() or ourdb_txn_abort(): until then the database can't be closed, and a
 * compaction can't give back the files that it reads.
 *
 * @param db     the database
 * @param flags  0, or OURDB_TXN_READ_ONLY: a snapshot, in which a write is OURDB_READ_ONLY
 * @param out    receives the transaction; NULL on failure
 *
 * @return OURDB_OK, or
 * - OURDB_INVALID_ARGUMENT: an unknown flag
 * - OURDB_READ_ONLY: the database was opened for reading only, and gives snapshots only
 * - a code that any read can return (see Errors); OURDB_POISONED, unless it is a snapshot
 *
 * Cost: one allocation, and no copy.
 */
int ourdb_txn_begin(ourdb *db, uint32_t flags, ourdb_txn **out);

/**
 * Takes a snapshot of the past: of the database as it was right after a commit.
 *
 * @param db      the database
 * @param commit  the commit number, from ourdb_stats.oldest_commit up to ourdb_last_commit(); the
 *     last one gives the same as OURDB_TXN_READ_ONLY
 * @param out     receives the snapshot; NULL on failure
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: the commit is beyond the last, or the past from that commit on was compacted
 *   away
 * - a code that any read can return (see Errors)
 *
 * Cost: as ourdb_txn_begin(). A read in it takes one step for each version that is newer.
 */
int ourdb_txn_begin_at(ourdb *db, uint64_t commit, ourdb_txn **out);

/**
 * Commits a transaction: all that it wrote, in one commit, or nothing.
 *
 * Whatever it returns, the transaction is gone, and its handle must not be used again. Iterators
 * that were opened on it stay open.
 *
 * It is OURDB_CONFLICT exactly if a record that the transaction has read was changed by a commit
 * since the transaction began: whether the record was there or not, and whether it was read by id,
 * as a neighbour, by an iterator or in a count. A write without a read never conflicts, but for
 * this: ourdb_txn_set() in an incremental database and ourdb_txn_delete() in any see whether the
 * record is live, and conflict if that was changed. At the receiver of a change feed a record that
 * was set and erased since counts as changed, though its value never came there. After a conflict
 * begin a new transaction and do the work again.
 *
 * A transaction that wrote nothing makes no commit, but tells in the same way whether what it has
 * read is still so. A snapshot is always OURDB_OK.
 *
 * @param txn  the transaction
 *
 * @return OURDB_OK, or, and then nothing of it was written:
 * - OURDB_CONFLICT: something that it has read was changed since
 * - OURDB_INVALID_ARGUMENT: txn is NULL or not an open transaction
 * - OURDB_RECORD_TOO_LARGE: what it wrote is over the 4 GiB of one commit
 * - a code that any write can return (see Errors)
 *
 * Cost: one append to the log for each record that it wrote; where it has read, a look at each
 * version that was committed since it began; and one fsync with OURDB_SYNC_COMMIT.
 */
int ourdb_txn_commit(ourdb_txn *txn);

/**
 * Ends a transaction, and drops what it wrote. This is also the way to end a snapshot.
 *
 * The transaction is gone, and its handle must not be used again. Iterators that were opened on it
 * stay open.
 *
 * @param txn  the transaction; NULL, and one that has ended already, do nothing
 *
 * Cost: frees memory.
 */
void ourdb_txn_abort(ourdb_txn *txn);

/**
 * As ourdb_insert(), in a transaction. The id is given out to no one else from now on, and is lost
 * if the transaction is not committed; but after a crash nobody knows of it.
 *
 * @param txn     the transaction
 * @param data    the value; may be NULL when len is 0
 * @param len     its length in bytes; 0 is a value like any other
 * @param out_id  receives the id; 0 on failure
 *
 * @return as ourdb_insert(); OURDB_READ_ONLY in a snapshot
 *
 * Cost: one copy of the value, into memory.
 */
int ourdb_txn_insert(ourdb_txn *txn, const void *data, size_t len, uint32_t *out_id);

/**
 * As ourdb_set(), in a transaction. Of a record that is set more than once in a transaction the
 * last value counts, and becomes one version.
 *
 * @param txn   the transaction
 * @param id    the record
 * @param data  the value; may be NULL when len is 0
 * @param len   its length in bytes; 0 is a value like any other
 *
 * @return as ourdb_set(); OURDB_READ_ONLY in a snapshot
 *
 * Cost: one copy of the value, into memory.
 */
int ourdb_txn_set(ourdb_txn *txn, uint32_t id, const void *data, size_t len);

/**
 * As ourdb_get(), in a transaction.
 *
 * @param txn  the transaction
 * @param id   the record
 * @param out  receives the value, to be freed with ourdb_free_buf(); zeroed on failure. What it
 *     held before is not freed.
 *
 * @return as ourdb_get()
 *
 * Cost: as ourdb_get(), and one step for each version that is newer than the snapshot.
 */
int ourdb_txn_get(const ourdb_txn *txn, uint32_t id, ourdb_buf *out);

/**
 * As ourdb_get_into(), in a transaction.
 *
 * @param txn  the transaction
 * @param id   the record
 * @param buf  receives the value; only written on success. May be NULL when cap is 0, which asks
 *     for the length alone.
 * @param cap  how many bytes buf holds
 * @param len  receives the value's length, on success and with OURDB_BUFFER_TOO_SMALL; otherwise 0
 *
 * @return as ourdb_get_into()
 *
 * Cost: as ourdb_txn_get(), without the allocation.
 */
int ourdb_txn_get_into(const ourdb_txn *txn, uint32_t id, void *buf, size_t cap, size_t *len);

/**
 * As ourdb_delete(), in a transaction.
 *
 * @param txn  the transaction
 * @param id   the record
 *
 * @return as ourdb_delete(); OURDB_READ_ONLY in a snapshot
 *
 * Cost: one look into the lookup.
 */
int ourdb_txn_delete(ourdb_txn *txn, uint32_t id);

/**
 * As ourdb_contains(), in a transaction.
 *
 * @param txn  the transaction
 * @param id   the record; any number will do, also one that is not below record_nr_max
 *
 * @return as ourdb_contains()
 *
 * Cost: as ourdb_txn_get(), but the value is not read.
 */
int ourdb_txn_contains(const ourdb_txn *txn, uint32_t id);

/**
 * As ourdb_first(), in a transaction.
 *
 * @param txn     the transaction
 * @param out_id  receives the id; 0 on failure
 *
 * @return as ourdb_first()
 *
 * Cost: as ourdb_first(); one look more at each id on the way that was inserted since
 * the transaction or snapshot began; in a snapshot of the past at each that was not live then.
 */
int ourdb_txn_first(const ourdb_txn *txn, uint32_t *out_id);

/**
 * As ourdb_last(), in a transaction.
 *
 * @param txn     the transaction
 * @param out_id  receives the id; 0 on failure
 *
 * @return as ourdb_last()
 *
 * Cost: as ourdb_txn_first().
 */
int ourdb_txn_last(const ourdb_txn *txn, uint32_t *out_id);

/**
 * As ourdb_above(), in a transaction.
 *
 * @param txn     the transaction
 * @param id      any number, whether a record has it or not; itself never the answer
 * @param out_id  receives the id; 0 on failure
 *
 * @return as ourdb_above()
 *
 * Cost: as ourdb_txn_first().
 */
int ourdb_txn_above(const ourdb_txn *txn, uint32_t id, uint32_t *out_id);

/**
 * As ourdb_below(), in a transaction.
 *
 * @param txn     the transaction
 * @param id      any number, whether a record has it or not; itself never the answer
 * @param out_id  receives the id; 0 on failure
 *
 * @return as ourdb_below()
 *
 * Cost: as ourdb_txn_first().
 */
int ourdb_txn_below(const ourdb_txn *txn, uint32_t id, uint32_t *out_id);

/**
 * As ourdb_count(), in a transaction.
 *
 * @param txn  the transaction
 * @param out  receives the number; 0 on failure
 *
 * @return as ourdb_count(), or a code that any read can return (see Errors)
 *
 * Cost: none in a transaction or snapshot of the present; in a snapshot of the past a walk over all
 * ids, the first time. After an erasure, in any of them, one walk more.
 */
int ourdb_txn_count(const ourdb_txn *txn, uint64_t *out);

/* ------------------------------------------------------------------------------------------------
 * Ordered scans
 * --------------------------------------------------------------------------------------------- */

/** ourdb_iter_open(), ourdb_txn_iter_open(): from the highest id down. */
#define OURDB_ITER_REVERSE 1

/**
 * ourdb_iter_open(), ourdb_txn_iter_open(): ids only. The values are not read; of a record all but
 * its id is 0.
 */
#define OURDB_ITER_KEYS 2

/**
 * Opens a scan over the live records of a range of ids, in the order of the ids.
 *
 * It sees the database as of this moment, whatever is committed meanwhile. Close it with
 * ourdb_iter_close(): until then the database can't be closed, and a compaction can't give back the
 * files that it reads.
 *
 * @param db     the database
 * @param lower  the lowest id; 0 to begin with the first
 * @param upper  the highest id, itself included; UINT32_MAX to go up to the last. One below lower
 *     makes a scan over nothing.
 * @param flags  0, or OURDB_ITER_REVERSE, OURDB_ITER_KEYS, combined with |
 * @param out    receives the iterator; NULL on failure
 *
 * @return OURDB_OK, or
 * - OURDB_INVALID_ARGUMENT: an unknown flag
 * - a code that any read can return (see Errors)
 *
 * Cost: one allocation, and no copy.
 */
int ourdb_iter_open(const ourdb *db, uint32_t lower, uint32_t upper, uint32_t flags, ourdb_iter **out);

/**
 * As ourdb_iter_open(), over what a transaction or snapshot sees: with the writes that the
 * transaction has made before this call, without later ones.
 *
 * Of what the transaction itself has written, commit and time_us are 0: there is no commit yet. The
 * iterator doesn't need the transaction, and may be used after that has ended.
 *
 * @param txn    the transaction
 * @param lower  the lowest id; 0 to begin with the first
 * @param upper  the highest id, itself included; UINT32_MAX to go up to the last. One below lower
 *     makes a scan over nothing.
 * @param flags  0, or OURDB_ITER_REVERSE, OURDB_ITER_KEYS, combined with |
 * @param out    receives the iterator; NULL on failure
 *
 * @return OURDB_OK, or
 * - OURDB_INVALID_ARGUMENT: an unknown flag
 * - a code that any read can return (see Errors)
 *
 * Unless it is a snapshot, the transaction has read all ids from the end of the range at which the
 * iterator began to the record that was handed out last, and the rest of the range when the
 * iterator has said that it is over, or has handed out fewer than were asked for because it is.
 * What it doesn't come to doesn't count as read.
 *
 * Cost: one allocation. The first write of the transaction after that copies what it wrote before.
 */
int ourdb_txn_iter_open(const ourdb_txn *txn, uint32_t lower, uint32_t upper, uint32_t flags, ourdb_iter **out);

/**
 * Goes on to the next record.
 *
 * @param iter  the iterator
 * @param out   receives the record; zeroed on failure. Its data belongs to the iterator, is valid
 *     until the next call on that, and is not to be freed.
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: the iteration is over, and stays so
 * - OURDB_CORRUPT: the next record is damaged
 * - a code that any read can return (see Errors)
 *
 * Cost: less than a read by id, because the next records are fetched ahead; no allocation where
 * data files are mapped.
 */
int ourdb_iter_next(ourdb_iter *iter, ourdb_record *out);

/**
 * Goes on to the next records, many at once.
 *
 * @param iter  the iterator
 * @param max   how many at most; 0: 65,536. A list ends in any case once its values have a
 *     mebibyte, so only OURDB_NOT_FOUND says that no more are left.
 * @param out   receives the records, at least one, to be freed with ourdb_free_records(); zeroed on
 *     failure. They are the caller's, and don't depend on the iterator. What it held before is not
 *     freed.
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: the iteration is over, and stays so
 * - OURDB_CORRUPT: one of the next records is damaged
 * - a code that any read can return (see Errors)
 *
 * Cost: less for each than ourdb_iter_next() for a caller in another language; a few allocations
 * for all, and a copy of each value.
 */
int ourdb_iter_next_many(ourdb_iter *iter, size_t max, ourdb_records *out);

/**
 * Goes on to the next records, of which the ids alone are wanted. The fastest way to go over many.
 *
 * No value is read, with OURDB_ITER_KEYS or without. On one iterator it may take turns with
 * ourdb_iter_next() and ourdb_iter_next_many().
 *
 * @param iter   the iterator
 * @param ids    receives the ids, at least one; untouched on failure
 * @param cap    how many ids has room for; not 0
 * @param count  receives how many there are; 0 on failure. Fewer than cap don't say that it is
 *     over: only OURDB_NOT_FOUND does.
 *
 * @return OURDB_OK, or
 * - OURDB_NOT_FOUND: the iteration is over, and stays so
 * - OURDB_INVALID_ARGUMENT: cap is 0
 * - OURDB_CORRUPT: what says whether the next record is there is damaged
 * - a code that any read can return (see Errors)
 *
 * Cost: a few nanoseconds for each; nothing is allocated, unless the iterator is that of a
 * transaction.
 */
int ourdb_iter_next_ids(ourdb_iter *iter, uint32_t *ids, size_t cap, size_t *count);

/**
 * Closes an iterator. The record that ourdb_iter_next() gave last is gone with it.
 *
 * @param iter  the iterator; NULL, and one that is closed already, do nothing
 *
 * Cost: frees memory.
 */
void ourdb_iter_close(ourdb_iter *iter);

/* ------------------------------------------------------------------------------------------------
 * Long work: compaction, backup, check
 * --------------------------------------------------------------------------------------------- */

/**
 * What a compaction keeps: every version that one of the rules keeps. Prepare it with
 * ourdb_retention_init(), then set what is wanted. A rule of 0 is switched off.
 *
 * The newest version of a live record always stays, also with all rules off.
 */
typedef struct ourdb_retention {
    /** sizeof(ourdb_retention), as ourdb_retention_init() set it. */
    size_t size;
    /** The last so many versions of each record, deletions counted; at first 1. */
    uint64_t keep_versions;
    /** Versions whose time is this or later, in microseconds since the Unix epoch. */
    uint64_t keep_since_us;
    /** Versions whose commit has this number or a higher one. */
    uint64_t keep_since_commit;
} ourdb_retention;

/**
 * Called now and then during long work, by the thread that asked for it.
 *
 * It may use the database; to close it is OURDB_BUSY. It must return, and not by longjmp or a C++
 * exception.
 *
 * @param context  what the caller gave
 * @param done     how much is done, in bytes
 * @param total    how much there is to do
 *
 * @return 0 to go on; anything else stops the work, which then returns OURDB_CANCELLED
 */
typedef int (*ourdb_progress)(void *context, uint64_t done, uint64_t total);

/**
 * Prepares a retention: keep_versions is 1, the other rules are off.
 *
 * @param retention  to be filled
 * @param size       sizeof(ourdb_retention)
 *
 * @return OURDB_OK, or
 * - OURDB_INVALID_ARGUMENT: retention is NULL, or size is one that no version's ourdb_retention
 *   can have; nothing was written
 *
 * Cost: none.
 */
int ourdb_retention_init(ourdb_retention *retention, size_t size);

/**
 * Makes the data files shorter: writes what the retention keeps into new ones, and drops the rest
 * for good. A record of which no version is kept disappears.
 *
 * Reads and writes of other threads and processes go on meanwhile. Transactions, snapshots and
 * iterators that are open keep what they see; their old data files are removed when the last of
 * them has ended. A crash on the way leaves the database as it was or compacted.
 *
 * @param db         the database
 * @param retention  what to keep, from ourdb_retention_init(); only read during the call
 * @param progress   called every few MiB; may be NULL
 * @param context    handed to progress
 *
 * @return OURDB_OK, or, and then nothing was changed:
 * - OURDB_BUSY: another compaction is at work, perhaps that of auto_compact_percent
 * - OURDB_CANCELLED: progress asked to stop
 * - OURDB_CORRUPT: something that was to be kept is damaged
 * - OURDB_INVALID_ARGUMENT: retention is NULL or was not prepared
 * - OURDB_INCOMPATIBLE: a rule is set that this version of the library doesn't know
 * - a code that any write can return (see Errors)
 *
 * Cost: reads everything and writes what is kept, so for a while the disk holds both; and 8 bytes
 * of memory for each id in use, and 50 to 100 for each version that is kept of the record with the
 * most. Writers wait at its end only, while what they wrote last is taken over; before that it
 * waits for an erasure that is under way.
 */
int ourdb_compact(ourdb *db, const ourdb_retention *retention, ourdb_progress progress, void *context);

/**
 * Copies the database as it is now into another directory, with its whole history. Reads and
 * writes go on meanwhile, erasures wait; for one that waits already, this waits first. The copy
 * opens like any database, and is durable when this returns OURDB_OK.
 *
 * A directory that holds an earlier backup of the same database is brought up to date: only what is
 * new is copied. If that is cut short, by a crash or by progress, the directory holds the earlier
 * backup still, or can be brought up to date by the next call.
 *
 * @param db           the database; may be opened for reading only
 * @param destination  a directory that is absent, empty, or holds an earlier backup of this
 *     database that nobody has written to or compacted since
 * @param progress     called every few MiB; may be NULL. Where db is open for reading only, and the
 *     writer has erased what was being copied, it is copied again, and told anew. It must not
 *     wait for a backup of another thread, which may wait for an erasure that waits for this one
 * @param context      handed to progress
 *
 * @return OURDB_OK, or
 * - OURDB_INCOMPATIBLE: the directory holds something else, a backup that was written to since, or
 *   one that goes further than db, or has another history: db was set back, has other commits than
 *   the database that made the backup, or is a read-only handle that was not refreshed since
 * - OURDB_LOCKED: somebody has the backup open for writing
 * - OURDB_BUSY: db is open for reading only, and the files of the moment that it sees went with a
 *   compaction or were replaced: call ourdb_refresh(). Or the writer erases quicker than it can be
 *   copied
 * - OURDB_CANCELLED: progress asked to stop
 * - OURDB_INVALID_ARGUMENT: destination is NULL or empty
 * - OURDB_NO_SPACE: disk or quota is full there
 * - a code that any read can return (see Errors)
 *
 * Cost: reads what is new and writes it, with a few syncs, and takes 8 bytes of memory per id
 * meanwhile, with OURDB_LOOKUP_DISK too; for what was taken over from herolib 24.
 */
int ourdb_backup(const ourdb *db, const char *destination, ourdb_progress progress, void *context);

/**
 * Reads every version of every record and verifies it: both checksums, that each version follows
 * the one before it, that commits follow each other, and that the lookup is what the log makes of
 * it. As of the moment of the call; reads and writes of other threads go on.
 *
 * On a database that was opened with OURDB_OPEN_SALVAGE it names what was lost.
 *
 * @param db        the database
 * @param progress  called every few MiB; may be NULL
 * @param context   handed to progress
 *
 * @return OURDB_OK: nothing is damaged. Or
 * - OURDB_CORRUPT: something is; ourdb_errmsg() names each damaged place, one to a line, up to
 *   1,000 of them: file, offset, and the record where it is known
 * - OURDB_CANCELLED: progress asked to stop
 * - OURDB_BUSY: a read-only handle, and the database was compacted, made anew or put back since:
 *   ourdb_refresh() it
 * - a code that any read can return (see Errors)
 *
 * Cost: reads all data files once; meanwhile 8 bytes of memory for each id in use.
 */
int ourdb_check(const ourdb *db, ourdb_progress progress, void *context);

/* ------------------------------------------------------------------------------------------------
 * Statistics
 * --------------------------------------------------------------------------------------------- */

/**
 * What there is, as of a moment. Prepare it with ourdb_stats_init(), then any number of calls of
 * ourdb_stats_get() fill it.
 */
typedef struct ourdb_stats {
    /** sizeof(ourdb_stats), as ourdb_stats_init() set it. */
    size_t size;
    /** Live records, as ourdb_count(). */
    uint64_t live;
    /**
     * Versions that are kept, deletions among them; of what herolib wrote only the newest ones.
     * What an erasure removed counts until the next compaction.
     */
    uint64_t versions;
    /**
     * Deletions and erasures among the versions, but not values that an erasure removed, though a
     * history may have one as OURDB_RECORD_ERASED; the deletions of an ourdb_clear() count in both
     * from the next compaction on.
     */
    uint64_t deletions;
    /** Bytes in the data files that the newest versions of live records take. */
    uint64_t bytes_live;
    /**
     * Bytes in the data files that the rest takes: older versions, deletions, marks of the log. A
     * compaction that keeps one version gets most of them back.
     */
    uint64_t bytes_dead;
    /** Data files. */
    uint64_t data_files;
    /** Their bytes; space that is reserved ahead is not counted. */
    uint64_t bytes_on_disk;
    /** The last commit, as ourdb_last_commit(). */
    uint64_t last_commit;
    /** The last commit that is known to be on disk. */
    uint64_t synced_commit;
    /**
     * The first commit that ourdb_txn_begin_at() has a snapshot of. Beyond the last one in the
     * middle of a difference of states (see ourdb_changes()), which ends with it.
     */
    uint64_t oldest_commit;
    /**
     * The id that the next ourdb_insert() gives out; in a key-value database the one after the
     * highest that was ever set.
     */
    uint64_t next_id;
    /**
     * Transactions, snapshots and iterators that are open on this handle; an iterator of a
     * transaction counts with that.
     */
    uint64_t transactions;
    /** The time of the last commit, in microseconds since the Unix epoch; 0 if there is none. */
    uint64_t last_time_us;
} ourdb_stats;

/**
 * Prepares stats: zeroes the struct, and sets its size.
 *
 * @param stats  to be filled
 * @param size   sizeof(ourdb_stats)
 *
 * @return OURDB_OK, or
 * - OURDB_INVALID_ARGUMENT: stats is NULL, or size is one that no version's ourdb_stats can have;
 *   nothing was written
 *
 * Cost: none.
 */
int ourdb_stats_init(ourdb_stats *stats, size_t size);

/**
 * Reads the numbers of a database.
 *
 * @param db   the database
 * @param out  from ourdb_stats_init(); receives the numbers, as of one moment. Fields that the
 *     library doesn't know are 0. On failure all are, but for the size.
 *
 * @return OURDB_OK, or
 * - OURDB_INVALID_ARGUMENT: out is NULL, or was not prepared by ourdb_stats_init(); it is untouched
 * - a code that any read can return (see Errors)
 *
 * Cost: a walk over the lookup, a few nanoseconds for each id. It waits for a commit that is being
 * appended.
 */
int ourdb_stats_get(const ourdb *db, ourdb_stats *out);

/* ------------------------------------------------------------------------------------------------
 * Changes: one database follows another
 * --------------------------------------------------------------------------------------------- */

/**
 * Reads what was committed after a commit, as bytes for ourdb_apply() on another database: whole
 * commits, in order, each with its number and time.
 *
 * To follow a database, begin with 0, or with the last commit of a backup, and go on with what
 * out_commit says until the answer is empty. The bytes carry checksums, mean the same on every
 * machine, and may be stored or sent as they are; ourdb_apply() takes one answer at a time.
 *
 * After a compaction of the sender, changes from before it are a difference of states: the
 * versions that were kept, in the order of their commits, with their numbers and times, and at
 * its end the ids that are live then. A receiver in the middle of them is between two states; it
 * is at one again when it has applied all up to the commit of that compaction, which is its own
 * ourdb_stats.oldest_commit then, also if nothing was dropped. Its records have then the
 * versions that the sender has kept, and those that they had before; those that the sender has
 * no more are deleted with that commit. Until then it takes only what leads on to that: from the
 * sender that gave the part before, or from one that was compacted later. From there on it gets
 * changes as before.
 *
 * @param db            the database; may be opened for reading only
 * @param since_commit  the last commit that the receiver has; 0: everything
 * @param max_bytes     the answer gets no longer, unless its first commit alone is, or the list of
 *     live ids at the end of a difference; 0: no limit
 * @param out           receives the changes, to be freed with ourdb_free_buf(); its len is 0 if
 *     there are none, also where since_commit is beyond the last commit. Zeroed on failure. What it
 *     held before is not freed.
 * @param out_commit    receives the last commit among them; since_commit if there are none; 0 on
 *     failure
 *
 * @return OURDB_OK, or
 * - OURDB_INCOMPATIBLE: the database was taken over from herolib, and since_commit is before its
 *   first own commit, or before a compaction: then copy the directory, once it has such a
 *   commit, and go on from the copy. Or it was opened with OURDB_OPEN_SALVAGE, and this would be
 *   a part of a difference
 * - OURDB_BUSY: a read-only handle, and the database was compacted, made anew or put back since:
 *   ourdb_refresh() it
 * - a code that any read can return (see Errors)
 *
 * Cost: reads the log from there on, and copies it. The first part of a difference reads the heads
 * of all versions that were kept, the last one looks at all ids, both once for all who ask; 16
 * bytes of memory for each of those versions, until the next compaction or the close.
 */
int ourdb_changes(const ourdb *db, uint64_t since_commit, size_t max_bytes, ourdb_buf *out, uint64_t *out_commit);

/**
 * Applies what ourdb_changes() gave out of another database. The commits come in with the numbers
 * and times that they have there.
 *
 * The receiver is a database, of either mode, that nobody else writes to: an empty one, a backup of
 * the sender, or one that has applied what came before. What it has already is skipped, so applying
 * the same changes twice does no harm.
 *
 * @param db       the database
 * @param changes  the bytes
 * @param len      how many; with 0 nothing happens, and changes may be NULL
 *
 * @return OURDB_OK, or
 * - OURDB_INCOMPATIBLE: a commit before these is missing; or the database has commits of its own
 *   (of which a difference knows only what shows in the records that are live at its end), or is
 *   in the middle of a difference that they don't go on with
 * - OURDB_ID_OUT_OF_RANGE: an id among them is not below the database's record_nr_max
 * - OURDB_RECORD_TOO_LARGE: a value is longer than its record_size_max, or one commit writes
 *   more than 4 GiB
 * - OURDB_CORRUPT: these are not the bytes that ourdb_changes() gave out
 * - OURDB_BUSY: called by the progress function of ourdb_backup(), and they erase something that is
 *   not erased here yet, or have versions in them that were erased since
 * - a code that any write can return (see Errors)
 *
 * After a failure the commits before the one that failed may be there, never a part of one:
 * ourdb_last_commit() says where to go on.
 *
 * Cost: as ourdb_set_many() for each commit. The last part of a difference reads the heads of all
 * live records.
 */
int ourdb_apply(ourdb *db, const void *changes, size_t len);

#ifdef __cplusplus
}
#endif

#endif
