//! How a command ends, for scripts.

use std::process::ExitCode;

/// The exit codes every command shares; a command with more of its own documents them in its help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Not done; the reason is on standard error.
    Failure = 1,
    /// A command line or configuration that has to be corrected first. (clap's own code too.)
    Usage = 2,
    /// Interrupted by Ctrl-C or SIGTERM. (What a shell says of a program that SIGINT ended.)
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure of a command, in words for the person who typed it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    message: String,
    help: Option<String>,
    exit: u8,
}

impl CommandError {
    /// Something that did not work.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, exit: Exit::Failure as u8 }
    }

    /// Something to be typed or configured otherwise.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, exit: Exit::Usage as u8 }
    }

    /// Something that somebody stopped.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, exit: Exit::Interrupted as u8 }
    }

    /// With what to do about it, in a sentence.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With an exit code of the command's own.
    #[must_use]
    pub fn exit(mut self, code: u8) -> Self {
        self.exit = code;
        self
    }

    /// What to do about it.
    pub fn help_text(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.exit
    }
}
