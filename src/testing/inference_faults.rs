//! What every backend behind HTTP must bear, checked the same way for each: [`check_faults`] panics with what is wrong.
//!
//! Whatever a server does, its backend neither panics nor hangs, follows nobody elsewhere, and never takes half an answer for
//! a whole one; the error says that the server is at fault, not the customer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::faulty_server::{Break, Fault, FaultyServer, Mood};
use super::inference_contract::ask;
use crate::inference::http::ServerOptions;
use crate::inference::{Generation, Inference, InferenceError};

/// A backend that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is waited for on purpose is short. A machine that is slower finds a fault all the same, if another one.
const SHORT: Duration = Duration::from_millis(300);
/// A question whose answer has several pieces.
const QUESTION: &str = "Theorem t : forall n : nat, n + 0 = n.";
/// Answers are broken off after so many hundredths: before a server said why they ended.
const BREAKS_AFTER: [usize; 3] = [10, 25, 45];

/// Bounds in which nothing that answers at all is too slow.
const PATIENT: ServerOptions =
    ServerOptions { connect_timeout: PATIENCE, answer_timeout: PATIENCE, silence: PATIENCE, max_body: 64 * 1024 };

/// Makes a backend of a server's address (`http://127.0.0.1:…/`) with these bounds, and spoils what the good server at `good`
/// answers to it.
pub async fn check_faults(make: impl Fn(Url, ServerOptions) -> Arc<dyn Inference>, good: &Url) {
    let server = FaultyServer::before(good).await.expect("a free port");
    let elsewhere = FaultyServer::scripted(|_| None).await.expect("a free port");

    for fault in Fault::all(elsewhere.url()) {
        server.set(Mood::Everywhere(fault.clone()));
        // Nothing is asked yet: a server that is down is no reason not to start.
        let backend = make(server.url(), bounds(&fault, true));
        assert_at_fault(&fault, &in_time(backend.models()).await);
        assert_at_fault(&fault, &in_time(backend.count_prompt_tokens(None, &ask(QUESTION).messages)).await);
        assert_at_fault(&fault, &answer(&*backend).await);
        assert!(!server.asked().is_empty(), "{fault:?} was met");
    }

    for fault in Fault::all(elsewhere.url()) {
        server.set(Mood::Answers(fault.clone()));
        let backend = make(server.url(), bounds(&fault, false));
        let asked_before = server.answers_asked();
        assert_at_fault(&fault, &answer(&*backend).await);
        assert!(fault == Fault::Trickle || server.answers_asked() > asked_before, "{fault:?} was met by an answer");
        if fault != Fault::Trickle {
            // It is not the server that is broken, only that answer.
            server.set(Mood::Good);
            answer(&*backend).await.expect("an answer after a fault");
        }
    }
    assert_eq!(elsewhere.asked(), [""; 0], "a redirect was followed");

    for how in Break::ALL {
        for after_percent in BREAKS_AFTER {
            server.set(Mood::Breaks { after_percent, how });
            let silence = if how == Break::Trickle { SHORT } else { PATIENCE };
            let backend = make(server.url(), ServerOptions { silence, ..PATIENT });
            let asked_before = server.answers_asked();
            assert_at_fault(&(how, after_percent), &answer(&*backend).await);
            assert!(how == Break::Trickle || server.answers_asked() > asked_before, "an answer was broken off");
        }
    }

    server.set(Mood::Everywhere(Fault::Loading));
    let backend = make(server.url(), PATIENT);
    match in_time(backend.models()).await {
        Err(InferenceError::Busy(_) | InferenceError::Backend(_)) => {}
        other => panic!("a server that is loading gave {other:?}"),
    }
    server.set(Mood::Good);
    answer(&*backend).await.expect("an answer once the model is loaded");
}

/// Short where the fault is that time passes.
fn bounds(fault: &Fault, everywhere: bool) -> ServerOptions {
    match fault {
        Fault::Trickle if everywhere => ServerOptions { answer_timeout: SHORT, silence: SHORT, ..PATIENT },
        Fault::Trickle => ServerOptions { silence: SHORT, ..PATIENT },
        _ => PATIENT,
    }
}

async fn answer(backend: &dyn Inference) -> Result<Generation, InferenceError> {
    let (sink, _pieces) = mpsc::unbounded_channel();
    in_time(backend.generate(&ask(QUESTION), Some(sink), &CancellationToken::new())).await
}

async fn in_time<T>(asked: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE * 2, asked).await.expect("the backend hangs")
}

fn assert_at_fault<T: std::fmt::Debug>(fault: &impl std::fmt::Debug, result: &Result<T, InferenceError>) {
    match result {
        Err(InferenceError::Backend(_) | InferenceError::Busy(_) | InferenceError::Unusable(_)) => {}
        other => panic!("{fault:?} gave {other:?}"),
    }
}
