//! What this process shows over HTTP: `GET /metrics` for a Prometheus server and `GET /health` for whoever watches over
//! processes. Nothing here changes anything, and nothing shown is secret; it still belongs on loopback or a private network.

mod connections;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::metrics::{self, Metrics};
use connections::Bounded;

/// Answers until `shutdown`. Every other path is a 404.
///
/// A connection carries one question and lives for some seconds, and only so many are open at once: whoever sends its
/// question letter by letter keeps nobody else out for long.
pub async fn serve(listener: TcpListener, metrics: Metrics, shutdown: CancellationToken) {
    let routes = Router::new()
        .route("/metrics", get(numbers))
        .route("/health", get(|| async { ([(CONNECTION, "close")], "ok") }))
        .fallback(|| async { (axum::http::StatusCode::NOT_FOUND, [(CONNECTION, "close")]) })
        .with_state(metrics);
    let serving = axum::serve(Bounded::new(listener), routes).with_graceful_shutdown(shutdown.cancelled_owned());
    if let Err(problem) = serving.await {
        error!(%problem, "The metrics are no longer shown");
    }
}

async fn numbers(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE), (CONNECTION, "close")], metrics.encode())
}
