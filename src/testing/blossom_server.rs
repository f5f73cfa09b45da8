//! A Blossom server (BUD-01, BUD-02) on loopback: it takes files from those who hold a permit, and can be told to misbehave.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use nostr::hashes::{Hash, sha256};
use nostr::{Event, JsonUtil as _, Kind};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

/// What an upload meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// It is kept.
    Good,
    /// This status, and a reason that can't be printed as it is.
    Refuses(u16),
    /// This status for so many uploads, then it is kept.
    RefusesFirst(u16, u32),
    /// It is kept, and the server tells of another one.
    TellsAnotherHash,
    /// It is kept, and the server tells of another size.
    TellsAnotherSize,
    /// It is kept, and the server gives an address that is none.
    TellsNoAddress,
    /// It is kept, and what comes back is no JSON.
    TellsNothing,
    /// It is never answered.
    IsSilent,
    /// Another file is kept under its name.
    KeepsAnother,
}

/// A running server.
#[derive(Debug)]
pub struct BlossomServer {
    address: SocketAddr,
    desk: Arc<Desk>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Desk {
    address: SocketAddr,
    manners: Mutex<Manners>,
    files: Mutex<HashMap<String, Bytes>>,
    uploads: watch::Sender<u32>,
}

impl BlossomServer {
    /// Starts a server that behaves.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start() -> io::Result<Self> {
        super::faulty_server::crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let desk = Arc::new(Desk {
            address,
            manners: Mutex::new(Manners::Good),
            files: Mutex::default(),
            uploads: watch::Sender::new(0),
        });
        let routes = Router::new()
            .route("/upload", put(upload))
            .route("/{sha256}", get(download))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&desk));
        let task = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, desk, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it is.
    pub fn url(&self) -> Url {
        format!("http://{}/", self.address).parse().expect("an address is a URL")
    }

    /// From now on uploads meet this.
    pub fn behave(&self, manners: Manners) {
        *lock(&self.desk.manners) = manners;
    }

    /// The files it has, by their hashes.
    pub fn files(&self) -> HashMap<String, Vec<u8>> {
        lock(&self.desk.files).iter().map(|(hash, content)| (hash.clone(), content.to_vec())).collect()
    }

    /// Uploads that were begun with a good permit.
    pub fn uploads(&self) -> u32 {
        *self.desk.uploads.borrow()
    }

    /// Waits until so many uploads were begun.
    pub async fn uploads_reach(&self, count: u32) {
        let mut uploads = self.desk.uploads.subscribe();
        uploads.wait_for(|begun| *begun >= count).await.expect("the sender is kept here");
    }
}

async fn upload(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Bytes) -> Response {
    let hash = sha256::Hash::hash(&body).to_string();
    if let Err(reason) = check_permit(&headers, &hash) {
        return (StatusCode::UNAUTHORIZED, [("x-reason", reason)]).into_response();
    }
    desk.uploads.send_modify(|count| *count += 1);
    let manners = *lock(&desk.manners);
    let status = match manners {
        Manners::Refuses(status) => Some(status),
        Manners::RefusesFirst(status, uploads) if *desk.uploads.borrow() <= uploads => Some(status),
        _ => None,
    };
    if let Some(status) = status {
        let status = StatusCode::from_u16(status).expect("a status");
        return (status, [("x-reason", "not today\tfriend")]).into_response();
    }
    if manners == Manners::IsSilent {
        std::future::pending::<()>().await;
    }
    let size = body.len();
    let kept = if manners == Manners::KeepsAnother { Bytes::from_static(b"another") } else { body };
    lock(&desk.files).insert(hash.clone(), kept);
    let url = format!("http://{}/{hash}", desk.address);
    let (url, hash, size) = match manners {
        Manners::TellsAnotherHash => (url, "0".repeat(64), size),
        Manners::TellsAnotherSize => (url, hash, size + 1),
        Manners::TellsNoAddress => ("file:///etc/passwd".into(), hash, size),
        Manners::TellsNothing => return "<html>".into_response(),
        _ => (url, hash, size),
    };
    let told = json!({ "url": url, "sha256": hash, "size": size, "type": "text/plain", "uploaded": 1 });
    (StatusCode::CREATED, Json(told)).into_response()
}

async fn download(State(desk): State<Arc<Desk>>, Path(name): Path<String>) -> Response {
    match lock(&desk.files).get(&name).cloned() {
        Some(content) => ([("content-type", "application/octet-stream")], content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What BUD-01 and BUD-02 ask of a permit, read in the strictest spelling: base64 for addresses, without padding.
fn check_permit(headers: &HeaderMap, hash: &str) -> Result<(), &'static str> {
    let header = headers.get("authorization").and_then(|value| value.to_str().ok()).ok_or("no authorization")?;
    let encoded = header.strip_prefix("Nostr ").ok_or("not of Nostr")?;
    let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| "not in base64")?;
    let event = Event::from_json(json).map_err(|_| "no event")?;
    event.verify().map_err(|_| "not signed")?;
    let now = Timestamp::now().as_second();
    let tag = |name: &str| {
        let mut tags = event.tags.iter().map(nostr::Tag::as_slice);
        tags.find(|words| words.first().is_some_and(|first| first == name)).and_then(|words| words.get(1)).cloned()
    };
    if event.kind != Kind::from_u16(24_242) || tag("t").as_deref() != Some("upload") {
        return Err("for something else");
    }
    if tag("x").as_deref() != Some(hash) || headers.get("x-sha-256").is_some_and(|told| told != hash) {
        return Err("for another file");
    }
    let expires: i64 = tag("expiration").and_then(|at| at.parse().ok()).ok_or("without an end")?;
    let signed = i64::try_from(event.created_at.as_secs()).map_err(|_| "past the calendar")?;
    if signed > now || expires <= now {
        return Err("at another time");
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
