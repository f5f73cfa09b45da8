//! Getting a phrase from its owner: a file, standard input or the keyboard. Never the command line, which every process
//! of the machine can read and shells remember.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use zeroize::Zeroizing;

use super::exit::CommandError;
use super::prompt::Ask;
use crate::identity::{Phrase, WordCount};

/// More than 24 words and a passphrase have; it bounds what is read.
const MAX_PHRASE_BYTES: u64 = 4 * 1_024;

/// Options for a new phrase.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct NewPhraseArgs {
    /// Words of the new phrase
    #[arg(long, value_name = "12|24", value_parser = word_count)]
    pub words: Option<WordCount>,
}

/// Options for a phrase's passphrase.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PassphraseArgs {
    /// Read a BIP 39 passphrase (a "25th word") from this file; without it the words are worth nothing
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

fn word_count(text: &str) -> Result<WordCount, String> {
    match text {
        "12" => Ok(WordCount::Twelve),
        "24" => Ok(WordCount::TwentyFour),
        _ => Err("a phrase has 12 or 24 words".into()),
    }
}

impl PassphraseArgs {
    /// Gives the phrase its passphrase, when one was named.
    ///
    /// # Errors
    /// A file that can't be used.
    pub fn apply(&self, phrase: Phrase) -> Result<Phrase> {
        let Some(path) = &self.passphrase_file else { return Ok(phrase) };
        let text = read_file(path, "the passphrase")?;
        let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if line.is_empty() {
            return Err(CommandError::usage(format!("the passphrase file {} is empty", path.display()))
                .help("leave the option out for a phrase without a passphrase")
                .into());
        }
        Ok(phrase.with_passphrase(Zeroizing::new(line.to_owned()))?)
    }
}

/// Reads an existing phrase: from `file` (`-` is standard input), else from whoever can be asked, else from standard
/// input.
///
/// # Errors
/// A file that can't be read, or a phrase that is none, with what is wrong and where.
pub fn existing(file: Option<&Path>, ask: &mut dyn Ask) -> Result<Phrase> {
    let text = match file {
        Some(path) if path != Path::new("-") => read_file(path, "the phrase")?,
        None if ask.is_there() => ask.secret("The 12 or 24 words (not shown)")?,
        _ => read(io::stdin().lock()).context("can't read the phrase from standard input")?,
    };
    Ok(Phrase::parse(&text)?)
}

fn read_file(path: &Path, what: &str) -> Result<Zeroizing<String>> {
    File::open(path)
        .map_err(anyhow::Error::from)
        .and_then(read)
        .with_context(|| format!("can't read {what} from {}", path.display()))
}

fn read(from: impl Read) -> Result<Zeroizing<String>> {
    // Reserved at once, so that no copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PHRASE_BYTES as usize + 2));
    from.take(MAX_PHRASE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_PHRASE_BYTES {
        anyhow::bail!("it is longer than {MAX_PHRASE_BYTES} bytes");
    }
    let text = std::str::from_utf8(&bytes).context("it is not UTF-8 text")?;
    Ok(Zeroizing::new(text.to_owned()))
}
