//! Would the campaigns find a bug if it were there? Each bug of the list is planted in turn, and
//! the short form of the campaign named beside it must fail. Without a bug all of them must pass.
//!
//! The engine has the bugs behind `planted!`, which is `false` unless it is compiled with
//! `--cfg ourdb_planted`, as this module is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::report::Campaign;
use crate::support::{Verdict, require};

/// A bug, and the campaign that must find it.
const BUGS: &[(&str, &str)] = &[
    ("acknowledged_before_synced", "images_that_a_crash_leaves"),
    ("announced_before_synced", "images_that_a_crash_leaves"),
    ("applied_at_another_time", "images_that_a_crash_leaves"),
    (
        "applied_erasures_not_finished",
        "images_that_a_crash_leaves",
    ),
    ("backup_done_before_copied", "backups_that_crash"),
    ("backup_file_known_by_name", "backups_that_crash"),
    ("backup_not_synced", "backups_that_crash"),
    (
        "backup_of_other_commits_extended",
        "histories_with_all_faults",
    ),
    ("base_checksum_ignored", "every_bit_of_a_killed_database"),
    (
        "checked_before_the_lock_only",
        "transactions_are_serializable",
    ),
    ("checkpoint_before_log", "images_that_a_crash_leaves"),
    (
        "checkpoint_checksum_ignored",
        "every_bit_of_a_closed_database",
    ),
    (
        "checkpoint_of_interrupted_backup",
        "histories_with_all_faults",
    ),
    ("clear_not_checked", "interleaved_transactions"),
    ("clears_not_noted", "images_that_a_crash_leaves"),
    ("closed_without_sync", "images_that_a_crash_leaves"),
    ("commit_flag_ignored", "images_that_a_crash_leaves"),
    ("compaction_not_announced", "images_that_a_crash_leaves"),
    ("copies_not_erased", "images_that_a_crash_leaves"),
    ("copies_not_synced", "images_that_a_crash_leaves"),
    ("cut_not_synced", "remains_that_come_back"),
    ("data_file_checksum_ignored", "images_that_a_crash_leaves"),
    ("data_file_not_chained", "images_that_a_crash_leaves"),
    ("difference_not_noted", "images_that_a_crash_leaves"),
    ("directory_not_synced", "images_that_a_crash_leaves"),
    ("envelope_checksum_ignored", "images_that_a_crash_leaves"),
    ("erased_without_journal", "images_that_a_crash_leaves"),
    ("failed_sync_forgotten", "histories_with_all_faults"),
    ("failed_write_forgotten", "changes_that_fail"),
    ("forgotten_while_seen", "interleaved_transactions"),
    ("forgotten_with_a_clear", "interleaved_transactions"),
    (
        "gaps_between_data_files_ignored",
        "images_that_a_crash_leaves",
    ),
    ("gone_not_deleted", "images_that_a_crash_leaves"),
    ("interrupted_backup_not_cut", "backups_that_crash"),
    ("journal_not_carried_out", "images_that_a_crash_leaves"),
    (
        "journal_removed_before_overwritten",
        "images_that_a_crash_leaves",
    ),
    ("last_commits_not_copied", "images_that_a_crash_leaves"),
    (
        "leftovers_removed_at_once",
        "recoveries_after_a_manifest_was_replaced",
    ),
    ("log_not_synced", "images_that_a_crash_leaves"),
    (
        "manifest_checksum_ignored",
        "every_bit_of_a_closed_database",
    ),
    ("manifest_stays_clean", "images_that_a_crash_leaves"),
    ("marked_before_synced", "images_that_a_crash_leaves"),
    ("names_of_copies_not_synced", "images_that_a_crash_leaves"),
    ("new_data_file_not_synced", "images_that_a_crash_leaves"),
    ("newer_records_not_reverted", "images_that_a_crash_leaves"),
    ("newest_dropped", "images_that_a_crash_leaves"),
    ("not_written_again", "histories_with_all_faults"),
    ("old_removed_before_manifest", "images_that_a_crash_leaves"),
    ("overwritten_backup_compared", "backups_that_crash"),
    (
        "overwritten_before_erasure_synced",
        "images_that_a_crash_leaves",
    ),
    ("overwritten_not_synced", "images_that_a_crash_leaves"),
    ("overwritten_read_in_backup", "backups_that_crash"),
    ("overwritten_stays_live_in_backup", "backups_that_crash"),
    ("previous_of_old_generation", "images_that_a_crash_leaves"),
    ("published_before_announced", "histories_with_all_faults"),
    ("ranges_not_checked", "transactions_are_serializable"),
    ("records_valid_at_any_place", "fuzzed_directories"),
    (
        "records_valid_in_any_file",
        "every_file_missing_old_swapped_and_foreign",
    ),
    (
        "recovered_erasures_not_finished",
        "images_that_a_crash_leaves",
    ),
    ("recovered_log_not_synced", "images_that_a_crash_leaves"),
    ("remains_not_cut", "remains_that_come_back"),
    ("renamed_before_synced", "images_that_a_crash_leaves"),
    ("replaced_file_not_synced", "images_that_a_crash_leaves"),
    ("replaced_not_checked", "transactions_are_serializable"),
    ("since_not_checked", "images_that_a_crash_leaves"),
    ("snapshot_not_registered", "interleaved_transactions"),
    ("sync_marks_ignored", "every_bit_of_a_killed_database"),
    ("torn_end_not_cut", "remains_that_come_back"),
    ("unfinished_erasure_forgotten", "histories_with_all_faults"),
    ("value_checksum_not_read", "every_bit_of_a_closed_database"),
    ("value_checksum_not_replayed", "images_that_a_crash_leaves"),
    ("visible_before_synced", "histories_with_all_faults"),
    ("watermark_ignored", "every_bit_of_a_killed_database"),
];

/// A campaign that runs longer hangs, and has found the bug by that.
const PATIENCE: Duration = Duration::from_secs(240);
/// Bugs that are tried at the same time.
const AT_ONCE: usize = 2;

#[test]
fn every_planted_bug_is_caught() {
    let campaign = Campaign::begin(
        "every_planted_bug_is_caught",
        "planted bugs",
        BUGS.len() as u64,
        BUGS.len() as u64,
    );
    let used: BTreeSet<&str> = BUGS.iter().map(|(_, by)| *by).collect();
    let silent = used.into_iter().map(|by| (None, by));
    let caught = BUGS.iter().map(|&(bug, by)| (Some(bug), by));
    let trials: Vec<_> = silent.chain(caught).collect();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = match *trial {
                        (None, by) => stays_silent(by),
                        (Some(bug), by) => is_caught(bug, by).map(|()| campaign.count(1)),
                    };
                    if let Err(message) = verdict {
                        failures.lock().expect("no panic").push(message);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    campaign.end();
}

fn stays_silent(name: &str) -> Verdict {
    require!(!fails(name, "none"), "{name} fails where no bug is planted");
    Ok(())
}

fn is_caught(bug: &str, by: &str) -> Verdict {
    require!(fails(by, bug), "{bug}: not caught by {by}");
    println!("{bug}: caught by {by}");
    Ok(())
}

/// Whether the short form of a campaign fails with a bug planted.
fn fails(name: &str, bug: &str) -> bool {
    let program = std::env::current_exe().expect("the name of this program");
    let mut child = Command::new(program)
        .args([name, "--test-threads=1"])
        .env("OURDB_PLANTED", bug)
        .env_remove("OURDB_TORTURE")
        .env_remove("OURDB_SEED")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program runs again");
    !ends_well(&mut child)
}

fn ends_well(child: &mut Child) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child
        .kill()
        .and_then(|()| child.wait())
        .expect("a child that hangs is killed");
    false
}

/// No bug is in the engine that is not in the list, nor the other way round.
#[test]
fn every_planted_bug_is_listed() {
    let mut planted = BTreeSet::new();
    collect(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
        &mut planted,
    );
    let listed: BTreeSet<String> = BUGS.iter().map(|(bug, _)| (*bug).to_owned()).collect();
    assert_eq!(planted, listed);
    assert_eq!(listed.len(), BUGS.len(), "a bug is listed twice");
}

fn collect(directory: &Path, planted: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory of the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, planted);
        } else if path.file_name().is_some_and(|name| name != "planted.rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let names = text.split("planted!(").skip(1);
            planted.extend(names.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
        }
    }
}
