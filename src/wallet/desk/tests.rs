use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::testing::wallet_contract::WalletUnderTest;
use crate::wallet::fake::{self, FakeNetwork, FakeWallet, FakeWalletOptions};
use crate::wallet::{Invoice, Wallet, WalletError};

/// A desk with a fake wallet behind it.
struct DeskWorld {
    wallet: Arc<DeskWallet>,
    behind: FakeWallet,
    other: FakeWallet,
    folder: tempfile::TempDir,
    shutdown: CancellationToken,
    _desk: AbortOnDropHandle<()>,
}

impl DeskWorld {
    async fn open() -> Self {
        let network = FakeNetwork::in_memory();
        let options = FakeWalletOptions { opening_balance: Msat::sat(1_000), ..FakeWalletOptions::default() };
        let behind = FakeWallet::open(&network, &[1; 32], options).unwrap();
        let other = FakeWallet::open(&network, &[2; 32], options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let desk = Desk::open(folder.path()).unwrap();
        let desk = AbortOnDropHandle::new(tokio::spawn(desk.serve(Arc::new(behind.clone()), shutdown.clone())));
        let wallet = Arc::new(DeskWallet::connect(folder.path()).await.unwrap());
        Self { wallet, behind, other, folder, shutdown, _desk: desk }
    }
}

#[async_trait]
impl WalletUnderTest for DeskWorld {
    fn wallet(&self) -> Arc<dyn Wallet> {
        self.wallet.clone()
    }

    fn network(&self) -> Network {
        fake::NETWORK
    }

    async fn pay(&self, invoice: &Invoice) {
        self.behind.settle(&invoice.payment_hash).unwrap();
    }

    async fn pay_amount(&self, _: &Invoice, _: Msat) -> bool {
        false
    }

    async fn expire(&self, invoice: &Invoice) -> bool {
        self.behind.expire(&invoice.payment_hash).is_ok()
    }

    async fn pay_late(&self, _: &Invoice) -> bool {
        false
    }

    async fn repeat_news(&self, _: &Invoice) -> bool {
        false
    }

    async fn lie_about_amount(&self, amount: Option<Msat>) -> bool {
        self.behind.faults().lie_about_amount(amount);
        true
    }

    async fn interrupt(&self) {}

    async fn foreign_invoice(&self, amount: Msat) -> Invoice {
        let request = InvoiceRequest { amount, description: "x".into(), expiry: Duration::from_secs(60) };
        self.other.create_invoice(&request).await.unwrap()
    }

    async fn too_much(&self) -> Msat {
        Msat::sat(1_001)
    }
}

// A desk tells no news, so the rules about news are not for it.
crate::wallet_contract! { DeskWorld::open =>
    an_invoice_says_what_was_asked
    every_invoice_has_its_own_hash
    an_unpaid_invoice_expires
    an_invoice_over_another_amount_is_never_handed_on
    an_unknown_hash_is_not_found
    paying_gives_the_proof
    an_invoice_is_paid_once
    what_came_and_went_is_remembered
    what_it_cannot_afford_is_not_paid
}

#[tokio::test]
async fn only_its_user_can_open_the_socket() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = DeskWorld::open().await;
    let mode = std::fs::metadata(world.folder.path().join(SOCKET_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_desk_takes_the_place_of_a_dead_one_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(SOCKET_FILE), "").unwrap();
    drop(Desk::open(folder.path()).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn nobody_at_the_desk_is_unreachable_and_not_a_failed_payment() {
    let world = DeskWorld::open().await;
    world.shutdown.cancel();
    let folder = world.folder.path();
    while folder.join(SOCKET_FILE).exists() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(world.wallet.balance().await, Err(WalletError::Unreachable(_))));
    assert!(matches!(DeskWallet::connect(folder).await, Err(WalletError::Unreachable(_))));
}

#[tokio::test]
async fn a_question_nobody_understands_is_refused() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = DeskWorld::open().await;
    for question in [&b"nonsense\n"[..], b"\n", b"{\"pay\":{}}\n", b"\xff\xfe\n"] {
        let mut stream = tokio::net::UnixStream::connect(world.folder.path().join(SOCKET_FILE)).await.unwrap();
        stream.write_all(question).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.is_empty() || answer.contains("Refused"), "{answer}");
    }
}
