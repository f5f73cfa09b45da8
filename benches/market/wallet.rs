//! The provider's wallet: a fake one that lives with the customers' wallets, behind a socket, so that it outlives a
//! killed provider as a real wallet does. One line of JSON a message.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use coinop::money::Msat;
use coinop::wallet::fake::FakeWallet;
use coinop::wallet::{
    Balance, Capabilities, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, PaymentHash, Wallet, WalletError,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, oneshot};

/// News kept for the reader before it has to look up.
const NEWS_KEPT: usize = 16_384;

#[derive(Serialize, Deserialize)]
enum Call {
    Make { amount: Msat, description: String, expiry: Duration },
    LookUp { hash: PaymentHash },
}

#[derive(Serialize, Deserialize)]
enum Word {
    Answer { number: u64, answer: Answer },
    News { payment_hash: PaymentHash, state: InvoiceState },
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Made(Invoice),
    State(InvoiceState),
    Refused(String),
}

/// Serves `wallet` on a loopback port until the runtime ends.
pub(crate) async fn offer(wallet: FakeWallet) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(attend(wallet.clone(), stream));
        }
    });
    Ok(address)
}

/// One client, until it goes.
async fn attend(wallet: FakeWallet, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut calls = BufReader::new(read).lines();
    let mut news = wallet.updates().await?;
    loop {
        let word = tokio::select! {
            line = calls.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                let (number, call) = serde_json::from_str(&line)?;
                let answer = match call {
                    Call::Make { amount, description, expiry } => {
                        wallet.create_invoice(&InvoiceRequest { amount, description, expiry }).await.map(Answer::Made)
                    }
                    Call::LookUp { hash } => wallet.look_up(&hash).await.map(Answer::State),
                };
                Word::Answer { number, answer: answer.unwrap_or_else(|problem| Answer::Refused(problem.to_string())) }
            }
            update = news.next() => {
                // A reader that was too slow is cut off, and looks up when it comes back.
                let Some(InvoiceUpdate { payment_hash, state }) = update else { return Ok(()) };
                Word::News { payment_hash, state }
            }
        };
        send(&mut write, &word).await?;
    }
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    Ok(())
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// The provider's end.
pub(crate) struct RemoteWallet {
    calls: mpsc::UnboundedSender<(u64, Call)>,
    waiting: Waiting,
    news: broadcast::Sender<InvoiceUpdate>,
    next: AtomicU64,
}

impl RemoteWallet {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.into_split();
        let (calls, mut queue) = mpsc::unbounded_channel::<(u64, Call)>();
        let waiting = Waiting::default();
        let news = broadcast::Sender::new(NEWS_KEPT);
        tokio::spawn(async move {
            while let Some(call) = queue.recv().await {
                if send(&mut write, &call).await.is_err() {
                    break;
                }
            }
        });
        let (answers, updates) = (waiting.clone(), news.clone());
        tokio::spawn(async move {
            let mut words = BufReader::new(read).lines();
            while let Ok(Some(line)) = words.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(Word::Answer { number, answer }) => {
                        let asked = answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                        let _ = asked.map(|asked| asked.send(answer));
                    }
                    Ok(Word::News { payment_hash, state }) => {
                        let _ = updates.send(InvoiceUpdate { payment_hash, state });
                    }
                    Err(_) => break,
                }
            }
        });
        Ok(Self { calls, waiting, news, next: AtomicU64::new(0) })
    }

    async fn call(&self, call: Call) -> Result<Answer, WalletError> {
        let gone = || WalletError::Unreachable("the bench's wallet is gone".into());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, tell);
        self.calls.send((number, call)).map_err(|_| gone())?;
        told.await.map_err(|_| gone())
    }
}

#[async_trait]
impl Wallet for RemoteWallet {
    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        Ok(None)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { hold_invoices: false, pay: false, whole_sats: false }
    }

    fn name(&self) -> &str {
        "bench"
    }

    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        let InvoiceRequest { amount, description, expiry } = request.clone();
        match self.call(Call::Make { amount, description, expiry }).await? {
            Answer::Made(invoice) => Ok(invoice),
            Answer::Refused(why) => Err(WalletError::Refused(why)),
            Answer::State(_) => Err(WalletError::Internal("another answer than asked for".into())),
        }
    }

    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        match self.call(Call::LookUp { hash: *payment_hash }).await? {
            Answer::State(state) => Ok(state),
            Answer::Refused(_) => Err(WalletError::NotFound),
            Answer::Made(_) => Err(WalletError::Internal("another answer than asked for".into())),
        }
    }

    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        let told = futures::stream::unfold(self.news.subscribe(), |mut news| async move {
            news.recv().await.ok().map(|update| (update, news))
        });
        Ok(told.boxed())
    }
}
