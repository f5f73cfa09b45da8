//! The other processes of the market: started, measured, ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child as Process, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

/// Clock ticks a second in `/proc/<pid>/stat`: fixed by the kernel's interface on every platform this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// What a process of the bench is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// coinop itself.
    Provider,
    /// The limit: signatures and nothing else.
    Echo,
    /// The relay between.
    Relay,
}

/// A process of the bench. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    stdin: Option<ChildStdin>,
    /// What it said when it was ready.
    pub(crate) greeting: String,
}

impl Child {
    /// Starts this program again in a role and waits until it is ready.
    pub(crate) fn start(role: Role, task: &impl Serialize) -> Result<Self> {
        let word = role.to_possible_value().context("every role has a name")?;
        let program = std::env::current_exe().context("this program can't find itself")?;
        let mut process = Command::new(program)
            .args(["--role", word.get_name(), "--task", &serde_json::to_string(task)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("the {} can't be started", word.get_name()))?;
        let stdin = process.stdin.take();
        let mut greeting = String::new();
        let stdout = process.stdout.take().context("its output was asked for")?;
        BufReader::new(stdout).read_line(&mut greeting)?;
        let child = Self { process, stdin, greeting: greeting.trim().to_owned() };
        ensure!(!child.greeting.is_empty(), "the {} ended before it was ready", word.get_name());
        Ok(child)
    }

    /// Ends it at once, without a word (SIGKILL).
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Asks it to end in order and waits for that.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.process.wait()?;
        ensure!(status.success(), "a process of the bench ended with {status}");
        Ok(())
    }

    /// Processor time it has used, all threads, user and kernel.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(&self.process.id().to_string())
    }

    /// Memory it holds now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        status_kib(self.process.id(), "VmRSS:") * 1024
    }

    /// The most memory it ever held, in bytes.
    pub(crate) fn most_memory(&self) -> u64 {
        status_kib(self.process.id(), "VmHWM:") * 1024
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Processor time this process has used.
pub(crate) fn own_cpu() -> Duration {
    cpu_of("self")
}

fn cpu_of(pid: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

fn status_kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Processor time this thread has used, finer than a tick where the kernel tells.
pub(crate) fn thread_cpu() -> Option<Duration> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// The child's side: says that it is ready.
pub(crate) fn ready(greeting: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{greeting}")?;
    stdout.flush()?;
    Ok(())
}

/// The child's side: returns when the bench asks it to end, or has ended itself.
pub(crate) async fn asked_to_end() {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Nothing is ever written: the end of the stream is the message.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = tell.send(());
    });
    let _ = told.await;
}
