//! The fake network's memory on disk, so that its wallets survive the death of the process that uses them.
//!
//! One line of JSON a change, appended and synced while holding the file's lock. Processes may share the file: each
//! reads what the others wrote before it writes, so a test can pay an invoice of a provider that is running, or dead.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

use super::ledger::Change;

/// The open file and how far it has been read.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    read_to: u64,
}

/// Our turn to write: the file's lock, held until dropped.
pub(super) struct Turn<'a> {
    journal: &'a mut Journal,
}

impl Journal {
    /// Opens or makes the file. Nothing is read yet.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        Ok(Self { file, read_to: 0 })
    }

    /// Waits for our turn and returns what others wrote since the last one.
    pub(super) fn begin(&mut self) -> io::Result<(Turn<'_>, Vec<Change>)> {
        self.file.lock()?;
        let turn = Turn { journal: self };
        let news = turn.journal.catch_up()?;
        Ok((turn, news))
    }

    fn catch_up(&mut self) -> io::Result<Vec<Change>> {
        self.file.seek(SeekFrom::Start(self.read_to))?;
        let mut reader = BufReader::new(&self.file);
        let mut news = Vec::new();
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            if !line.ends_with('\n') {
                // The writer died in the middle of this line, so its change never happened.
                self.file.set_len(self.read_to)?;
                break;
            }
            news.push(serde_json::from_str(&line)?);
            self.read_to += line.len() as u64;
            line.clear();
        }
        Ok(news)
    }
}

impl Turn<'_> {
    /// Writes a change. On disk when this returns.
    pub(super) fn write(&mut self, change: &Change) -> io::Result<()> {
        let mut line = serde_json::to_vec(change)?;
        line.push(b'\n');
        self.journal.file.write_all(&line)?;
        self.journal.file.sync_data()?;
        self.journal.read_to += line.len() as u64;
        Ok(())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // It can only fail when the file is gone, and then so is the lock.
        let _ = self.journal.file.unlock();
    }
}
