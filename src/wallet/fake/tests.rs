use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use jiff::Timestamp;

use super::*;
use crate::testing::wallet_contract::WalletUnderTest;

const PRICE: Msat = Msat::sat(21);
const HOLD: Duration = Duration::from_secs(60);

/// The world of a fake wallet: its network and somebody else on it.
struct FakeWorld {
    wallet: FakeWallet,
    other: FakeWallet,
    _folder: Option<tempfile::TempDir>,
}

impl FakeWorld {
    fn on(network: &FakeNetwork, folder: Option<tempfile::TempDir>) -> Self {
        let options = FakeWalletOptions { opening_balance: Msat::sat(1_000), ..FakeWalletOptions::default() };
        let wallet = FakeWallet::open(network, &[1; 32], options).unwrap();
        let other = FakeWallet::open(network, &[2; 32], options).unwrap();
        Self { wallet, other, _folder: folder }
    }
}

#[async_trait]
impl WalletUnderTest for FakeWorld {
    fn wallet(&self) -> Arc<dyn Wallet> {
        Arc::new(self.wallet.clone())
    }

    fn network(&self) -> Network {
        NETWORK
    }

    async fn pay(&self, invoice: &Invoice) {
        self.wallet.settle(&invoice.payment_hash).unwrap();
    }

    async fn pay_amount(&self, invoice: &Invoice, amount: Msat) -> bool {
        self.wallet.settle_amount(&invoice.payment_hash, amount).is_ok()
    }

    async fn expire(&self, invoice: &Invoice) -> bool {
        self.wallet.expire(&invoice.payment_hash).is_ok()
    }

    async fn pass_deadline(&self, invoice: &Invoice) -> bool {
        self.wallet.expire(&invoice.payment_hash).is_ok()
    }

    async fn pay_late(&self, invoice: &Invoice) -> bool {
        self.wallet.settle(&invoice.payment_hash).is_ok()
    }

    async fn repeat_news(&self, invoice: &Invoice) -> bool {
        self.wallet.repeat_news(&invoice.payment_hash).is_ok()
    }

    async fn lie_about_amount(&self, amount: Option<Msat>) -> bool {
        self.wallet.faults().lie_about_amount(amount);
        true
    }

    async fn interrupt(&self) {
        self.wallet.faults().break_streams();
    }

    async fn foreign_invoice(&self, amount: Msat) -> Invoice {
        self.other.create_invoice(&request(amount)).await.unwrap()
    }

    async fn too_much(&self) -> Msat {
        self.wallet.funds().unwrap().saturating_add(Msat::msat(1))
    }
}

mod in_memory {
    use super::*;

    async fn open() -> FakeWorld {
        FakeWorld::on(&FakeNetwork::in_memory(), None)
    }

    crate::wallet_contract!(open);
}

mod on_disk {
    use super::*;

    async fn open() -> FakeWorld {
        let folder = tempfile::tempdir().unwrap();
        let network = FakeNetwork::open(&folder.path().join("network.jsonl")).unwrap();
        FakeWorld::on(&network, Some(folder))
    }

    crate::wallet_contract!(open);
}

fn request(amount: Msat) -> InvoiceRequest {
    InvoiceRequest { amount, description: "a job".into(), expiry: Duration::from_secs(60) }
}

/// Two wallets of one network, the second one rich.
fn pair(network: &FakeNetwork, hold_fee: Msat) -> (FakeWallet, FakeWallet) {
    let rich = FakeWalletOptions { opening_balance: Msat::sat(100), routing_fee: hold_fee, ..Default::default() };
    let seller = FakeWallet::open(network, &[1; 32], FakeWalletOptions::default()).unwrap();
    (seller, FakeWallet::open(network, &[2; 32], rich).unwrap())
}

#[tokio::test]
async fn money_moves_from_payer_to_payee() {
    let (seller, buyer) = pair(&FakeNetwork::in_memory(), Msat::sat(1));
    let invoice = seller.create_invoice(&request(PRICE)).await.unwrap();
    let payment = buyer.pay(&invoice.bolt11, Msat::sat(1)).await.unwrap();
    assert_eq!(payment.fees, Some(Msat::sat(1)));
    assert_eq!(seller.funds(), Ok(PRICE));
    assert_eq!(buyer.funds(), Ok(Msat::sat(78)));
    let again = buyer.pay(&invoice.bolt11, Msat::sat(1)).await.unwrap();
    assert_eq!(again.preimage, payment.preimage);
    assert_eq!(buyer.funds(), Ok(Msat::sat(78)), "paying twice costs once");
}

#[tokio::test]
async fn a_fee_above_the_limit_is_not_paid() {
    let (seller, buyer) = pair(&FakeNetwork::in_memory(), Msat::sat(2));
    let invoice = seller.create_invoice(&request(PRICE)).await.unwrap();
    let paid = buyer.pay(&invoice.bolt11, Msat::sat(1)).await;
    assert!(matches!(paid, Err(WalletError::PaymentFailed(_))), "{paid:?}");
    assert_eq!(buyer.funds(), Ok(Msat::sat(100)));
}

#[tokio::test]
async fn a_held_payment_waits_for_the_payee() {
    let (seller, buyer) = pair(&FakeNetwork::in_memory(), Msat::ZERO);
    let mut news = seller.updates().await.unwrap();
    let preimage = [5; 32];
    let hash = bolt11::hash_of(&preimage);
    let invoice = seller.create_hold_invoice(&request(PRICE), &hash, HOLD).await.unwrap();
    let take = async {
        assert_eq!(news.next().await.unwrap().state, InvoiceState::Held { amount: PRICE });
        assert_eq!(buyer.payment(&hash).await, Ok(None), "it is under way");
        assert_eq!((seller.funds(), buyer.funds()), (Ok(Msat::ZERO), Ok(Msat::sat(79))));
        HoldInvoices::settle(&seller, &preimage).await.unwrap();
    };
    let (paid, ()) = tokio::join!(buyer.pay(&invoice.bolt11, Msat::ZERO), take);
    assert_eq!(paid.unwrap().preimage, preimage);
    assert_eq!(seller.funds(), Ok(PRICE));
}

#[tokio::test]
async fn a_cancelled_hold_returns_the_money() {
    let (seller, buyer) = pair(&FakeNetwork::in_memory(), Msat::sat(3));
    let mut news = seller.updates().await.unwrap();
    let hash = bolt11::hash_of(&[6; 32]);
    let invoice = seller.create_hold_invoice(&request(PRICE), &hash, HOLD).await.unwrap();
    let give_back = async {
        news.next().await.unwrap();
        seller.cancel(&hash).await.unwrap();
    };
    let (paid, ()) = tokio::join!(buyer.pay(&invoice.bolt11, Msat::sat(3)), give_back);
    assert!(matches!(paid, Err(WalletError::PaymentFailed(_))));
    assert_eq!((seller.funds(), buyer.funds()), (Ok(Msat::ZERO), Ok(Msat::sat(100))));
    assert!(matches!(buyer.payment(&hash).await, Err(WalletError::PaymentFailed(_))));
}

#[tokio::test]
async fn everything_survives_the_death_of_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("network.jsonl");
    let (paid, open) = {
        let (seller, buyer) = pair(&FakeNetwork::open(&file).unwrap(), Msat::ZERO);
        let paid = seller.create_invoice(&request(PRICE)).await.unwrap();
        buyer.pay(&paid.bolt11, Msat::ZERO).await.unwrap();
        (paid, seller.create_invoice(&request(PRICE)).await.unwrap())
    };
    // The death came in the middle of a line.
    std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .and_then(|mut end| std::io::Write::write_all(&mut end, b"{\"accounts\":[{\"id\":"))
        .unwrap();
    let (seller, buyer) = pair(&FakeNetwork::open(&file).unwrap(), Msat::ZERO);
    assert_eq!((seller.funds(), buyer.funds()), (Ok(PRICE), Ok(Msat::sat(79))));
    assert!(matches!(seller.look_up(&paid.payment_hash).await, Ok(InvoiceState::Settled { .. })));
    assert_eq!(seller.look_up(&open.payment_hash).await, Ok(InvoiceState::Open));
    let next = seller.create_invoice(&request(PRICE)).await.unwrap();
    assert!(next.payment_hash != paid.payment_hash && next.payment_hash != open.payment_hash);
    assert_eq!(
        pair(&FakeNetwork::open(&file).unwrap(), Msat::ZERO).0.look_up(&next.payment_hash).await,
        Ok(InvoiceState::Open)
    );
}

#[tokio::test]
async fn another_process_may_pay() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("network.jsonl");
    let (seller, _) = pair(&FakeNetwork::open(&file).unwrap(), Msat::ZERO);
    let mut news = seller.updates().await.unwrap();
    let (_, buyer) = pair(&FakeNetwork::open(&file).unwrap(), Msat::ZERO);
    let invoice = seller.create_invoice(&request(PRICE)).await.unwrap();
    buyer.pay(&invoice.bolt11, Msat::ZERO).await.unwrap();
    assert!(matches!(seller.look_up(&invoice.payment_hash).await, Ok(InvoiceState::Settled { .. })));
    assert_eq!(news.next().await.unwrap().payment_hash, invoice.payment_hash);
}

#[tokio::test]
async fn invoices_expire_by_the_given_clock() {
    let now = Arc::new(Mutex::new("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap()));
    let clock = Arc::clone(&now);
    let network = FakeNetwork::in_memory().with_clock(Arc::new(move || *clock.lock().unwrap()));
    let (seller, buyer) = pair(&network, Msat::ZERO);
    let invoice = seller.create_invoice(&request(PRICE)).await.unwrap();
    assert_eq!(invoice.expires_at, *now.lock().unwrap() + Duration::from_secs(60));
    *now.lock().unwrap() += Duration::from_secs(59);
    assert_eq!(seller.look_up(&invoice.payment_hash).await, Ok(InvoiceState::Open));
    *now.lock().unwrap() += Duration::from_secs(1);
    assert_eq!(seller.look_up(&invoice.payment_hash).await, Ok(InvoiceState::Expired));
    assert!(buyer.pay(&invoice.bolt11, Msat::ZERO).await.is_err());
}

#[tokio::test]
async fn the_same_key_makes_the_same_preimages() {
    let hashes = |key: u8| async move {
        let wallet = FakeWallet::open(&FakeNetwork::in_memory(), &[key; 32], FakeWalletOptions::default()).unwrap();
        [
            wallet.create_invoice(&request(PRICE)).await.unwrap().payment_hash,
            wallet.create_invoice(&request(PRICE)).await.unwrap().payment_hash,
        ]
    };
    assert_eq!(hashes(1).await, hashes(1).await);
    assert_ne!(hashes(1).await, hashes(2).await);
}

#[tokio::test]
async fn a_wallet_of_whole_satoshis_makes_no_others() {
    let options = FakeWalletOptions { whole_sats: true, ..FakeWalletOptions::default() };
    let wallet = FakeWallet::open(&FakeNetwork::in_memory(), &[1; 32], options).unwrap();
    assert!(matches!(wallet.create_invoice(&request(Msat::msat(1))).await, Err(WalletError::Refused(_))));
    assert!(wallet.create_invoice(&request(Msat::sat(1))).await.is_ok());
}

#[tokio::test]
async fn a_lost_answer_leaves_the_deed_done() {
    let (seller, buyer) = pair(&FakeNetwork::in_memory(), Msat::ZERO);
    let invoice = seller.create_invoice(&request(PRICE)).await.unwrap();
    buyer.faults().lose_next_answer();
    let paid = buyer.pay(&invoice.bolt11, Msat::ZERO).await;
    assert!(matches!(&paid, Err(error) if !error.is_definitive()));
    assert!(buyer.payment(&invoice.payment_hash).await.unwrap().is_some());
}

#[tokio::test]
async fn faults_end_when_they_are_switched_off() {
    let (seller, _) = pair(&FakeNetwork::in_memory(), Msat::ZERO);
    seller.faults().go_silent(true);
    assert!(matches!(seller.create_invoice(&request(PRICE)).await, Err(WalletError::Unreachable(_))));
    seller.faults().go_silent(false);
    seller.faults().fail_next(WalletError::RateLimited);
    assert_eq!(seller.create_invoice(&request(PRICE)).await, Err(WalletError::RateLimited));
    let mut news = seller.updates().await.unwrap();
    let [first, second, third] = [PRICE; 3].map(request);
    let first = seller.create_invoice(&first).await.unwrap().payment_hash;
    let second = seller.create_invoice(&second).await.unwrap().payment_hash;
    let third = seller.create_invoice(&third).await.unwrap().payment_hash;
    seller.faults().drop_updates(true);
    seller.settle(&first).unwrap();
    // The fault acts when news is delivered, so it has to be read while it lasts.
    assert!(futures::poll!(news.next()).is_pending());
    seller.faults().drop_updates(false);
    seller.faults().duplicate_updates(true);
    seller.settle(&second).unwrap();
    assert_eq!(news.next().await.unwrap().payment_hash, second);
    assert_eq!(news.next().await.unwrap().payment_hash, second);
    seller.faults().duplicate_updates(false);
    seller.settle(&third).unwrap();
    assert_eq!(news.next().await.unwrap().payment_hash, third);
}

#[test]
fn debug_shows_no_key() {
    static NEXT: AtomicU8 = AtomicU8::new(11);
    let key = [NEXT.fetch_add(1, Ordering::Relaxed); 32];
    let wallet = FakeWallet::open(&FakeNetwork::in_memory(), &key, FakeWalletOptions::default()).unwrap();
    assert!(!format!("{wallet:?}").contains(&hex::encode(key)));
}
