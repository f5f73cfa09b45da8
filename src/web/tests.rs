//! Over real HTTP.

use std::net::SocketAddr;

use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::job::Code;

async fn served(metrics: &Metrics, shutdown: &CancellationToken) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(serve(listener, metrics.clone(), shutdown.clone()));
    (address, AbortOnDropHandle::new(task))
}

async fn get(address: SocketAddr, path: &str) -> reqwest::Response {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("http://{address}{path}")).send().await.unwrap()
}

#[tokio::test]
async fn the_numbers_are_served_as_openmetrics() {
    let metrics = Metrics::new();
    let (address, _task) = served(&metrics, &CancellationToken::new()).await;
    metrics.refused(Code::Price);
    let answer = get(address, "/metrics").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], metrics::CONTENT_TYPE);
    let text = answer.text().await.unwrap();
    assert!(text.contains("coinop_refusals_total{code=\"price\"} 1\n"), "{text}");
}

#[tokio::test]
async fn health_is_ok_and_everything_else_is_not_there() {
    let metrics = Metrics::new();
    let (address, _task) = served(&metrics, &CancellationToken::new()).await;
    let answer = get(address, "/health").await;
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "ok"));
    for path in ["/", "/metrics/more", "/jobs"] {
        assert_eq!(get(address, path).await.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn it_ends_when_it_is_told() {
    let shutdown = CancellationToken::new();
    let (address, task) = served(&Metrics::new(), &shutdown).await;
    get(address, "/health").await;
    shutdown.cancel();
    task.await.unwrap();
}
