//! Makes a result fit into an event: a JSON text that is cut at the end is no JSON.
//!
//! The texts of all commands are held to one length, the largest with which everything fits; of each the beginning and the
//! end are kept. What is left out can still be recognised by its hash. When that is not enough, the contents of files go,
//! and then the list of them ends early, and says so.

use std::time::Duration;

use super::running::Report;
use crate::job::sandbox_run::{
    Artifact, CommandEnd, CommandResult, MissingArtifact, RunEnvironment, RunResult, RunUsage,
};
use crate::sandbox::{Ended, Output};

/// Bytes kept of each text when there is room.
pub(super) const MOST_KEPT: usize = 16 * 1024;

/// Bytes kept of each text at least.
const LEAST_KEPT: usize = 16;

/// Bytes of a command that are repeated in its result.
const MOST_OF_A_COMMAND: usize = 1_024;

/// How much longer a JSON text may be as a string of another JSON text, in percent: quotes and line breaks are escaped once
/// more there, and the event as a whole has a limit too.
const ESCAPED_PERCENT: usize = 145;

/// Why a file's content is not there.
pub(super) const NO_ROOM: &str = "the result has no room for it";

/// Why files are not even listed.
const NOT_LISTED: &str = "the result has no room to list this file and those behind it";

/// The JSON of a result, of at most so many bytes where that can be.
pub(super) fn fitted(report: &Report, most: usize) -> String {
    let (mut fits, mut too_large) = (LEAST_KEPT, MOST_KEPT + 1);
    // The largest length that fits; longer never makes it shorter.
    while too_large - fits > 1 {
        let middle = fits + (too_large - fits) / 2;
        if is_small(&written(report, middle), most) { fits = middle } else { too_large = middle }
    }
    let mut result = written(report, fits);
    while !is_small(&result, most) && drop_something(&mut result) {}
    json(&result)
}

/// Drops the content of the last file that has one, or the last file.
fn drop_something(result: &mut RunResult) -> bool {
    if let Some(artifact) = result.artifacts.iter_mut().rev().find(|artifact| artifact.data.is_some()) {
        artifact.data = None;
        artifact.why = Some(NO_ROOM.to_owned());
        return true;
    }
    let Some(Artifact { path, .. }) = result.artifacts.pop() else { return false };
    // One line for all of them.
    match result.missing_artifacts.iter_mut().find(|missing| missing.why == NOT_LISTED) {
        Some(first) => first.path = path,
        None => result.missing_artifacts.push(MissingArtifact { path, why: NOT_LISTED.to_owned() }),
    }
    true
}

fn json(result: &RunResult) -> String {
    serde_json::to_string(result).expect("plain data is always JSON")
}

fn is_small(result: &RunResult, most: usize) -> bool {
    let text = json(result);
    text.len() <= most && escaped_bytes(&text) <= most.saturating_mul(ESCAPED_PERCENT) / 100
}

/// Bytes of a JSON text inside a JSON string: it has no control characters of its own.
fn escaped_bytes(json: &str) -> usize {
    json.len() + json.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count()
}

/// The result with so many bytes of each text.
fn written(report: &Report, keep: usize) -> RunResult {
    let command = |(shell, ran): &(String, crate::sandbox::Ran)| CommandResult {
        command: beginning_of(shell, keep.min(MOST_OF_A_COMMAND)),
        exit_code: ran.exit_code,
        stdout: ends_of(&ran.stdout, keep),
        stderr: ends_of(&ran.stderr, keep),
        stdout_sha256: ran.stdout.sha256.clone(),
        stderr_sha256: ran.stderr.sha256.clone(),
        duration_ms: millis(ran.duration),
        timed_out: ran.ended == Ended::TimedOut,
        ended: end_in_words(ran.ended),
    };
    let last = report.ran.last().map(|(_, ran)| ran);
    RunResult {
        exit_code: report.exit_code(),
        stdout: last.map_or_else(String::new, |ran| ends_of(&ran.stdout, keep)),
        stderr: last.map_or_else(String::new, |ran| ends_of(&ran.stderr, keep)),
        command_results: report.ran.iter().map(command).collect(),
        artifacts: report.artifacts.clone(),
        missing_artifacts: report.missing.clone(),
        usage: RunUsage {
            cpu_time_ms: millis(report.usage.cpu_time),
            peak_memory_bytes: report.usage.peak_memory_bytes,
            disk_writes_bytes: report.usage.disk_writes_bytes,
            network_bytes: report.usage.network_bytes,
        },
        env: RunEnvironment { image_digest: report.image_digest.clone(), runtime: report.runtime.word().to_owned() },
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How a command ended, in the result's words.
pub(super) const fn end_in_words(ended: Ended) -> CommandEnd {
    match ended {
        Ended::Exited => CommandEnd::Exited,
        Ended::TimedOut => CommandEnd::TimedOut,
        Ended::OutOfMemory => CommandEnd::OutOfMemory,
        Ended::TooMuchOutput => CommandEnd::TooMuchOutput,
    }
}

/// The beginning and the end of what was written, with a line between them when something is left out. The sandbox may have
/// left out the middle already: what is counted is what was written.
fn ends_of(output: &Output, keep: usize) -> String {
    let text = &output.text;
    if text.len() <= keep {
        return text.clone();
    }
    let (head, tail) = (beginning(text, keep / 2), end(text, keep - keep / 2));
    let kept = (head.len() + tail.len()) as u64;
    let left_out = output.bytes.max(text.len() as u64).saturating_sub(kept);
    format!("{head}\n[… {left_out} bytes are left out here …]\n{tail}")
}

fn beginning_of(text: &str, keep: usize) -> String {
    if text.len() <= keep { text.to_owned() } else { format!("{}…", beginning(text, keep)) }
}

fn beginning(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// The end of a text, in whole characters.
pub(super) fn end(text: &str, bytes: usize) -> &str {
    let begin = (text.len().saturating_sub(bytes)..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[begin..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{CellUsage, Ran, Runtime};

    fn report(commands: usize, text: &str, files: usize, data: usize) -> Report {
        let output = Output { text: text.into(), bytes: text.len() as u64, sha256: "a".repeat(64) };
        let ran = Ran {
            exit_code: 0,
            ended: Ended::Exited,
            stdout: output.clone(),
            stderr: output,
            duration: Duration::from_millis(1),
        };
        let file = |number: usize| Artifact {
            path: format!("out/file-{number}"),
            sha256: "c".repeat(64),
            size: data as u64,
            sealed: None,
            url: None,
            data: (data > 0).then(|| "A".repeat(data)),
            why: None,
        };
        Report {
            ran: vec![(text.to_owned(), ran); commands],
            artifacts: (0..files).map(file).collect(),
            missing: Vec::new(),
            usage: CellUsage::default(),
            image_digest: "sha256:d".into(),
            runtime: Runtime::Runsc,
        }
    }

    fn read(json: &str) -> RunResult {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let small = report(3, "hello\n", 2, 100);
        assert_eq!(read(&fitted(&small, 10_000)), written(&small, MOST_KEPT));
        assert_eq!(read(&fitted(&small, 10_000)).command_results[2].stdout, "hello\n");
    }

    #[test]
    fn long_texts_keep_both_ends_and_everything_fits() {
        for unit in ["x", "é", "\"", "\n", "\u{1}", "⚡"] {
            for commands in [1, 8, 64] {
                let text = format!("BEGIN{}END", unit.repeat(200_000));
                let most = 36 * 1024;
                let json = fitted(&report(commands, &text, 0, 0), most);
                assert!(json.len() <= most, "{} bytes of {commands} × {unit:?}", json.len());
                let in_an_event = serde_json::to_string(&json).unwrap().len();
                assert!(in_an_event <= most * 3 / 2, "{in_an_event} escaped of {commands} × {unit:?}");
                let read = read(&json);
                assert_eq!(read.command_results.len(), commands);
                let first = &read.command_results[0];
                assert!(first.stdout.starts_with("BEGIN") && first.stdout.ends_with("END"), "{}", first.stdout);
                assert!(first.stdout.contains("bytes are left out here"));
                assert!(first.command.starts_with("BEGIN"));
            }
        }
    }

    #[test]
    fn contents_go_before_the_list_and_the_list_says_that_it_ends() {
        let read_data = read(&fitted(&report(1, "", 3, 4_000), 9_000));
        let kept: Vec<bool> = read_data.artifacts.iter().map(|file| file.data.is_some()).collect();
        assert_eq!(kept, [true, true, false]);
        assert_eq!(read_data.artifacts[2].why.as_deref(), Some(NO_ROOM));
        let listed = read(&fitted(&report(1, "", 300, 0), 9_000));
        assert!(listed.artifacts.len() > 20 && listed.artifacts.len() < 300);
        let next = format!("out/file-{}", listed.artifacts.len());
        let missing: Vec<_> = listed.missing_artifacts.iter().map(|missing| missing.path.as_str()).collect();
        assert_eq!(missing, [next.as_str()]);
    }

    #[test]
    fn what_the_sandbox_left_out_is_counted_too() {
        let output =
            Output { text: format!("{}\n…\n{}", "a".repeat(50), "b".repeat(50)), bytes: 9_000, ..Output::default() };
        let short = ends_of(&output, 20);
        assert_eq!(short, "aaaaaaaaaa\n[… 8980 bytes are left out here …]\nbbbbbbbbbb");
        assert_eq!(ends_of(&output, 200), output.text);
    }

    #[test]
    fn what_can_not_be_made_to_fit_is_still_json() {
        assert_eq!(read(&fitted(&report(64, "x", 0, 0), 100)).command_results.len(), 64);
    }
}
