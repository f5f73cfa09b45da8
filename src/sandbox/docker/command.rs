//! Commands in a cell.

use std::pin::Pin;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, timeout};
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;

use super::cell::{DockerCell, Fate, State};
use super::engine::{QUICK, timed};
use super::error::EngineError;
use super::news::News;
use super::output::Collector;
use super::removal::Owned;
use super::spec::WORKSPACE;
use crate::archive::OWNER;
use crate::sandbox::{Command, Ended, Output, Pipe, Ran, SandboxError};

/// Bytes of both outputs together after which a command is ended: nobody reads that much.
const OUTPUT_LIMIT: u64 = 64 << 20;

/// How long the engine may take to start a command in a cell that runs.
const STARTING: Duration = Duration::from_secs(20);
/// How long the rest of an output may take after its command ended. The engine waits two seconds for what a process in the
/// background keeps open.
const TRAILING: Duration = Duration::from_secs(10);
/// How long a cancelled command is waited for. Its cell is removed in any case.
const CANCELLING: Duration = Duration::from_millis(900);
/// How long after a command that failed the kernel's word may come that memory was the reason: long when something was
/// killed, and only a blink for every other failure.
const LATE_NEWS_OF_A_KILL: Duration = Duration::from_secs(1);
const LATE_NEWS: Duration = Duration::from_millis(50);

/// What the kernel takes as one argument of a program, less the zero at its end.
const LONGEST_SHELL: usize = 128 * 1024 - 1;
/// What a shell says of a command that can't be run.
const CANNOT_RUN: i64 = 126;
/// What a shell says of a command that was killed.
const KILLED: i64 = 137;

type Pieces = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// A command that runs.
struct Running {
    id: String,
    pieces: Pieces,
    /// Kept, as closing it may end the other direction.
    _input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// How it ended, and with which code.
enum How {
    Exited(i64),
    TimedOut,
    TooMuchOutput,
    CellDied,
}

/// Removes the cell of a command that nobody waits for any more.
struct Abandoned<'a>(Option<&'a Owned>);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(owned) = self.0 {
            owned.0.begin();
        }
    }
}

impl DockerCell {
    pub(super) async fn execute(&self, command: &Command, cancel: &CancellationToken) -> Result<Ran, SandboxError> {
        let stop = async {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = self.owned.0.unwanted().cancelled() => {}
            }
        };
        let attended = async {
            let mut state = self.state.lock().await;
            if let Some(ended) = state.ended {
                return Err(SandboxError::Gone(ended));
            }
            if Instant::now() >= self.deadline {
                self.freeze(&mut state, Ended::TimedOut).await;
                return Err(SandboxError::Gone(Ended::TimedOut));
            }
            let mut abandoned = Abandoned(Some(&self.owned));
            let ran = self.attend(&mut state, command).await;
            // After an error of the engine nobody knows what runs.
            if !matches!(ran, Err(SandboxError::Engine(_))) {
                abandoned.0 = None;
            }
            ran
        };
        tokio::select! {
            biased;
            () = stop => {
                self.owned.0.wait(CANCELLING).await;
                Err(SandboxError::Cancelled)
            }
            ran = attended => ran,
        }
    }

    async fn attend(&self, state: &mut State, command: &Command) -> Result<Ran, SandboxError> {
        let began = Instant::now();
        let mut outputs = [Collector::new(command.keep_bytes), Collector::new(command.keep_bytes)];
        if command.shell.len() > LONGEST_SHELL {
            outputs[1].push(format!("the command is longer than {LONGEST_SHELL} bytes\n").as_bytes());
            return Ok(ran(CANNOT_RUN, Ended::Exited, outputs, began));
        }
        let deadline = self.deadline.min(began + command.timeout);
        let mut memory_was_short = false;
        let how = match self.start(state, command).await? {
            Some(running) => self.follow(state, running, &mut outputs, deadline, &mut memory_was_short).await?,
            None => How::CellDied,
        };
        let (code, ended) = match how {
            How::Exited(0) => (0, Ended::Exited),
            How::Exited(code) if memory_was_short || was_out_of_memory(state, code).await => (code, Ended::OutOfMemory),
            How::Exited(code) => (code, Ended::Exited),
            How::TimedOut => (KILLED, Ended::TimedOut),
            How::TooMuchOutput => (KILLED, Ended::TooMuchOutput),
            How::CellDied => {
                let ended = match self.fate().await? {
                    Some(Fate::Ended(Ended::OutOfMemory)) => Ended::OutOfMemory,
                    _ if memory_was_short => Ended::OutOfMemory,
                    _ => Ended::Exited,
                };
                state.ended = Some(ended);
                self.owned.0.begin();
                return Ok(ran(KILLED, ended, outputs, began));
            }
        };
        let taken = ran(code, ended, outputs, began);
        if matches!(ended, Ended::TimedOut | Ended::TooMuchOutput) {
            self.freeze(state, ended).await;
        }
        Ok(taken)
    }

    /// Starts it; `None` when what ran before left nothing to start it with, or ended the cell.
    async fn start(&self, state: &mut State, command: &Command) -> Result<Option<Running>, SandboxError> {
        let had_commands = std::mem::replace(&mut state.used, true);
        let folder = match &command.workdir {
            Some(path) => format!("{WORKSPACE}/{path}"),
            None => WORKSPACE.to_owned(),
        };
        // The folder may be missing: the shell says so as it does of everything else that is wrong with a command.
        let shell = [
            "/bin/sh",
            "-c",
            "cd -- \"$1\" || exit 126; unset OLDPWD; exec /bin/sh -c \"$2\"",
            "sh",
            &folder,
            &command.shell,
        ];
        let options = CreateExecOptions {
            cmd: Some(shell.map(str::to_owned).into()),
            env: Some(command.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            ..options()
        };
        match self.begin(options).await {
            Ok(running) => Ok(Some(running)),
            Err(error) if error.is_down() || !had_commands => Err(error.into()),
            Err(error) => match self.fate().await? {
                Some(Fate::Running) => {
                    tracing::debug!(cell = self.name(), %error, "No command can be started any more");
                    Ok(None)
                }
                _ => Ok(None),
            },
        }
    }

    async fn begin(&self, options: CreateExecOptions<String>) -> Result<Running, EngineError> {
        let docker = &self.engine.docker;
        let made = timed("making a command", QUICK, docker.create_exec(self.name(), options)).await?;
        let options = StartExecOptions { output_capacity: Some(64 * 1024), ..StartExecOptions::default() };
        match timed("starting a command", STARTING, docker.start_exec(&made.id, Some(options))).await? {
            StartExecResults::Attached { output, input } => Ok(Running { id: made.id, pieces: output, _input: input }),
            StartExecResults::Detached => {
                Err(EngineError::Unreadable { step: "starting a command", detail: "it was not attached".into() })
            }
        }
    }

    /// Reads what it prints until it ends, or has to.
    async fn follow(
        &self,
        state: &mut State,
        mut running: Running,
        outputs: &mut [Collector; 2],
        deadline: Instant,
        memory_was_short: &mut bool,
    ) -> Result<How, SandboxError> {
        let wire = state.wire.get_or_insert_with(|| self.wire());
        let mut code = None;
        let mut reading = true;
        let mut deadline = deadline;
        loop {
            if let (Some(code), false) = (code, reading) {
                return Ok(How::Exited(code));
            }
            tokio::select! {
                // Time first: an output without end must not keep it from passing.
                biased;
                () = tokio::time::sleep_until(deadline) => match (code, reading) {
                    // It ended in time; only something in the background still holds its output.
                    (Some(code), _) => return Ok(How::Exited(code)),
                    (None, true) => return Ok(How::TimedOut),
                    (None, false) => {
                        return Err(SandboxError::Engine("a command ended, and nobody said how".into()));
                    }
                },
                news = wire.next() => match news {
                    News::Exited { exec, code: said } if exec == running.id => {
                        code = Some(said);
                        deadline = Instant::now() + TRAILING;
                    }
                    News::Exited { .. } => {}
                    News::OutOfMemory => *memory_was_short = true,
                    News::Died => return Ok(How::CellDied),
                    News::Silence => {
                        state.wire = None;
                        return Err(SandboxError::Engine("it stopped telling what happens".into()));
                    }
                },
                piece = running.pieces.next(), if reading => match piece {
                    Some(Ok(LogOutput::StdErr { message })) => outputs[1].push(&message),
                    Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => outputs[0].push(&message),
                    Some(Ok(LogOutput::StdIn { .. })) => {}
                    Some(Err(_)) | None => {
                        reading = false;
                        if code.is_none() {
                            deadline = Instant::now() + TRAILING;
                        }
                    }
                },
            }
            if outputs.iter().map(Collector::bytes).sum::<u64>() > OUTPUT_LIMIT {
                return Ok(How::TooMuchOutput);
            }
        }
    }

    /// A program that talks to us.
    pub(super) async fn connect(&self, program: &[String]) -> Result<Pipe, SandboxError> {
        {
            let mut state = self.state.lock().await;
            if let Some(ended) = state.ended {
                return Err(SandboxError::Gone(ended));
            }
            state.used = true;
        }
        let options = CreateExecOptions {
            cmd: Some(program.to_vec()),
            attach_stdin: Some(true),
            attach_stderr: Some(false),
            working_dir: Some(WORKSPACE.to_owned()),
            ..options()
        };
        let running = self.begin(options).await?;
        let pieces = running.pieces.try_filter_map(|piece| async {
            Ok(match piece {
                LogOutput::StdOut { message } | LogOutput::Console { message } => Some(message),
                LogOutput::StdErr { .. } | LogOutput::StdIn { .. } => None,
            })
        });
        let pieces = Box::pin(pieces.map_err(std::io::Error::other));
        Ok(Pipe { stdin: Box::new(running._input), stdout: Box::new(StreamReader::new(pieces)) })
    }
}

/// Whether the kernel killed something of a command that failed. Its word may come after the command's.
async fn was_out_of_memory(state: &mut State, code: i64) -> bool {
    let Some(wire) = &mut state.wire else { return false };
    let late = async {
        loop {
            match wire.next().await {
                News::OutOfMemory => return true,
                News::Died | News::Silence => return false,
                News::Exited { .. } => {}
            }
        }
    };
    timeout(if code == KILLED { LATE_NEWS_OF_A_KILL } else { LATE_NEWS }, late).await.unwrap_or(false)
}

fn options() -> CreateExecOptions<String> {
    CreateExecOptions {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        user: Some(format!("{OWNER}:{OWNER}")),
        // The workspace itself may be gone to whoever runs commands: a command must start all the same.
        working_dir: Some("/".to_owned()),
        ..CreateExecOptions::default()
    }
}

fn ran(exit_code: i64, ended: Ended, outputs: [Collector; 2], began: Instant) -> Ran {
    let [stdout, stderr]: [Output; 2] = outputs.map(Collector::finish);
    Ran { exit_code, ended, stdout, stderr, duration: began.elapsed() }
}
