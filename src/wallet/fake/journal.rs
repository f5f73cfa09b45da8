//! The fake network's memory on disk, so that its wallets survive the death of the process that uses them.
//!
//! One line of JSON a change, appended and synced while holding the file's lock. Processes may share the file: each
//! reads what the others wrote before it writes, so a test can pay an invoice of a provider that is running, or dead.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::ledger::Change;

/// The open file and how far it has been read.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    read_to: u64,
}

impl Journal {
    /// Opens or makes the file. Nothing is read yet.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        Ok(Self { file, read_to: 0 })
    }

    /// Takes the file's lock, hands the changes others made to `learn`, lets `act` decide on a change and writes it.
    pub(super) fn exchange<T, E: From<io::Error>>(
        &mut self,
        mut learn: impl FnMut(Change),
        act: impl FnOnce() -> Result<(Option<Change>, T), E>,
    ) -> Result<(Option<Change>, T), E> {
        self.file.lock()?;
        let done = self.catch_up(&mut learn).map_err(E::from).and_then(|()| {
            let (change, answer) = act()?;
            if let Some(change) = &change {
                self.append(change)?;
            }
            Ok((change, answer))
        });
        // Even after a failure: the lock belongs to this exchange only.
        self.file.unlock()?;
        done
    }

    fn catch_up(&mut self, learn: &mut impl FnMut(Change)) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.read_to))?;
        let mut reader = BufReader::new((&self.file).take(u64::MAX));
        let mut line = String::new();
        loop {
            line.clear();
            let read = reader.read_line(&mut line)?;
            if read == 0 {
                return Ok(());
            }
            if !line.ends_with('\n') {
                // The writer died in the middle of this line, so its change never happened.
                return self.file.set_len(self.read_to);
            }
            learn(serde_json::from_str(&line)?);
            self.read_to += read as u64;
        }
    }

    fn append(&mut self, change: &Change) -> io::Result<()> {
        let mut line = serde_json::to_vec(change)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        self.read_to += line.len() as u64;
        Ok(())
    }
}
