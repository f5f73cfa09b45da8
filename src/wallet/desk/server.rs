//! The desk itself.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Ask, Introduction, MOST_BYTES, Proof, SOCKET_FILE};
use crate::wallet::{History, Node, Payer, Payment, Wallet, WalletError};

/// Questions answered at once; paying a hold invoice can take long.
const AT_ONCE: usize = 32;

/// How long a question may take to be written.
const QUESTION_PATIENCE: Duration = Duration::from_secs(10);

/// Only the user who serves may pay with the wallet.
const SOCKET_MODE: u32 = 0o600;

/// Why there is no desk.
#[derive(Debug, thiserror::Error)]
#[error("the socket {} can't be made: {source}", path.display())]
pub struct DeskError {
    path: PathBuf,
    source: io::Error,
}

/// A desk that is open; its socket is removed with it.
#[derive(Debug)]
pub struct Desk {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Desk {
    fn drop(&mut self) {
        // A socket that stays behind is nobody's: the next desk takes its place.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Desk {
    /// Opens the desk of a data folder. To be called by the one process that serves from it, so that a socket found there
    /// is a dead one's.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn open(data: &Path) -> Result<Self, DeskError> {
        let path = data.join(SOCKET_FILE);
        let failed = |source| DeskError { path: path.clone(), source };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        // Bound under another name and only then put in its place: nobody else can open it in between.
        let hidden = tempfile::Builder::new().prefix(".").rand_bytes(4).tempdir_in(data).map_err(failed)?;
        let bound = hidden.path().join("s");
        let listener = UnixListener::bind(&bound).map_err(failed)?;
        std::fs::set_permissions(&bound, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        std::fs::rename(&bound, &path).map_err(failed)?;
        Ok(Self { listener, path })
    }

    /// Answers until `shutdown`. What is being answered then is cut off: whoever asked asks the wallet again.
    pub async fn serve(self, wallet: Arc<dyn Wallet>, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut answering = JoinSet::new();
        loop {
            let place = tokio::select! {
                () = shutdown.cancelled() => break,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let wallet = Arc::clone(&wallet);
                    answering.spawn(async move {
                        if let Err(problem) = answer_one(stream, wallet.as_ref()).await {
                            debug!(%problem, "A question at the wallet's desk was not answered");
                        }
                        drop(place);
                    });
                }
                Err(problem) => {
                    warn!(%problem, "The wallet's desk can't take a question");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            while answering.try_join_next().is_some() {}
        }
        answering.shutdown().await;
    }
}

async fn answer_one(mut stream: UnixStream, wallet: &dyn Wallet) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(MOST_BYTES));
    tokio::time::timeout(QUESTION_PATIENCE, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<Ask>(&line) {
        Ok(ask) => answer(ask, wallet).await,
        Err(_) => Err(WalletError::Refused("the question can't be read: is it another version's?".into())),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    write.shutdown().await
}

async fn answer(ask: Ask, wallet: &dyn Wallet) -> Result<Value, WalletError> {
    let payer = || -> Result<&dyn Payer, WalletError> { wallet.payer().ok_or_else(|| cannot("pay")) };
    let history = || -> Result<&dyn History, WalletError> { wallet.history().ok_or_else(|| cannot("tell what was")) };
    let node = || -> Result<&dyn Node, WalletError> { wallet.node().ok_or_else(|| cannot("open channels")) };
    match ask {
        Ask::Hello => {
            let introduction = Introduction {
                name: wallet.name().to_owned(),
                can: wallet.capabilities(),
                remembers: wallet.history().is_some(),
                is_node: wallet.node().is_some(),
            };
            json(introduction)
        }
        Ask::CreateInvoice(request) => json(wallet.create_invoice(&request).await?),
        Ask::LookUp(hash) => json(wallet.look_up(&hash).await?),
        Ask::Balance => json(wallet.balance().await?),
        Ask::Pay { bolt11, max_fee } => json(proof(payer()?.pay(&bolt11, max_fee).await?)),
        Ask::Payment(hash) => json(payer()?.payment(&hash).await?.map(proof)),
        Ask::Received { since } => json(history()?.received(since).await?),
        Ask::Sent { since } => json(history()?.sent(since).await?),
        Ask::Status => json(node()?.status().await?),
        Ask::Sync => json(node()?.sync().await?),
        Ask::NewAddress => json(node()?.new_address().await?),
        Ask::Channels => json(node()?.channels().await?),
        Ask::OpenChannel { to, size, announce } => json(node()?.open_channel(&to, size, announce).await?),
        Ask::CloseChannel { id, force } => json(node()?.close_channel(&id, force).await?),
        Ask::Peers => json(node()?.peers().await?),
        Ask::Connect { to } => json(node()?.connect(&to).await?),
        Ask::Disconnect { node: other } => json(node()?.disconnect(&other).await?),
        Ask::SendOnChain { address, amount } => json(node()?.send_on_chain(&address, amount).await?),
    }
}

fn proof(payment: Payment) -> Proof {
    Proof { preimage: hex::encode(payment.preimage), fees: payment.fees }
}

fn cannot(what: &str) -> WalletError {
    WalletError::Refused(format!("this wallet does not {what}"))
}

fn json(value: impl Serialize) -> Result<Value, WalletError> {
    serde_json::to_value(value).map_err(|error| WalletError::Internal(error.to_string()))
}
