//! How long each kind of wallet takes to make an invoice. Those behind HTTP and NWC answer from memory on loopback, so theirs
//! is what coinop and the wire cost, not what somebody's node takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use coinop::money::Msat;
use coinop::testing::nwc_service::{NwcService, NwcServiceOptions};
use coinop::testing::relay::TestRelay;
use coinop::testing::wallet_servers::{cln, lnbits, lnd, phoenixd};
use coinop::wallet::cln::ClnWallet;
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions, NETWORK};
use coinop::wallet::http::{Endpoint, HttpOptions};
use coinop::wallet::ldk::LdkWallet;
use coinop::wallet::lnbits::LnbitsWallet;
use coinop::wallet::lnd::LndWallet;
use coinop::wallet::nwc::{NwcOptions, NwcWallet};
use coinop::wallet::phoenixd::PhoenixdWallet;
use coinop::wallet::{InvoiceRequest, Wallet};
use secrecy::SecretString;

use crate::row;

pub(crate) async fn measure(node: Arc<LdkWallet>, invoices: usize) -> Result<()> {
    println!("| | invoices | p50 | p95 | rate |\n|---|---|---|---|---|");
    stretch("embedded node (ldk)", node.as_ref(), invoices).await?;
    let fake = || FakeWallet::open(&FakeNetwork::in_memory(), &[1; 32], FakeWalletOptions::default());
    stretch("play money", &fake()?, invoices).await?;

    let relay = TestRelay::start().await?;
    let service = NwcService::start(&[relay.url()], fake()?, NwcServiceOptions::default()).await?;
    let nwc = NwcWallet::connect(&service.uri().parse()?, NwcOptions::default()).await?;
    stretch("NWC", &nwc, invoices).await?;

    let options = HttpOptions::default;
    let secret = |text: &str| SecretString::from(text.to_owned());
    let server = lnd::start(fake()?).await?;
    let endpoint = Endpoint::new(&server.url(), None)?;
    let wallet = LndWallet::connect(endpoint, &secret(lnd::MACAROON), NETWORK, options()).await?;
    stretch("LND", &wallet, invoices).await?;

    let server = cln::start(fake()?, true).await?;
    let endpoint = Endpoint::new(&server.url(), None)?;
    let wallet = ClnWallet::connect(endpoint, &secret(cln::RUNE), NETWORK, options()).await?;
    stretch("Core Lightning", &wallet, invoices).await?;

    let server = phoenixd::start(fake()?).await?;
    let endpoint = Endpoint::new(&server.url(), None)?;
    let wallet = PhoenixdWallet::connect(endpoint, &secret(phoenixd::PASSWORD), NETWORK, options()).await?;
    stretch("phoenixd", &wallet, invoices).await?;

    let server = lnbits::start(fake()?).await?;
    let endpoint = Endpoint::new(&server.url(), None)?;
    let wallet = LnbitsWallet::connect(endpoint, &secret(lnbits::KEY), NETWORK, options()).await?;
    stretch("LNbits", &wallet, invoices).await
}

async fn stretch(name: &str, wallet: &dyn Wallet, invoices: usize) -> Result<()> {
    let mut times = Vec::new();
    let began = Instant::now();
    for number in 0..invoices {
        let request = InvoiceRequest {
            amount: Msat::sat(21),
            description: format!("bench {number}"),
            expiry: Duration::from_secs(600),
        };
        let asked = Instant::now();
        wallet.create_invoice(&request).await?;
        times.push(asked.elapsed());
    }
    row(name, times, began.elapsed());
    Ok(())
}
