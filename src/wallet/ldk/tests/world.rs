//! Two embedded nodes with a channel, on a chain in this process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::{Amount, Network};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::super::*;
use crate::testing::regtest::{ChannelPlan, Regtest, RegtestNode, free_address};
use crate::testing::wallet_contract::WalletUnderTest;

/// How long something may take that should happen at once. Far more than it needs on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What each node has on the chain at first: a channel and the reserve for closing it.
const PURSE: Amount = Amount::from_sat(2_000_000);

/// The payer opens it; a part is ours, so that we can pay as well.
const CHANNEL: ChannelPlan = ChannelPlan { size: Amount::from_sat(1_000_000), gift: Amount::from_sat(200_000) };

/// The seeds of the two.
const OURS: [u8; 64] = [1; 64];
const THEIRS: [u8; 64] = [2; 64];

/// Settings of a node on the simulated chain: it looks at the chain when told to.
pub(super) fn config(regtest: &Regtest, folder: &TempDir) -> LdkConfig {
    LdkConfig {
        network: Network::Regtest,
        chain: LdkChain::Esplora(regtest.url().parse().unwrap()),
        folder: folder.path().join("node"),
        listen: vec![free_address().unwrap().to_string()],
        alias: None,
        lsp: None,
        background_sync: None,
        times: LdkTimes { deadline_check: Duration::from_millis(200), ..LdkTimes::default() },
    }
}

pub(super) struct World {
    pub(super) regtest: Regtest,
    ours: Mutex<Arc<LdkWallet>>,
    pub(super) other: Arc<LdkWallet>,
    config: LdkConfig,
    _folders: [TempDir; 2],
}

pub(super) async fn open() -> World {
    let regtest = Regtest::start().await.unwrap();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let config = config(&regtest, &folders[0]);
    let ours = LdkWallet::open(config.clone(), &OURS).await.unwrap();
    let other = LdkWallet::open(self::config(&regtest, &folders[1]), &THEIRS).await.unwrap();
    regtest.fund(&ours, PURSE).await;
    regtest.fund(&other, PURSE).await;
    regtest.open_channel(&other, &ours, CHANNEL).await;
    World { regtest, ours: Mutex::new(Arc::new(ours)), other: Arc::new(other), config, _folders: folders }
}

impl Drop for World {
    /// Payments that still wait for their end keep the nodes alive; the runtime must not end before they are stopped.
    fn drop(&mut self) {
        for wallet in [&self.ours(), &self.other] {
            wallet.closing.cancel();
            wallet.shared.stop();
        }
    }
}

impl World {
    pub(super) fn ours(&self) -> Arc<LdkWallet> {
        Arc::clone(&self.ours.lock().unwrap())
    }

    /// The other side connects when it is not, and both can pay.
    pub(super) async fn connected(&self) {
        let ours = self.ours();
        let address = RegtestNode::address(&*ours);
        let connecting = async {
            loop {
                if self.other.usable_channels(&ours.node_id()).await == 0 {
                    let _ = self.other.connect(&address).await;
                } else if ours.usable_channels(&self.other.node_id()).await > 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connecting).await.expect("the nodes should be connected by now");
    }

    /// Mines blocks and has both read them, with time in between to talk about them.
    pub(super) async fn mine(&self, blocks: u32) {
        self.regtest.mine(blocks, &[&*self.ours(), &*self.other]).await;
    }

    pub(super) fn entry(&self, hash: &PaymentHash) -> book::Entry {
        self.ours().shared.book.entry(hash).unwrap().unwrap()
    }

    /// Waits until our invoice is paid or held.
    async fn until_here(&self, hash: &PaymentHash) {
        let ours = self.ours();
        let mut news = ours.updates().await.unwrap();
        let here = async {
            loop {
                if let InvoiceState::Held { .. } | InvoiceState::Settled { .. } = ours.look_up(hash).await.unwrap() {
                    return;
                }
                news.next().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, here).await.expect("the payment should be here by now");
    }

    /// The other side pays, and goes on waiting for the end when this returns.
    pub(super) async fn begin_to_pay(
        &self,
        invoice: &Invoice,
    ) -> tokio::task::JoinHandle<Result<Payment, WalletError>> {
        self.connected().await;
        let (other, bolt11) = (Arc::clone(&self.other), invoice.bolt11.clone());
        let paying = tokio::spawn(async move { other.pay(&bolt11, Msat::sat(1)).await });
        self.until_here(&invoice.payment_hash).await;
        paying
    }
}

#[async_trait]
impl WalletUnderTest for World {
    fn wallet(&self) -> Arc<dyn Wallet> {
        self.ours()
    }

    fn network(&self) -> Network {
        Network::Regtest
    }

    async fn pay(&self, invoice: &Invoice) {
        drop(self.begin_to_pay(invoice).await);
    }

    async fn pay_amount(&self, invoice: &Invoice, amount: Msat) -> bool {
        self.connected().await;
        let parsed: Bolt11Invoice = invoice.bolt11.parse().unwrap();
        let send = move |shared: &Shared| {
            shared.node.bolt11_payment().send_using_amount(&parsed, amount.as_msat(), None).map_err(translated)
        };
        self.other.run(send).await.unwrap();
        self.until_here(&invoice.payment_hash).await;
        true
    }

    /// The wallet thinks so; LDK takes payments for two more hours in any case.
    async fn expire(&self, invoice: &Invoice) -> bool {
        let past = Timestamp::now() - SignedDuration::from_secs(1);
        self.ours().shared.book.expire(&invoice.payment_hash, past);
        true
    }

    async fn pay_late(&self, invoice: &Invoice) -> bool {
        self.pay(invoice).await;
        true
    }

    async fn repeat_news(&self, invoice: &Invoice) -> bool {
        self.ours().shared.tell(&invoice.payment_hash).unwrap();
        true
    }

    async fn lie_about_amount(&self, _amount: Option<Msat>) -> bool {
        false
    }

    /// The peers lose each other, and listeners their stream.
    async fn interrupt(&self) {
        let ours = self.ours();
        ours.disconnect(&self.other.node_id()).await.unwrap();
        std::mem::replace(&mut *ours.shared.streams.lock().unwrap(), CancellationToken::new()).cancel();
    }

    async fn restart(&self) -> bool {
        self.ours().shut_down().await;
        let opened = LdkWallet::open(self.config.clone(), &OURS).await.unwrap();
        *self.ours.lock().unwrap() = Arc::new(opened);
        self.connected().await;
        true
    }

    async fn pass_deadline(&self, invoice: &Invoice) -> bool {
        let blocks = self.entry(&invoice.payment_hash).deadline - self.regtest.chain().height();
        self.mine(blocks - 3).await;
        self.mine(6).await;
        true
    }

    async fn foreign_invoice(&self, amount: Msat) -> Invoice {
        // Past the checks of our own side: the invoice is a stranger's.
        let request = InvoiceRequest { amount, description: "a bill".into(), expiry: Duration::from_secs(600) };
        let description = Bolt11InvoiceDescription::Direct(Description::new(request.description.clone()).unwrap());
        let make = move |shared: &Shared| {
            shared.node.bolt11_payment().receive(amount.as_msat(), &description, 600).map_err(translated)
        };
        let bolt11 = self.other.run(make).await.unwrap().to_string();
        bolt11::check_ours(&request, None, &bolt11, Network::Regtest, Timestamp::now()).unwrap()
    }

    async fn too_much(&self) -> Msat {
        Msat::sat(1_500_000)
    }
}
