//! What a scraper sees of a provider at work.

use std::net::SocketAddr;
use std::sync::Arc;

use coinop::inference::echo::Echo;
use coinop::inference::metered::Metered;
use coinop::job::Code;
use coinop::metrics::Metrics;
use coinop::money::Msat;
use coinop::testing::market::{TestMarket, within};

struct Scraper {
    client: reqwest::Client,
    at: SocketAddr,
}

impl Scraper {
    fn of(market: &TestMarket) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { client, at: market.metrics_address() }
    }

    async fn scrape(&self) -> String {
        let answer = self.client.get(format!("http://{}/metrics", self.at)).send().await.unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    }

    async fn sees(&self, line: &str) {
        let text = self.scrape().await;
        assert!(text.lines().any(|found| found == line), "no '{line}' in\n{text}");
    }

    /// Asks until it is there: what is counted last is counted after the customer has heard.
    async fn comes_to_see(&self, line: &str) {
        let seen = async { while !self.scrape().await.lines().any(|found| found == line) {} };
        within(line, seen).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_job_is_in_the_numbers_from_its_quote_to_its_earnings() {
    let (echo, metrics) = (Echo::new().gated(), Metrics::new());
    let backend = Metered::new(Arc::new(echo.clone()), "gpu1", metrics.clone());
    let market = TestMarket::new().price(Msat::sat(21)).backend(backend).metrics(metrics).start().await;
    let scraper = Scraper::of(&market);
    let customer = market.customer().await;

    let mut posted = customer.post(&customer.order("three little words")).await;
    let invoice = posted.invoice().await;
    scraper.sees("coinop_quotes_open 1").await;
    scraper.sees("coinop_jobs_running 0").await;

    customer.pay(&invoice).await.unwrap();
    within("the run to begin", echo.wait_for_runs(1)).await;
    scraper.sees("coinop_quotes_open 0").await;
    scraper.sees("coinop_jobs_running 1").await;
    scraper.sees("coinop_jobs_queued 0").await;
    scraper.sees(r#"coinop_backend_busy{backend="gpu1"} 1"#).await;

    echo.release(1);
    posted.result().await;
    scraper.sees("coinop_jobs_running 0").await;
    scraper.sees(r#"coinop_tokens_total{model="echo",direction="prompt"} 3"#).await;
    scraper.sees(r#"coinop_tokens_total{model="echo",direction="generated"} 3"#).await;
    scraper.sees(r#"coinop_run_seconds_count{model="echo"} 1"#).await;
    scraper.sees(r#"coinop_backend_requests_total{backend="gpu1",outcome="answered"} 1"#).await;
    scraper.sees(r#"coinop_backend_up{backend="gpu1"} 1"#).await;
    scraper.comes_to_see(r#"coinop_jobs_total{kind="text-generation",result="delivered"} 1"#).await;
    scraper.comes_to_see(r#"coinop_earned_msat_total{kind="text-generation"} 21000"#).await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_failed_or_cancelled_is_counted_as_that() {
    let (echo, metrics) = (Echo::new(), Metrics::new());
    echo.fail(1);
    let market = TestMarket::new().price(Msat::sat(21)).backend(echo).metrics(metrics.clone()).start().await;
    let scraper = Scraper::of(&market);
    let customer = market.customer().await;

    let mut order = customer.order("hello");
    order.params.push("max_tokens", vec!["0".into()]);
    assert_eq!(customer.post(&order).await.refusal().await.code, Code::BadRequest);
    scraper.sees(r#"coinop_refusals_total{code="bad-request"} 1"#).await;

    let mut unwanted = customer.post(&customer.order("hello again")).await;
    unwanted.invoice().await;
    customer.cancel(unwanted.job).await;
    scraper.comes_to_see(r#"coinop_jobs_total{kind="text-generation",result="cancelled"} 1"#).await;

    // Last: what was paid for nothing is credit, and the next job would need no invoice.
    let mut failing = customer.post(&customer.order("hello")).await;
    let invoice = failing.invoice().await;
    customer.pay(&invoice).await.unwrap();
    failing.refusal().await;
    scraper.comes_to_see(r#"coinop_jobs_total{kind="text-generation",result="failed"} 1"#).await;
    market.finish().await;
    assert!(!metrics.encode().contains("coinop_earned_msat_total{"), "nothing was earned");
}
