//! From the customer's payment to the provider's work, and how many of those there are a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use coinop::job::{EffectKey, JobId, Terms};
use coinop::money::Msat;
use coinop::provider::{Moment, Witness};
use coinop::testing::market::TestMarket;
use coinop::wallet::{InvoiceRequest, InvoiceState, Wallet};
use futures::StreamExt as _;
use futures::stream;

use crate::{Nodes, row};

const PRICE: Msat = Msat::sat(21);
const MAX_FEE: Msat = Msat::sat(1);

/// Jobs under way at once in the busy stretch.
const MANY: usize = 10;

/// Remembers when each job began to run.
#[derive(Default)]
struct Starts(Mutex<HashMap<JobId, Instant>>);

#[async_trait]
impl Witness for Starts {
    async fn at(&self, moment: Moment, job: JobId) {
        if moment == Moment::Before(EffectKey::Run) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(job).or_insert_with(Instant::now);
        }
    }
}

pub(crate) async fn measure(nodes: &Nodes, payments: usize) -> Result<()> {
    println!("| | payments | p50 | p95 | rate |\n|---|---|---|---|---|");
    bare(nodes, payments).await?;
    for terms in [Terms::Prepay, Terms::Hold] {
        sold(nodes, payments, terms).await?;
    }
    Ok(())
}

/// The limit: the nodes without coinop, from the pay call to the receiver's news.
async fn bare(nodes: &Nodes, payments: usize) -> Result<()> {
    let mut news = nodes.till.updates().await?;
    let payer = nodes.purse.payer().context("a node pays")?;
    let mut times = Vec::new();
    let began = Instant::now();
    for _ in 0..payments {
        let request = InvoiceRequest { amount: PRICE, description: "bare".into(), expiry: Duration::from_secs(600) };
        let invoice = nodes.till.create_invoice(&request).await?;
        let asked = Instant::now();
        let seen = async {
            while let Some(update) = news.next().await {
                if update.payment_hash == invoice.payment_hash && matches!(update.state, InvoiceState::Settled { .. }) {
                    return Some(asked.elapsed());
                }
            }
            None
        };
        let (paid, seen) = tokio::join!(payer.pay(&invoice.bolt11, MAX_FEE), seen);
        paid?;
        times.push(seen.context("the news ended")?);
    }
    row("nodes alone: pay → received", times, began.elapsed());
    Ok(())
}

/// Whole jobs over relay and provider: from the pay call to the work's beginning, one at a time and many at once.
async fn sold(nodes: &Nodes, payments: usize, terms: Terms) -> Result<()> {
    let starts = Arc::new(Starts::default());
    let market = TestMarket::new()
        .price(PRICE)
        .terms(terms)
        .paid_into(nodes.till.clone())
        .settings(|settings| settings.jobs_running = MANY)
        .rules(|rules| rules.max_per_customer = usize::MAX)
        .witness(starts.clone())
        .start()
        .await;
    let customer = market.customer().await.pays_with(nodes.purse.clone());
    let one = async |number: usize| -> Result<Duration> {
        let mut posted = customer.post(&customer.order(&format!("job {number}"))).await;
        let invoice = posted.invoice().await;
        let asked = Instant::now();
        let paying = customer.begin_to_pay(&invoice);
        posted.result().await;
        paying.await.context("the payment broke off")??;
        let started = starts.0.lock().unwrap_or_else(PoisonError::into_inner).get(&posted.job).copied();
        Ok(started.context("a job was done without being begun")?.saturating_duration_since(asked))
    };
    let began = Instant::now();
    let mut times = Vec::new();
    for number in 0..payments {
        times.push(one(number).await?);
    }
    row(&format!("{terms}: pay → job started, one at a time"), times, began.elapsed());
    let began = Instant::now();
    let times: Vec<Result<Duration>> =
        stream::iter(payments..3 * payments).map(one).buffer_unordered(MANY).collect().await;
    let took = began.elapsed();
    let times = times.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(times.len() == 2 * payments, "a job was lost");
    row(&format!("{terms}: pay → job started, {MANY} at once"), times, took);
    market.finish().await;
    Ok(())
}
