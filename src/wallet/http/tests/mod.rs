//! What the tests of every wallet behind HTTP share: the world around one, and TLS in front of its server.

mod bounds;
mod tls_front;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use futures::future::BoxFuture;
use secrecy::SecretString;

use super::{Endpoint, HttpOptions};
use crate::money::Msat;
use crate::testing::gate::Gate;
use crate::testing::wallet_contract::WalletUnderTest;
use crate::testing::wallet_servers::{WalletServer, url_of};
use crate::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions, NETWORK};
use crate::wallet::{Invoice, InvoiceRequest, Wallet, WalletError};

pub(crate) use tls_front::{NODE_PEM, OTHER_PEM, TlsFront};

pub(crate) const PRICE: Msat = Msat::sat(21);

/// Long enough for a busy machine, short enough that a request lost with a connection is asked for again soon.
pub(crate) const OPTIONS: HttpOptions = HttpOptions {
    request_timeout: Duration::from_secs(5),
    payment_timeout: Duration::from_secs(40),
    max_body: 1024 * 1024,
    poll: Duration::from_millis(20),
};

/// Connects the client, as often as it is restarted.
pub(crate) type Connect =
    Box<dyn Fn(Endpoint, HttpOptions) -> BoxFuture<'static, Result<Arc<dyn Wallet>, WalletError>> + Send + Sync>;

/// What a kind of wallet can be made to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    /// Whether its server is behind TLS with a certificate of its own.
    pub(crate) tls: bool,
    /// Whether it says what arrived rather than what was asked.
    pub(crate) tells_what_arrived: bool,
    /// Whether it tells the same news again.
    pub(crate) repeats_news: bool,
}

/// A wallet's server, the way to it, its client, and somebody else with a wallet.
pub(crate) struct HttpWorld {
    pub(crate) server: WalletServer,
    pub(crate) other: FakeWallet,
    pub(crate) endpoint: Endpoint,
    wallet: Mutex<Arc<dyn Wallet>>,
    connect: Connect,
    habits: Habits,
    gate: Gate,
    _tls: Option<TlsFront>,
}

/// Two wallets of one network: the one behind the server, and somebody else's.
pub(crate) fn wallets() -> (FakeWallet, FakeWallet) {
    let network = FakeNetwork::in_memory();
    let rich = FakeWalletOptions { opening_balance: Msat::sat(1_000), ..FakeWalletOptions::default() };
    (FakeWallet::open(&network, &[1; 32], rich).unwrap(), FakeWallet::open(&network, &[2; 32], rich).unwrap())
}

impl HttpWorld {
    pub(crate) async fn open(server: WalletServer, other: FakeWallet, habits: Habits, connect: Connect) -> Self {
        // Clients without a pinned certificate take the process's TLS provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (gate, tls, endpoint) = if habits.tls {
            let tls = TlsFront::open(server.address()).await.unwrap();
            let gate = Gate::open(tls.address()).await.unwrap();
            let url = url_of("https", gate.address());
            (gate, Some(tls), Endpoint::new(&url, Some(NODE_PEM)).unwrap())
        } else {
            let gate = Gate::open(server.address()).await.unwrap();
            let url = url_of("http", gate.address());
            (gate, None, Endpoint::new(&url, None).unwrap())
        };
        let wallet = Mutex::new(connect(endpoint.clone(), OPTIONS).await.unwrap());
        Self { server, other, endpoint, wallet, connect, habits, gate, _tls: tls }
    }

    /// Another client, with other limits.
    pub(crate) async fn client(&self, options: HttpOptions) -> Result<Arc<dyn Wallet>, WalletError> {
        (self.connect)(self.endpoint.clone(), options).await
    }
}

pub(crate) fn request(amount: Msat) -> InvoiceRequest {
    InvoiceRequest { amount, description: "a job".into(), expiry: Duration::from_secs(60) }
}

pub(crate) fn secret(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

#[async_trait]
impl WalletUnderTest for HttpWorld {
    fn wallet(&self) -> Arc<dyn Wallet> {
        Arc::clone(&self.wallet.lock().unwrap())
    }

    fn network(&self) -> Network {
        NETWORK
    }

    async fn pay(&self, invoice: &Invoice) {
        self.server.wallet().settle(&invoice.payment_hash).unwrap();
    }

    async fn pay_amount(&self, invoice: &Invoice, amount: Msat) -> bool {
        self.habits.tells_what_arrived && self.server.wallet().settle_amount(&invoice.payment_hash, amount).is_ok()
    }

    async fn expire(&self, invoice: &Invoice) -> bool {
        self.server.wallet().expire(&invoice.payment_hash).is_ok()
    }

    async fn pay_late(&self, invoice: &Invoice) -> bool {
        self.server.wallet().settle(&invoice.payment_hash).is_ok()
    }

    async fn repeat_news(&self, invoice: &Invoice) -> bool {
        self.habits.repeats_news && self.server.wallet().repeat_news(&invoice.payment_hash).is_ok()
    }

    async fn lie_about_amount(&self, amount: Option<Msat>) -> bool {
        // Wallets of whole satoshis can't even be asked for less.
        let whole = self.wallet().capabilities().whole_sats;
        let possible = amount.is_none_or(|amount| !whole || amount == amount.round_up_to_sat());
        if possible {
            self.server.faults().lie_about_amount(amount);
        }
        possible
    }

    async fn interrupt(&self) {
        self.server.somebody_listens().await;
        self.gate.cut();
    }

    async fn restart(&self) -> bool {
        let again = self.client(OPTIONS).await.unwrap();
        *self.wallet.lock().unwrap() = again;
        true
    }

    async fn pass_deadline(&self, invoice: &Invoice) -> bool {
        self.server.wallet().expire(&invoice.payment_hash).is_ok()
    }

    async fn foreign_invoice(&self, amount: Msat) -> Invoice {
        self.other.create_invoice(&request(amount)).await.unwrap()
    }

    async fn too_much(&self) -> Msat {
        self.server.wallet().funds().unwrap().saturating_add(Msat::sat(1))
    }
}
