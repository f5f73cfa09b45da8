//! Before the desk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Txid;
use bitcoin::secp256k1::PublicKey;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::{Ask, Introduction, MOST_BYTES, Proof, SOCKET_FILE};
use crate::money::Msat;
use crate::wallet::node::{Channel, NodeAddress, NodeStatus, Peer};
use crate::wallet::{
    Balance, Capabilities, History, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, Node, Payer, Payment,
    PaymentHash, Received, Sent, Wallet, WalletError,
};

/// How long an answer may take, other than that to a payment.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);

/// How long a payment may take: the provider may hold it for as long as its job runs.
const PAYMENT_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// The wallet of the `coinop serve` that runs on the same data folder.
#[derive(Debug)]
pub struct DeskWallet {
    socket: PathBuf,
    name: String,
    can: Capabilities,
    remembers: bool,
    is_node: bool,
}

impl DeskWallet {
    /// Goes to the desk of a data folder.
    ///
    /// # Errors
    /// [`WalletError::Unreachable`] when nobody is there.
    pub async fn connect(data: &Path) -> Result<Self, WalletError> {
        let socket = data.join(SOCKET_FILE);
        let Introduction { name, can, remembers, is_node } = ask(&socket, &Ask::Hello, ANSWER_PATIENCE).await?;
        Ok(Self { socket, name, can: Capabilities { hold_invoices: false, ..can }, remembers, is_node })
    }

    async fn ask<T: DeserializeOwned>(&self, question: Ask) -> Result<T, WalletError> {
        ask(&self.socket, &question, ANSWER_PATIENCE).await
    }
}

async fn ask<T: DeserializeOwned>(socket: &Path, question: &Ask, patience: Duration) -> Result<T, WalletError> {
    let unreachable = |what: &str| WalletError::Unreachable(format!("the running 'coinop serve' {what}"));
    let talk = async {
        let mut stream = UnixStream::connect(socket).await?;
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = match tokio::time::timeout(patience, talk).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(unreachable(&format!("can't be asked ({error})"))),
        Err(_) => return Err(unreachable("did not answer in time")),
    };
    if u64::try_from(answer.len()).is_ok_and(|length| length >= MOST_BYTES) {
        return Err(WalletError::Refused("the answer is too long; ask for a shorter time".into()));
    }
    if answer.is_empty() {
        return Err(unreachable("ended before it answered"));
    }
    let unreadable = |_| WalletError::BadAnswer("the running 'coinop serve' is another version".into());
    let answer: Result<Value, WalletError> = serde_json::from_slice(&answer).map_err(unreadable)?;
    serde_json::from_value(answer?).map_err(unreadable)
}

fn payment(proof: Proof) -> Result<Payment, WalletError> {
    let mut preimage = [0; 32];
    hex::decode_to_slice(&proof.preimage, &mut preimage)
        .map_err(|_| WalletError::BadAnswer("its proof of payment is no preimage".into()))?;
    Ok(Payment { preimage, fees: proof.fees })
}

#[async_trait]
impl Wallet for DeskWallet {
    fn capabilities(&self) -> Capabilities {
        self.can
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        self.ask(Ask::CreateInvoice(request.clone())).await
    }

    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        self.ask(Ask::LookUp(*payment_hash)).await
    }

    /// News goes to the seller; whoever stands at the desk looks up.
    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        Ok(stream::pending().boxed())
    }

    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        self.ask(Ask::Balance).await
    }

    fn history(&self) -> Option<&dyn History> {
        self.remembers.then_some(self)
    }

    fn node(&self) -> Option<&dyn Node> {
        self.is_node.then_some(self)
    }

    fn payer(&self) -> Option<&dyn Payer> {
        self.can.pay.then_some(self)
    }
}

#[async_trait]
impl Payer for DeskWallet {
    async fn pay(&self, bolt11: &str, max_fee: Msat) -> Result<Payment, WalletError> {
        let question = Ask::Pay { bolt11: bolt11.to_owned(), max_fee };
        payment(ask(&self.socket, &question, PAYMENT_PATIENCE).await?)
    }

    async fn payment(&self, payment_hash: &PaymentHash) -> Result<Option<Payment>, WalletError> {
        self.ask::<Option<Proof>>(Ask::Payment(*payment_hash)).await?.map(payment).transpose()
    }
}

#[async_trait]
impl History for DeskWallet {
    async fn received(&self, since: Timestamp) -> Result<Vec<Received>, WalletError> {
        self.ask(Ask::Received { since }).await
    }

    async fn sent(&self, since: Timestamp) -> Result<Vec<Sent>, WalletError> {
        self.ask(Ask::Sent { since }).await
    }
}

#[async_trait]
impl Node for DeskWallet {
    async fn status(&self) -> Result<NodeStatus, WalletError> {
        self.ask(Ask::Status).await
    }

    async fn sync(&self) -> Result<(), WalletError> {
        self.ask(Ask::Sync).await
    }

    async fn new_address(&self) -> Result<String, WalletError> {
        self.ask(Ask::NewAddress).await
    }

    async fn channels(&self) -> Result<Vec<Channel>, WalletError> {
        self.ask(Ask::Channels).await
    }

    async fn open_channel(&self, to: &NodeAddress, size: Msat, announce: bool) -> Result<String, WalletError> {
        self.ask(Ask::OpenChannel { to: to.clone(), size, announce }).await
    }

    async fn close_channel(&self, id: &str, force: bool) -> Result<(), WalletError> {
        self.ask(Ask::CloseChannel { id: id.to_owned(), force }).await
    }

    async fn peers(&self) -> Result<Vec<Peer>, WalletError> {
        self.ask(Ask::Peers).await
    }

    async fn connect(&self, to: &NodeAddress) -> Result<(), WalletError> {
        self.ask(Ask::Connect { to: to.clone() }).await
    }

    async fn disconnect(&self, node: &PublicKey) -> Result<(), WalletError> {
        self.ask(Ask::Disconnect { node: *node }).await
    }

    async fn send_on_chain(&self, address: &str, amount: Option<Msat>) -> Result<Txid, WalletError> {
        self.ask(Ask::SendOnChain { address: address.to_owned(), amount }).await
    }
}
