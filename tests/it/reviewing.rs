//! Reviews of changes (kind 5933), bought and paid over the whole market; the model is a script.

use std::sync::Arc;
use std::time::Duration;

use coinop::executor::code_review::CodeReviewExecutor;
use coinop::inference::JsonSupport;
use coinop::job::code_review::{CodeReviewLimits, Review, Verdict};
use coinop::job::{Code, Input, InputKind, JobKind, Params, Rates, Terms};
use coinop::money::Msat;
use coinop::nip90::Order;
use coinop::provider::Offer;
use coinop::testing::input_sources::FixedInputs;
use coinop::testing::market::{Customer, TestMarket};
use coinop::testing::openai_server::OpenAiServer;
use coinop::testing::scripted_model::{Says, ScriptedModel};
use coinop::wallet::WalletError;

use crate::scripted::{self, Scripted};

const DIFF: &str =
    "--- a/add.sh\n+++ b/add.sh\n@@ -1,2 +1,2 @@\n #!/bin/sh\n-echo $(($1 + $2))\n+echo $(($1 + $2 + 1))\n";

/// What a good reviewer finds, and something it made up.
const ANSWER: &str = r#"{"summary": "Adds one to every sum.", "status": "approve", "issues": [
    {"path": "add.sh", "line": 2, "severity": "critical", "category": "bug", "title": "Off by one", "description": "2 and 2 are 5."},
    {"path": "add.sh", "line": 99, "severity": "minor", "category": "style", "title": "Made up", "description": "No such line."},
    {"path": "add.sh", "line": 1, "severity": "nit", "category": "style", "title": "A nit", "description": "Use bash."}]}"#;

/// A token costs a millisatoshi, so that what is charged can be counted.
const RATES: Rates =
    Rates { base: Msat::sat(1), per_1k_prompt: Msat::sat(1), per_1k_generated: Msat::sat(1), ..Rates::FREE };

struct Shop {
    market: TestMarket,
    customer: Customer,
    model: ScriptedModel,
    _server: OpenAiServer,
}

/// A market in which a model that says this reviews, behind a real server's wire form.
async fn shop<S: Into<Says>>(script: impl IntoIterator<Item = S>, terms: Terms) -> Shop {
    let Scripted { model, backend, server } = scripted::model(script, JsonSupport::Schema).await;
    let pages = FixedInputs::default().url("https://example.com/r/pull/7.diff", DIFF);
    let executor = CodeReviewExecutor::new(backend, None, Arc::new(pages), CodeReviewLimits::default());
    let offer = Offer { rates: RATES, terms, free_per_day: 0, hold_for: Offer::hold_for(Duration::from_secs(600)) };
    let market = TestMarket::new().selling(JobKind::CodeReview, Arc::new(executor), offer).start().await;
    let customer = market.customer().await;
    Shop { market, customer, model, _server: server }
}

impl Shop {
    fn order(&self, data: &str, kind: InputKind, marker: &str, params: &[(&str, &str)]) -> Order {
        let inputs = vec![Input { data: data.into(), kind, relay: None, marker: Some(marker.into()) }];
        let mut list = Params::default();
        for (key, value) in params {
            list.push(key, vec![(*value).to_owned()]);
        }
        Order { kind: JobKind::CodeReview, inputs, params: list, ..self.customer.order("") }
    }

    fn of_diff(&self, params: &[(&str, &str)]) -> Order {
        self.order(DIFF, InputKind::Text, "diff", params)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_is_delivered_as_data_and_charged_by_what_it_took() {
    let shop = shop([ANSWER], Terms::Prepay).await;
    let mut posted = shop.customer.post(&shop.of_diff(&[("include_nits", "true")])).await;
    let invoice = posted.invoice().await;
    shop.customer.pay(&invoice).await.unwrap();
    let result = posted.result().await;
    let review: Review = serde_json::from_str(&result.content).unwrap();
    assert!(review.is_sealed());
    assert_eq!(review.status, Verdict::RequestChanges);
    let titles: Vec<&str> = review.issues.iter().map(|issue| issue.title.as_str()).collect();
    assert_eq!(titles, ["A nit", "Off by one"]);
    let usage = result.receipt.usage.unwrap();
    assert_eq!((review.tokens.prompt, review.tokens.generated), (usage.prompt_tokens, usage.generated_tokens));
    assert_eq!(result.receipt.paid, Some(RATES.cost(usage)));
    assert_eq!(result.receipt.credit, Some(invoice.amount.checked_sub(RATES.cost(usage)).unwrap()));
    assert!(result.receipt.facts.contains(&("review_sha256".to_owned(), review.review_sha256)));
    shop.market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_is_reviewed_by_its_address() {
    let shop = shop([ANSWER], Terms::Free).await;
    let order = shop.order("https://example.com/r/pull/7/files", InputKind::Url, "pr", &[]);
    let review: Review = serde_json::from_str(&shop.customer.post(&order).await.result().await.content).unwrap();
    assert_eq!((review.stats.critical, review.stats.nits), (1, 0));
    shop.market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prose_is_no_review_and_costs_nothing() {
    let shop = shop(["LGTM!", "I approve of this change."], Terms::Hold).await;
    let before = shop.customer.wallet.funds().unwrap();
    let mut posted = shop.customer.post(&shop.of_diff(&[])).await;
    let invoice = posted.invoice().await;
    let paying = shop.customer.begin_to_pay(&invoice);
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::Backend);
    assert!(refusal.text.contains("nothing is charged"), "{}", refusal.text);
    assert!(matches!(paying.await.unwrap(), Err(WalletError::PaymentFailed(_))));
    assert_eq!((shop.customer.wallet.funds().unwrap(), shop.model.asked().len()), (before, 2));
    shop.market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_diff_is_refused_before_money_moves() {
    let shop = shop(["unused"], Terms::Prepay).await;
    let truncated = &DIFF[..DIFF.len() - 25];
    for (data, kind, marker, named) in [
        ("please review my code", InputKind::Text, "diff", "holds no diff"),
        (truncated, InputKind::Text, "diff", "the hunk ends before"),
        ("--- a//etc/passwd\n+++ b//etc/passwd\n", InputKind::Text, "diff", "begins with '/'"),
        ("https://example.com/r/pull/8", InputKind::Url, "pr", "was not found"),
        ("https://example.com/r", InputKind::Url, "repo", "commit_0"),
    ] {
        let order = shop.order(data, kind, marker, &[]);
        let refusal = shop.customer.post(&order).await.refusal().await;
        assert!(refusal.text.contains(named), "{named}: {}", refusal.text);
    }
    assert!(shop.model.asked().is_empty());
    shop.market.finish().await;
}
