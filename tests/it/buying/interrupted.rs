//! A request that ends before its job does, by an interruption or without a word.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use coinop::inference::echo::Echo;
use coinop::job::Terms;
use coinop::testing::market::{POCKET_MONEY, TestMarket, within};

use super::PRICE;
use super::shopper::{Shopper, ended, err, signal, states};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_killed_while_its_hold_is_pending_is_settled_in_the_book_later() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(echo.clone()).start().await;
    let shopper = Shopper::at(&market, "100sat").await;
    let mut requesting = shopper.request("held").spawn().unwrap();
    market.moments().told_in_all("payment-held", 1).await;
    requesting.kill().unwrap();
    ended(requesting).await;

    let listed = shopper.list().await;
    assert_eq!((states(&listed), &listed["left_msat"]), (vec!["paying"], &74_000.into()));
    echo.release(1);
    market.moments().told_in_all("payment-settled", 1).await;
    let listed = shopper.list().await;
    assert_eq!((states(&listed), &listed["left_msat"]), (vec!["paid"], &79_000.into()));
    assert_eq!(shopper.wallet.funds().unwrap(), POCKET_MONEY.saturating_sub(PRICE));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_request_calls_the_job_off_and_what_was_held_comes_back() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(echo.clone()).start().await;
    let shopper = Shopper::at(&market, "100sat").await;
    let requesting = shopper.request("held").spawn().unwrap();
    within("the run", echo.wait_for_runs(1)).await;
    signal(&requesting, "INT");
    let interrupted = ended(requesting).await;
    assert_eq!(interrupted.status.code(), Some(130), "{}", err(&interrupted));
    for told in ["Calling the order off", "cancelled as you asked", "came back: nothing was paid"] {
        assert!(err(&interrupted).contains(told), "{told}: {}", err(&interrupted));
    }
    let listed = shopper.list().await;
    assert_eq!((states(&listed), &listed["left_msat"]), (vec!["failed"], &100_000.into()));
    assert_eq!(shopper.wallet.funds().unwrap(), POCKET_MONEY);
    // The gate was never opened: only a stopped run lets the market close.
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_cancellation_nobody_answers_says_that_its_payment_is_under_way() {
    let echo = Echo::new().gated();
    let mut market = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(echo.clone()).start().await;
    let shopper = Shopper::at(&market, "100sat").await;
    let requesting = shopper.request("held").spawn().unwrap();
    within("the run", echo.wait_for_runs(1)).await;
    // The provider is away. Its wallet still holds the money.
    market.stop(Duration::ZERO).await;
    signal(&requesting, "INT");
    let interrupted = ended(requesting).await;
    assert_eq!(interrupted.status.code(), Some(130), "{}", err(&interrupted));
    for told in ["has not answered it yet", "under way or in doubt", "coinop payments list", "the request is"] {
        assert!(err(&interrupted).contains(told), "{told}: {}", err(&interrupted));
    }
    assert_eq!(states(&shopper.list().await), ["paying"]);
    // When it is back it finds the cancellation at the relay.
    market.start_again().await.unwrap();
    market.moments().told_in_all("cancelled", 1).await;
    market.moments().told_in_all("hold-released", 1).await;
    assert_eq!(states(&shopper.list().await), ["failed"]);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_interruption_ends_at_once_and_leaves_the_payment_in_the_book() {
    let echo = Echo::new().gated();
    let mut market = TestMarket::new().price(PRICE).terms(Terms::Hold).backend(echo.clone()).start().await;
    let shopper = Shopper::at(&market, "100sat").await;
    let mut requesting = shopper.request("held").spawn().unwrap();
    within("the run", echo.wait_for_runs(1)).await;
    // Nobody answers the cancellation: there is time for a second one.
    market.stop(Duration::ZERO).await;
    let mut lines = BufReader::new(requesting.stderr.take().unwrap()).lines().map_while(Result::ok);
    signal(&requesting, "TERM");
    let reading = tokio::task::spawn_blocking(move || {
        assert!(lines.any(|line| line.contains("Calling the order off")));
        lines
    });
    let lines = within("the first to be heard", reading).await.unwrap();
    let mut reading = tokio::task::spawn_blocking(move || lines.collect::<Vec<_>>().join("\n"));
    // One that comes at once is taken for the first.
    let mut again = tokio::time::interval(Duration::from_millis(100));
    let said = within("the last words", async {
        loop {
            tokio::select! {
                said = &mut reading => break said.unwrap(),
                _ = again.tick() => signal(&requesting, "INT"),
            }
        }
    })
    .await;
    let interrupted = ended(requesting).await;
    assert_eq!(interrupted.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted again") && said.contains("coinop payments list"), "{said}");
    assert_eq!(states(&shopper.list().await), ["paying"]);
    market.start_again().await.unwrap();
    market.moments().told_in_all("hold-released", 1).await;
    market.finish().await;
}
