//! Results that no event has room for go to a server of files, and come back whole; and what a failed job wrote comes with
//! its error.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coinop::blossom::{Blossom, BlossomConfig, BlossomError, fetch};
use coinop::executor::{Executor, Prepared};
use coinop::fetch::{FetchLimits, Fetcher};
use coinop::identity::Signer;
use coinop::inference::TextSink;
use coinop::job::{
    Code, Encryption, Estimate, Failure, FinishReason, JobId, JobKind, JobRequest, Outcome, Rates, Refusal, Terms,
    Usage, WorkState,
};
use coinop::money::Msat;
use coinop::nip90::{Codec, Order, ReadLimits};
use coinop::provider::{Moment, Offer};
use coinop::requester::purchase::Ending;
use coinop::requester::{BuyError, Choice, Fate, Limits, Plan};
use coinop::testing::blossom_server::{BlossomServer, Manners};
use coinop::testing::market::{Customer, MarketBuilder, TestMarket, within};
use coinop::wallet::fake::NETWORK;
use jiff::{SignedDuration, Timestamp};
use nostr::JsonUtil as _;
use nostr::hashes::{Hash, sha256};
use tokio_util::sync::CancellationToken;

const KIND: JobKind = JobKind::CodeReview;

/// Writes what no event has room for, or fails and says why at length.
struct Verbose {
    fails: bool,
}

fn novel() -> String {
    "It was a dark and stormy night.\n".repeat(10_000)
}

#[async_trait]
impl Executor for Verbose {
    async fn prepare(&self, _: &JobRequest) -> Result<Prepared, Refusal> {
        Ok(Prepared {
            estimate: Estimate::tokens(0, 0),
            prompt_is_exact: true,
            stream: false,
            rates: None,
            lane: None,
            work: serde_json::Value::Null,
        })
    }

    async fn run(&self, _: &Prepared, _: Option<TextSink>, _: &CancellationToken) -> Result<Outcome, Failure> {
        if self.fails {
            return Err(Failure::new(Code::BadRequest, "the tests fail").with_log(novel()));
        }
        Ok(Outcome {
            content: novel(),
            usage: Usage::NONE,
            finish: FinishReason::Stop,
            model: None,
            parameters: None,
            digest: None,
            facts: Vec::new(),
            duration: Duration::from_millis(3),
        })
    }
}

fn offer(terms: Terms) -> Offer {
    let rates = Rates { base: Msat::sat(21), ..Rates::default() };
    Offer { rates, terms, free_per_day: 0, hold_for: Offer::hold_for(Duration::from_secs(60)) }
}

fn selling(fails: bool, terms: Terms) -> MarketBuilder {
    TestMarket::new().selling(KIND, Arc::new(Verbose { fails }), offer(terms))
}

/// Prepaid, and another kind beside.
fn selling_both(other: JobKind) -> MarketBuilder {
    selling(false, Terms::Prepay).selling(other, Arc::new(Verbose { fails: false }), offer(Terms::Prepay))
}

fn uploads_to(server: &BlossomServer) -> Blossom {
    let codec = Codec::new(Signer::random(), ReadLimits::default());
    Blossom::new(BlossomConfig::new(server.url()), codec).unwrap()
}

fn order(customer: &Customer, encryption: Option<Encryption>) -> Order {
    Order { kind: KIND, encryption, ..customer.order("a long story") }
}

fn fetcher() -> Fetcher {
    Fetcher::new(FetchLimits { max_bytes: 1_000_000, allow_private: true, ..FetchLimits::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_no_event_has_room_for_comes_by_file() {
    let server = BlossomServer::start().await.unwrap();
    let market = selling(false, Terms::Free).files(uploads_to(&server)).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&order(&customer, None)).await;
    let result = posted.result().await;
    let blob = result.file.unwrap();
    let hash = sha256::Hash::hash(novel().as_bytes()).to_string();
    assert_eq!((&blob.sha256, blob.size, &blob.seal), (&hash, novel().len() as u64, &None));
    assert_eq!(result.truncated, Some((blob.size, hash)));
    assert!(novel().starts_with(&result.content) && result.content.len() > 8_000);
    assert_eq!(fetch(&fetcher(), &blob).await.unwrap(), novel().into_bytes());
    // A buyer asks nobody inside their own network because a provider says so.
    assert!(matches!(fetch(&Fetcher::default(), &blob).await, Err(BlossomError::TooLarge { .. })));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sold_is_put_there_sealed_and_opened_by_the_result() {
    let server = BlossomServer::start().await.unwrap();
    // Paid before, too: until the result is out a customer could call the job off and have the money back.
    for terms in [Terms::Hold, Terms::Postpay, Terms::Prepay] {
        let market = selling(false, terms).files(uploads_to(&server)).start().await;
        let customer = market.customer().await;
        let mut posted = customer.post(&order(&customer, None)).await;
        let invoice = posted.invoice().await;
        let paying = customer.begin_to_pay(&invoice);
        let result = posted.result().await;
        paying.await.unwrap().unwrap();
        let blob = result.file.unwrap();
        assert!(!shows_the_novel(&server, &blob.sha256), "{terms}");
        assert_eq!(blob.seal.as_ref().unwrap().sha256, result.truncated.unwrap().1);
        assert_eq!(fetch(&fetcher(), &blob).await.unwrap(), novel().into_bytes());
        market.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_in_confidence_is_put_there_sealed_for_the_customer_alone() {
    let server = BlossomServer::start().await.unwrap();
    let market = selling(false, Terms::Prepay).files(uploads_to(&server)).start().await;
    let customer = market.customer().await;
    for scheme in [Encryption::Nip44, Encryption::Nip04] {
        let mut posted = customer.post(&order(&customer, Some(scheme))).await;
        let invoice = posted.invoice().await;
        customer.pay(&invoice).await.unwrap();
        let blob = posted.result().await.file.unwrap();
        assert!(!shows_the_novel(&server, &blob.sha256));
        assert_eq!(fetch(&fetcher(), &blob).await.unwrap(), novel().into_bytes());
        for event in market.answers(posted.job).await {
            assert!(!event.as_json().contains(&blob.sha256), "others see where it is");
        }
    }
    market.finish().await;
}

fn shows_the_novel(server: &BlossomServer, sha256: &str) -> bool {
    server.files()[sha256].windows(6).any(|bytes| bytes == b"stormy")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_files_that_fails_cuts_a_text_and_nobody_pays_for_half_a_document() {
    let server = BlossomServer::start().await.unwrap();
    for manners in [Manners::Refuses(413), Manners::TellsAnotherHash] {
        server.behave(manners);
        let text = JobKind::TextGeneration;
        let market = selling_both(text).files(uploads_to(&server)).start().await;
        let customer = market.customer().await;
        let mut posted = customer.post(&Order { kind: text, ..order(&customer, None) }).await;
        customer.pay(&posted.invoice().await).await.unwrap();
        let result = posted.result().await;
        assert_eq!((result.file, result.truncated.is_some()), (None, true), "{manners:?}");

        let mut posted = customer.post(&order(&customer, None)).await;
        customer.pay(&posted.invoice().await).await.unwrap();
        let refusal = posted.refusal().await;
        assert_eq!(refusal.code, Code::Backend);
        assert!(refusal.text.contains("larger than an event"), "{}", refusal.text);
        let credit = market.service().provider().store().credit(customer.signer.customer_id()).await.unwrap();
        assert_eq!(credit, Msat::sat(21), "{manners:?}");
        market.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_stops_while_it_uploads_does_the_job_again() {
    let server = BlossomServer::start().await.unwrap();
    server.behave(Manners::IsSilent);
    let mut market = selling(false, Terms::Prepay).files(uploads_to(&server)).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&order(&customer, None)).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    within("the upload", server.uploads_reach(1)).await;
    assert!(!market.stop(Duration::ZERO).await);
    server.behave(Manners::Good);
    market.start_again().await.unwrap();
    let result = posted.result().await;
    assert_eq!(fetch(&fetcher(), &result.file.unwrap()).await.unwrap(), novel().into_bytes());
    assert_eq!(market.moments().times(posted.job, Moment::PutAway), 1);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_cancelled_while_its_result_is_uploaded_is_cancelled() {
    let server = BlossomServer::start().await.unwrap();
    server.behave(Manners::IsSilent);
    let market = selling(false, Terms::Prepay).files(uploads_to(&server)).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&order(&customer, None)).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    within("the upload", server.uploads_reach(1)).await;
    customer.cancel(posted.job).await;
    assert_eq!(posted.refusal().await.code, Code::Cancelled);
    assert_eq!(market.job(posted.job).await.work, WorkState::Cancelled);
    let credit = market.service().provider().store().credit(customer.signer.customer_id()).await.unwrap();
    assert_eq!(credit, Msat::sat(21));
    assert!(market.finish().await.answers_of_kind(posted.job, KIND.result_kind()).await == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_is_handed_what_a_failed_job_wrote() {
    let market = selling(true, Terms::Hold).start().await;
    let customer = market.customer().await;
    let request = customer.sign(&order(&customer, None));
    let (job, provider) = (JobId(request.id.0), market.provider().provider_id());
    let answers = customer.relays.follow(job, KIND, &[], Timestamp::UNIX_EPOCH, customer.codec.clone());
    let limits = Limits {
        max_cost: Msat::sat(21),
        offer_window: SignedDuration::from_millis(1),
        timeout: SignedDuration::from_secs(60),
    };
    let asked = vec![provider];
    let plan = Plan { request, asked, limits, choice: Choice::First, max_fee_percent: 0, network: NETWORK };
    let bought = within("the purchase", customer.buyer().buy(plan, answers.readable(), |_| ())).await;
    match bought {
        Err(BuyError::Ended { ending: Ending::Failed(refusal), fate: Fate::Returned }) => {
            assert!(refusal.log.len() > 4_000 && novel().ends_with(&refusal.log));
        }
        other => panic!("{other:?}"),
    }
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_says_what_it_wrote_and_only_to_its_customer() {
    for encryption in [None, Some(Encryption::Nip44), Some(Encryption::Nip04)] {
        let market = selling(true, Terms::Hold).start().await;
        let customer = market.customer().await;
        let mut posted = customer.post(&order(&customer, encryption)).await;
        let invoice = posted.invoice().await;
        let paying = customer.begin_to_pay(&invoice);
        let refusal = posted.refusal().await;
        assert!(paying.await.unwrap().is_err(), "the hold was not cancelled");
        assert!(refusal.text.starts_with("the tests fail"), "{}", refusal.text);
        assert!(novel().ends_with(&refusal.log), "{}", refusal.log);
        assert!((4_000..=8_192).contains(&refusal.log.len()), "{} bytes", refusal.log.len());
        for event in market.answers(posted.job).await {
            assert_eq!(event.content.contains("stormy"), encryption.is_none() && event.content.len() > 4_000);
        }
        within("the books", market.finish()).await;
    }
}
