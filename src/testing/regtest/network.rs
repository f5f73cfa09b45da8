//! The private network: the simulated chain, or a bitcoind of one's own, behind one door.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use bitcoin::{Address, Amount, OutPoint, Transaction};

use super::bitcoind::Bitcoind;
use super::chain::Chain;
use super::channels::PATIENCE;
use super::esplora::EsploraServer;
use super::rules::ScriptCheck;

/// What keeps the chain.
#[derive(Debug)]
pub enum Backend {
    /// The chain in this process, and the server nodes read it from.
    Simulated {
        /// The chain.
        chain: Chain,
        /// The server.
        esplora: EsploraServer,
    },
    /// A process of its own.
    Bitcoind(Bitcoind),
}

/// Where a node reads the chain.
#[derive(Clone, PartialEq, Eq)]
pub enum ChainAccess {
    /// From an Esplora server.
    Esplora {
        /// Its base address, without a slash at the end.
        url: String,
    },
    /// From a bitcoind, by its RPC interface.
    Bitcoind {
        /// Where it listens.
        rpc: SocketAddr,
        /// Our name there.
        user: String,
        /// And the password.
        password: String,
    },
}

impl std::fmt::Debug for ChainAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Esplora { url } => f.debug_struct("Esplora").field("url", url).finish(),
            Self::Bitcoind { rpc, .. } => f.debug_struct("Bitcoind").field("rpc", rpc).finish_non_exhaustive(),
        }
    }
}

/// A private network with a chain, a miner and a faucet.
#[derive(Debug)]
pub struct Regtest {
    backend: Backend,
}

impl Regtest {
    /// A simulated chain and its server. Scripts are not executed; see [`Regtest::start_with`].
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start() -> io::Result<Self> {
        Self::simulate(Chain::new()).await
    }

    /// The same, with scripts executed by `scripts`.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start_with(scripts: ScriptCheck) -> io::Result<Self> {
        Self::simulate(Chain::with_script_check(scripts)).await
    }

    /// A chain kept by this bitcoind, which is started.
    ///
    /// # Errors
    /// When it can't be started.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub async fn start_bitcoind(program: &Path) -> io::Result<Self> {
        Ok(Self { backend: Backend::Bitcoind(Bitcoind::start(program).await?) })
    }

    async fn simulate(chain: Chain) -> io::Result<Self> {
        let esplora = EsploraServer::start(chain.clone()).await?;
        Ok(Self { backend: Backend::Simulated { chain, esplora } })
    }

    /// What keeps the chain.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The simulated chain.
    ///
    /// # Panics
    /// When a bitcoind keeps it.
    pub fn chain(&self) -> &Chain {
        match &self.backend {
            Backend::Simulated { chain, .. } => chain,
            Backend::Bitcoind(_) => panic!("this network has a real chain"),
        }
    }

    /// The server of the simulated chain.
    ///
    /// # Panics
    /// When a bitcoind keeps it.
    pub fn esplora(&self) -> &EsploraServer {
        match &self.backend {
            Backend::Simulated { esplora, .. } => esplora,
            Backend::Bitcoind(_) => panic!("this network has no Esplora server"),
        }
    }

    /// Where nodes read the simulated chain.
    ///
    /// # Panics
    /// When a bitcoind keeps it.
    pub fn url(&self) -> String {
        self.esplora().url()
    }

    /// Where nodes read the chain.
    pub fn access(&self) -> ChainAccess {
        match &self.backend {
            Backend::Simulated { esplora, .. } => ChainAccess::Esplora { url: esplora.url() },
            Backend::Bitcoind(bitcoind) => {
                let (rpc, user, password) = bitcoind.access();
                ChainAccess::Bitcoind { rpc, user: user.to_owned(), password: password.to_owned() }
            }
        }
    }

    /// The height of the tip, in blocks.
    pub async fn height(&self) -> u32 {
        match &self.backend {
            Backend::Simulated { chain, .. } => chain.height(),
            Backend::Bitcoind(bitcoind) => bitcoind.height().await,
        }
    }

    /// Mines blocks, the first of which confirms everything that waits. Nodes read them when they do; see
    /// [`Regtest::mine`].
    pub async fn mine_blocks(&self, blocks: u32) {
        match &self.backend {
            Backend::Simulated { chain, .. } => chain.mine(blocks),
            Backend::Bitcoind(bitcoind) => bitcoind.mine(blocks).await,
        }
    }

    /// Replaces the top `depth` blocks by one more empty ones. What was in them waits again.
    pub async fn reorg(&self, depth: u32) {
        match &self.backend {
            Backend::Simulated { chain, .. } => chain.reorg(depth),
            Backend::Bitcoind(bitcoind) => bitcoind.reorg(depth).await,
        }
    }

    /// Pays `amount` from the faucet. The next block confirms it.
    ///
    /// # Panics
    /// When the faucet is dry: it has 50 bitcoin at first, and more with every block mined.
    pub async fn pay(&self, address: &Address, amount: Amount) {
        match &self.backend {
            Backend::Simulated { chain, .. } => chain.fund(address, amount),
            Backend::Bitcoind(bitcoind) => bitcoind.fund(address, amount).await,
        };
    }

    /// What waits for a block.
    pub async fn mempool(&self) -> Vec<Transaction> {
        match &self.backend {
            Backend::Simulated { chain, .. } => chain.mempool(),
            Backend::Bitcoind(bitcoind) => bitcoind.mempool().await,
        }
    }

    /// Whether an output is there and nothing spends it, neither a block nor what waits for one.
    pub async fn is_unspent(&self, output: &OutPoint) -> bool {
        match &self.backend {
            Backend::Simulated { chain, .. } => {
                chain.transaction(&output.txid).is_some() && chain.spender(output).is_none()
            }
            Backend::Bitcoind(bitcoind) => bitcoind.is_unspent(output).await,
        }
    }

    /// Waits until `look` finds what it looks for among what waits for a block.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn until_waiting<T>(&self, look: impl Fn(&[Transaction]) -> Option<T>) -> T {
        let waiting = async {
            match &self.backend {
                Backend::Simulated { chain, .. } => chain.until(|chain| look(&chain.mempool())).await,
                Backend::Bitcoind(bitcoind) => bitcoind.until_waiting(look).await,
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the transaction should be broadcast by now")
    }
}
