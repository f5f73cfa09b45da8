//! Asking people. Questions go to standard error, so that standard output stays for results.

use std::io::{self, IsTerminal};

use anyhow::Result;
use dialoguer::theme::ColorfulTheme;
use dialoguer::{Confirm, Input, Password, Select};
use zeroize::Zeroizing;

use super::exit::CommandError;

/// Somebody to ask, or nobody.
pub trait Ask {
    /// Whether anybody answers. If not, [`Nobody`] stands in.
    fn is_there(&self) -> bool {
        true
    }
    /// A line of text; `default` is what an empty line means.
    fn text(&mut self, question: &str, default: &str) -> Result<String>;
    /// A line that is not shown while typed.
    fn secret(&mut self, question: &str) -> Result<Zeroizing<String>>;
    /// Yes or no.
    fn confirm(&mut self, question: &str, default: bool) -> Result<bool>;
    /// One of several, by index.
    fn choose(&mut self, question: &str, choices: &[&str], default: usize) -> Result<usize>;
    /// Tells something.
    fn say(&mut self, text: &str) -> Result<()>;
}

/// The person at the terminal.
pub struct Terminal {
    theme: ColorfulTheme,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Terminal")
    }
}

impl Terminal {
    /// The terminal, when somebody sits at it: both input and standard error are one. Else nobody.
    pub fn open() -> Box<dyn Ask> {
        if io::stdin().is_terminal() && io::stderr().is_terminal() {
            Box::new(Self { theme: ColorfulTheme::default() })
        } else {
            Box::new(Nobody)
        }
    }
}

/// Answers every question with its default, and can tell no secrets: what scripts get.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl Ask for Nobody {
    fn is_there(&self) -> bool {
        false
    }

    fn text(&mut self, _: &str, default: &str) -> Result<String> {
        Ok(default.to_owned())
    }

    fn secret(&mut self, question: &str) -> Result<Zeroizing<String>> {
        Err(CommandError::usage(format!("there is no terminal to ask '{question}'")).into())
    }

    fn confirm(&mut self, _: &str, default: bool) -> Result<bool> {
        Ok(default)
    }

    fn choose(&mut self, _: &str, _: &[&str], default: usize) -> Result<usize> {
        Ok(default)
    }

    fn say(&mut self, _: &str) -> Result<()> {
        Ok(())
    }
}

impl Ask for Terminal {
    fn text(&mut self, question: &str, default: &str) -> Result<String> {
        let input = Input::with_theme(&self.theme).with_prompt(question).allow_empty(true);
        let input = if default.is_empty() { input } else { input.default(default.to_owned()) };
        Ok(input.interact_text()?)
    }

    fn secret(&mut self, question: &str) -> Result<Zeroizing<String>> {
        let password = Password::with_theme(&self.theme).with_prompt(question).allow_empty_password(true);
        Ok(Zeroizing::new(password.interact()?))
    }

    fn confirm(&mut self, question: &str, default: bool) -> Result<bool> {
        Ok(Confirm::with_theme(&self.theme).with_prompt(question).default(default).interact()?)
    }

    fn choose(&mut self, question: &str, choices: &[&str], default: usize) -> Result<usize> {
        Ok(Select::with_theme(&self.theme).with_prompt(question).items(choices).default(default).interact()?)
    }

    fn say(&mut self, text: &str) -> Result<()> {
        use io::Write as _;
        Ok(writeln!(io::stderr(), "{text}")?)
    }
}

/// Answers prepared by a test, in order; a question without an answer fails.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Script {
    answers: std::collections::VecDeque<String>,
    /// Everything asked and said.
    pub(super) transcript: Vec<String>,
}

#[cfg(test)]
impl Script {
    pub(super) fn new(answers: &[&str]) -> Self {
        Self { answers: answers.iter().map(|answer| (*answer).to_owned()).collect(), transcript: Vec::new() }
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.answers.is_empty()
    }

    fn next(&mut self, question: &str) -> Result<String> {
        self.transcript.push(question.to_owned());
        self.answers.pop_front().ok_or_else(|| anyhow::anyhow!("nobody answers '{question}'"))
    }
}

#[cfg(test)]
impl Ask for Script {
    fn text(&mut self, question: &str, default: &str) -> Result<String> {
        let answer = self.next(question)?;
        Ok(if answer.is_empty() { default.to_owned() } else { answer })
    }

    fn secret(&mut self, question: &str) -> Result<Zeroizing<String>> {
        self.next(question).map(Zeroizing::new)
    }

    fn confirm(&mut self, question: &str, default: bool) -> Result<bool> {
        Ok(match self.next(question)?.as_str() {
            "" => default,
            answer => answer == "y",
        })
    }

    fn choose(&mut self, question: &str, choices: &[&str], default: usize) -> Result<usize> {
        let answer = self.next(question)?;
        if answer.is_empty() {
            return Ok(default);
        }
        choices
            .iter()
            .position(|choice| choice.contains(&answer))
            .ok_or_else(|| anyhow::anyhow!("'{answer}' is none of {choices:?}"))
    }

    fn say(&mut self, text: &str) -> Result<()> {
        self.transcript.push(text.to_owned());
        Ok(())
    }
}
