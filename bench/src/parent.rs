//! Runs the workers one after the other, all stores in each round, and collects what they say.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::engines::{ALL, Entry};
use crate::results::Results;
use crate::worker::{Job, Line, MARK, Stage};

/// The name under which the benchmark's own part is kept.
pub const OWN: &str = "benchmark";

/// Bytes of a record in OurDB's log, by which the size of the log that a kill leaves is chosen.
const LOG_RECORD: u64 = 140;

/// All rounds of all stores.
pub fn run(options: &Options) -> Result<Results, Box<dyn std::error::Error>> {
    let chosen = |entry: &&Entry| {
        options.engines.is_empty() || options.engines.iter().any(|name| name == entry.name)
    };
    let engines: Vec<&Entry> = ALL.iter().filter(chosen).collect();
    for name in &options.engines {
        if !engines.iter().any(|entry| entry.name == name) {
            let names: Vec<&str> = ALL.iter().map(|entry| entry.name).collect();
            return Err(format!("{name}: not one of {}", names.join(", ")).into());
        }
    }
    fs::create_dir_all(&options.directory)?;
    let mut results = Results::new(options, engines.iter().map(|entry| entry.name));
    for round in 0..options.rounds {
        stage(options, &mut results, OWN, Stage::Own, round)?;
        // Nobody is always the first, or always behind the same one.
        let first = engines.len() * round as usize / options.rounds as usize;
        for entry in engines.iter().cycle().skip(first).take(engines.len()) {
            eprintln!("round {} of {}: {}", round + 1, options.rounds, entry.name);
            for stages in [
                &[Stage::Load, Stage::Work][..],
                &[Stage::Kill, Stage::Recover],
                &[Stage::Durable],
            ] {
                // Each begins with nothing; the second of a pair needs what the first has left.
                remove(options)?;
                for &one in stages {
                    if !stage(options, &mut results, entry.name, one, round)? {
                        break;
                    }
                }
            }
            remove(options)?;
        }
    }
    fs::remove_dir(&options.directory)?;
    Ok(results)
}

/// Removes what a store has left.
fn remove(options: &Options) -> std::io::Result<()> {
    let directory = options.directory.join("store");
    if directory.exists() {
        fs::remove_dir_all(directory)
    } else {
        Ok(())
    }
}

/// Runs one worker; whether it did all that it was to do.
fn stage(
    options: &Options,
    results: &mut Results,
    engine: &str,
    stage: Stage,
    round: u32,
) -> Result<bool, Box<dyn std::error::Error>> {
    let directory = options.directory.join("store");
    fs::create_dir_all(&directory)?;
    let records = match stage {
        Stage::Kill | Stage::Recover => (options.kill_mb * 1_000_000 / LOG_RECORD) as u32,
        _ => options.records,
    };
    let job = Job {
        engine: engine.to_owned(),
        stage,
        directory,
        records,
        time_ms: options.time_ms,
        seed: round.into(),
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg("worker")
        .arg(serde_json::to_string(&job)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;

    let (sender, lines) = channel();
    let output = child.stdout.take().ok_or("no standard output")?;
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            let line = line
                .find(MARK)
                .and_then(|at| serde_json::from_str::<Line>(&line[at + MARK.len()..]).ok());
            if line.is_some_and(|line| sender.send(line).is_err()) {
                break;
            }
        }
    });
    let mut errors = child.stderr.take().ok_or("no standard error")?;
    let complaint = thread::spawn(move || {
        let mut text = Vec::new();
        // What can't be read can't be shown.
        let _ = errors.read_to_end(&mut text);
        String::from_utf8_lossy(&text)
            .trim()
            .chars()
            .take(300)
            .collect::<String>()
    });

    let deadline = Instant::now() + Duration::from_secs(options.limit_s);
    let mut failure = None;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Line::Figure {
                row,
                value,
                operations,
            }) => results.add(engine, &row, value, operations),
            Ok(Line::Failed { why }) => failure = Some(why),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                failure = Some(format!("not finished in {} s", options.limit_s));
                child.kill()?;
                break;
            }
        }
    }
    let status = child.wait()?;
    drop(lines);
    let done = status.success()
        || (stage == Stage::Kill && status.signal() == Some(libc::SIGKILL) && failure.is_none());
    let panicked = |_| "a thread of the benchmark panicked";
    reader.join().map_err(panicked)?;
    let complaint = complaint.join().map_err(panicked)?;
    if !done {
        let why = failure.unwrap_or_else(|| format!("{status}: {complaint}"));
        eprintln!("  {stage:?}: {why}");
        results.fail(engine, stage, round, &why);
    }
    Ok(done)
}
