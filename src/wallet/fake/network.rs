//! The world fake wallets live in: one shared ledger, in memory or on disk, and a clock.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

use super::journal::Journal;
use super::ledger::{Change, Ledger, NodeId};
use crate::wallet::{InvoiceUpdate, WalletError};

/// News kept for a slow reader. One that falls further behind finds its stream ended and looks up.
const NEWS_KEPT: usize = 1_024;

/// Tells the time; a test may turn it by hand.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A Lightning network that isn't one: its wallets pay each other through a shared ledger, at once and for no fee
/// unless told otherwise. Cloning shares it.
#[derive(Clone)]
pub struct FakeNetwork {
    inner: Arc<Inner>,
    clock: Clock,
}

struct Inner {
    books: Mutex<Books>,
    /// Counts changes, for those who wait for one.
    changes: watch::Sender<u64>,
}

struct Books {
    world: World,
    journal: Option<Journal>,
}

#[derive(Default)]
struct World {
    ledger: Ledger,
    listeners: HashMap<NodeId, broadcast::Sender<InvoiceUpdate>>,
}

impl std::fmt::Debug for FakeNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeNetwork").field("on_disk", &self.is_on_disk()).finish_non_exhaustive()
    }
}

impl FakeNetwork {
    /// A network that is forgotten with its last handle.
    pub fn in_memory() -> Self {
        Self::with_journal(None)
    }

    /// A network kept in a file, which is made when missing. Every move is on disk before it is answered. The file may be
    /// open in several processes; news of what another process did comes with the next call.
    ///
    /// # Errors
    /// When the file can't be opened or is none of ours.
    pub fn open(path: &Path) -> io::Result<Self> {
        let network = Self::with_journal(Some(Journal::open(path)?));
        network.read(|_| ()).map_err(io::Error::other)?;
        Ok(network)
    }

    /// The same network by another clock. Affects the handles made from the returned one.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What time it is here.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(super) fn is_on_disk(&self) -> bool {
        self.lock().journal.is_some()
    }

    /// A watch that changes with every move.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// News for one wallet.
    pub(super) fn listen(&self, id: &str) -> broadcast::Receiver<InvoiceUpdate> {
        let mut guard = self.lock();
        let listeners = guard.world.listeners.entry(id.to_owned());
        listeners.or_insert_with(|| broadcast::Sender::new(NEWS_KEPT)).subscribe()
    }

    /// Says something to one wallet's listeners again.
    pub(super) fn announce(&self, id: &str, update: InvoiceUpdate) {
        self.lock().world.tell(id, update);
    }

    /// Looks at the ledger as it is now, other processes' moves included.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> Result<T, WalletError> {
        self.transact(|ledger| Ok((None, look(ledger))))
    }

    /// Decides on a move and makes it, all at once: nothing comes in between.
    pub(super) fn transact<T>(
        &self,
        decide: impl FnOnce(&Ledger) -> Result<(Option<Change>, T), WalletError>,
    ) -> Result<T, WalletError> {
        let mut guard = self.lock();
        let Books { world, journal } = &mut *guard;
        let mut turn = None;
        let mut moved = false;
        if let Some(journal) = journal {
            let (begun, foreign) = journal.begin().map_err(disk)?;
            turn = Some(begun);
            moved = !foreign.is_empty();
            foreign.iter().for_each(|change| world.apply(change));
        }
        let decided = decide(&world.ledger).and_then(|(change, answer)| {
            if let Some(change) = change {
                // On disk first: what is answered must survive.
                turn.as_mut().map_or(Ok(()), |turn| turn.write(&change)).map_err(disk)?;
                world.apply(&change);
                moved = true;
            }
            Ok(answer)
        });
        drop(turn);
        drop(guard);
        if moved {
            self.inner.changes.send_modify(|count| *count += 1);
        }
        decided
    }

    fn with_journal(journal: Option<Journal>) -> Self {
        let books = Books { world: World::default(), journal };
        Self {
            inner: Arc::new(Inner { books: Mutex::new(books), changes: watch::Sender::new(0) }),
            clock: Arc::new(Timestamp::now),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.inner.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// Makes a move and tells the owners of the invoices it changed.
    fn apply(&mut self, change: &Change) {
        let news: Vec<_> = change
            .entries
            .iter()
            .filter(|entry| self.ledger.entry(&entry.hash).is_some_and(|before| before.state != entry.state))
            .map(|entry| (entry.owner.clone(), entry.update()))
            .collect();
        self.ledger.apply(change);
        for (owner, update) in news {
            self.tell(&owner, update);
        }
    }

    fn tell(&self, id: &str, update: InvoiceUpdate) {
        if let Some(listener) = self.listeners.get(id) {
            // Nobody listening is fine: whoever comes later looks up.
            let _ = listener.send(update);
        }
    }
}

fn disk(error: io::Error) -> WalletError {
    WalletError::Internal(format!("the fake network's file: {error}"))
}
