//! The proxy: what programs in a cell ask over HTTP is looked at, asked anew of the one endpoint, and counted on its way back.
//!
//! Nothing of a request goes on as it came. Its body is read whole and written anew, its headers stay behind, and the path is one
//! of a few; so whatever is smuggled in goes nowhere. Of an answer the body goes on, with a type and a status, and no header else.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::budget::{Budget, Came};
use super::door::Door;
use super::http::{Answer, BrokenOff, Clock, Refused, Unread, json_response, whole};
use super::journal::{Body, Journal, Line, Passed, method};
use super::link::Wire;
use super::question::Question;
use super::upstream::{NoAnswer, Upstream};
use super::usage::Reader;
use crate::inference::public_name;

/// Bytes of a request's head.
const MOST_HEAD: usize = 32 * 1024;
/// Headers of a request.
const MOST_HEADERS: usize = 64;
/// Bytes of an answer that is no stream.
const MOST_ANSWER: usize = 8 * 1024 * 1024;
/// The longest time that an endpoint is quoted with for trying again, in digits.
const LONGEST_RETRY_AFTER: usize = 5;

/// Bounds of what programs in a cell may do to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyBounds {
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Requests that are worked on at once; more wait.
    pub at_once: usize,
    /// How long a connection may say nothing before or within the head of a request.
    pub head_time: Duration,
    /// How long a request's body may take.
    pub body_time: Duration,
    /// Bytes of all requests and answers of a job together.
    pub job_bytes: u64,
}

impl Default for ProxyBounds {
    /// Requests of 8 MiB, four at once, a minute for each part of one, 1 GiB a job: agents send all they know again and again.
    fn default() -> Self {
        Self {
            request_bytes: 8 * 1024 * 1024,
            at_once: 4,
            head_time: Duration::from_secs(60),
            body_time: Duration::from_secs(60),
            job_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// The proxy of one job.
pub(super) struct Proxy {
    upstream: Arc<Upstream>,
    doors: Vec<Door>,
    /// The model that is asked, whatever the agent says.
    model: Option<String>,
    /// The model that the agent asked first, when it may choose.
    chosen: OnceLock<String>,
    pub(super) budget: Budget,
    pub(super) journal: Journal,
    bounds: ProxyBounds,
    turns: Arc<Semaphore>,
    began: Instant,
}

impl Proxy {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        doors: Vec<Door>,
        model: Option<String>,
        budget: Budget,
        bounds: ProxyBounds,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(bounds.at_once.max(1)));
        let (chosen, journal, began) = (OnceLock::new(), Journal::default(), Instant::now());
        Self { upstream, doors, model, chosen, budget, journal, bounds, turns, began }
    }

    /// The model that was asked, as far as its name can be shown.
    pub(super) fn model(&self) -> Option<String> {
        let chosen = || self.chosen.get().and_then(|model| public_name(model));
        self.model.clone().or_else(chosen)
    }

    /// Answers everything that comes over a connection.
    pub(super) async fn serve(self: Arc<Self>, wire: Wire) {
        let mut http = http1::Builder::new();
        http.timer(Clock)
            .header_read_timeout(self.bounds.head_time)
            .max_headers(MOST_HEADERS)
            .max_header_size(MOST_HEAD)
            .auto_date_header(false);
        let service = service_fn(|request| {
            let proxy = Arc::clone(&self);
            async move { Ok::<_, std::convert::Infallible>(proxy.answer(request).await) }
        });
        // What goes wrong with a connection is the business of whoever made it.
        let _ = http.serve_connection(wire, service).await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        let asked = Arc::clone(&self).pass_on(request).await;
        asked.unwrap_or_else(|refused| {
            let (at_ms, status) = (millis(self.began.elapsed()), refused.status.as_u16());
            self.journal.add(&Line::Refused { at_ms, status, why: &refused.why });
            refused.response()
        })
    }

    async fn pass_on(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Answer>, Refused> {
        let door = self.door(&request)?;
        let (head, body) = request.into_parts();
        if let (Door::Models, Some(model)) = (door, &self.model) {
            return Ok(only_model(model));
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("the semaphore is never closed");
        let (asked, estimate) = if door == Door::Models {
            self.begin(0, 0)?;
            (None, 0)
        } else {
            let body = self.body(body).await?;
            // The estimate of what came is as good as that of what goes on.
            let estimate = super::question::estimate(body.len());
            let left = self.begin(body.len(), estimate)?;
            let question = Question::read(door, &body, self.model.as_deref(), left)
                .map_err(|why| Refused::new(StatusCode::BAD_REQUEST, "invalid_request_error", why));
            // It took a request all the same, and no tokens.
            let nothing = Came { prompt_estimate: estimate, ..Came::default() };
            let question = question.inspect_err(|_| self.budget.end(nothing))?;
            self.chosen.get_or_init(|| question.model.clone());
            (Some(question), estimate)
        };
        let mut request = Passed::default();
        request.add(asked.as_ref().map_or(&[][..], |question| &question.body));
        let exchange = Exchange {
            proxy: Arc::clone(&self),
            door,
            status: StatusCode::BAD_GATEWAY,
            began: Instant::now(),
            request: request.body(),
            answer: Passed::default(),
            reader: Reader::new(door),
            estimate,
            pieces: 0,
            whole: false,
            _turn: turn,
        };
        exchange.ask(asked.map(|question| question.body), &head.headers).await
    }

    /// The door that a request is for.
    fn door<B>(&self, request: &Request<B>) -> Result<Door, Refused> {
        let uri = request.uri();
        let here = self.doors.iter().map(|door| format!("{} /v1/{door}", method(*door))).collect::<Vec<_>>().join(", ");
        // A program that means another host gets no answer that seems to come from there.
        let found = Door::at(uri.path()).filter(|door| uri.authority().is_none() && self.doors.contains(door));
        let Some(door) = found else {
            let why = format!("there is no such place here; there are {here}");
            return Err(Refused::new(StatusCode::NOT_FOUND, "not_found_error", why));
        };
        if request.method() != door.method() {
            let why = format!("there is no such method here; there are {here}");
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "not_found_error", why));
        }
        if request.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            let why = "bodies are read as they are: turn compression off";
            return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", why));
        }
        Ok(door)
    }

    async fn body(&self, body: Incoming) -> Result<Vec<u8>, Refused> {
        let bad = "invalid_request_error";
        match timeout(self.bounds.body_time, whole(body, self.bounds.request_bytes)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(Unread::TooLarge)) => {
                let why = format!("the request has more than {} bytes", self.bounds.request_bytes);
                Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", why))
            }
            Ok(Err(Unread::Broken)) => Err(Refused::new(StatusCode::BAD_REQUEST, bad, "the body broke off")),
            Err(_) => Err(Refused::new(StatusCode::REQUEST_TIMEOUT, bad, "the body took too long")),
        }
    }

    fn begin(&self, bytes: usize, estimate: u32) -> Result<u32, Refused> {
        let begun = self.budget.begin(bytes as u64, estimate);
        // Not 429, at which programs try again.
        begun.map_err(|spent| Refused::new(StatusCode::PAYMENT_REQUIRED, "budget_spent", spent.to_string()))
    }
}

fn only_model(model: &str) -> Response<Answer> {
    let card = json!({"id": model, "object": "model", "type": "model", "display_name": model, "owned_by": "coinop",
        "created": 0, "created_at": "1970-01-01T00:00:00Z"});
    let list = json!({"object": "list", "data": [card], "has_more": false, "first_id": model, "last_id": model});
    json_response(StatusCode::OK, list.to_string().into())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A request that was let through. Dropped, it is counted and written down, however it ended.
struct Exchange {
    proxy: Arc<Proxy>,
    door: Door,
    status: StatusCode,
    began: Instant,
    request: Body,
    answer: Passed,
    reader: Reader,
    estimate: u32,
    pieces: u32,
    /// The answer came to its end.
    whole: bool,
    _turn: OwnedSemaphorePermit,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let told = self.reader.told();
        let was_read = self.status.is_success();
        self.proxy.budget.end(Came { told, prompt_estimate: self.estimate, was_read, pieces: self.pieces });
        self.proxy.journal.add(&Line::Asked {
            at_ms: millis(self.began.duration_since(self.proxy.began)),
            ms: millis(self.began.elapsed()),
            method: method(self.door),
            path: self.door.path(),
            status: self.status.as_u16(),
            request: &self.request,
            answer: &self.answer.body(),
            prompt_tokens: told.map(|(prompt, _)| prompt),
            generated_tokens: told.map(|(_, generated)| generated),
            whole: self.whole,
        });
    }
}

impl Exchange {
    async fn ask(mut self, body: Option<Bytes>, agent: &HeaderMap) -> Result<Response<Answer>, Refused> {
        let upstream = Arc::clone(&self.proxy.upstream);
        let answer = upstream.ask(self.door, body, agent).await.map_err(|no_answer| {
            let why = match no_answer {
                NoAnswer::Unreachable => "the model can't be reached now",
                NoAnswer::Silent => "the model did not begin to answer in time",
            };
            Refused::new(StatusCode::BAD_GATEWAY, "api_error", why)
        })?;
        self.status = answer.status();
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let (streams, is_json) = (kind.starts_with("text/event-stream"), kind.starts_with("application/json"));
        let retry_after = answer.headers().get(RETRY_AFTER).filter(|_| !self.status.is_success()).cloned();
        let silence = upstream.options().silence;
        let pieces = answer.bytes_stream().map(|piece| piece.map_err(|_| BrokenOff));
        // Nothing that comes is waited for any longer than that.
        let pieces = stream::unfold(pieces.boxed(), move |mut pieces| async move {
            let piece = timeout(silence, pieces.next()).await.unwrap_or(Some(Err(BrokenOff)))?;
            Some((piece, pieces))
        });
        match self.status {
            status if status.is_success() && streams => Ok(self.stream(pieces.boxed())),
            status if status.is_success() && !is_json => {
                self.status = StatusCode::BAD_GATEWAY;
                Err(Refused::new(StatusCode::BAD_GATEWAY, "api_error", "the model's answer is of no known form"))
            }
            status if status.is_success() || !is_ours(status) => {
                self.whole(status, is_json, retry_after, pieces.boxed()).await
            }
            status => {
                tracing::error!(%status, "The external agent's endpoint does not do what it should: is its address right, and its key?");
                let why = "the model is out of order here; it is not your request that is wrong";
                Err(Refused::new(StatusCode::BAD_GATEWAY, "api_error", why))
            }
        }
    }

    /// Passes an answer on as it comes.
    fn stream(self, pieces: BoxStream<'static, Result<Bytes, BrokenOff>>) -> Response<Answer> {
        let passing = stream::unfold((self, pieces, false), |(mut exchange, mut pieces, over)| async move {
            if over {
                return None;
            }
            match pieces.next().await {
                Some(Ok(piece)) => {
                    let passed = exchange.pass(&piece);
                    Some((passed.map(|()| piece), (exchange, pieces, passed.is_err())))
                }
                Some(Err(broken)) => Some((Err(broken), (exchange, pieces, true))),
                None => {
                    exchange.ended_well();
                    None
                }
            }
        });
        let mut response = Response::new(Answer::stream(passing));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response
    }

    fn ended_well(&mut self) {
        self.whole = true;
    }

    /// Counts a piece; it is passed on only as long as there is a budget for it.
    fn pass(&mut self, piece: &[u8]) -> Result<(), BrokenOff> {
        let pieces = self.reader.pass(piece);
        self.pieces = self.pieces.saturating_add(pieces);
        self.answer.add(piece);
        self.proxy.budget.came(piece.len() as u64, pieces).map_err(|_| BrokenOff)
    }

    /// Passes an answer on once it is all there.
    async fn whole(
        mut self,
        status: StatusCode,
        is_json: bool,
        retry_after: Option<HeaderValue>,
        mut pieces: BoxStream<'static, Result<Bytes, BrokenOff>>,
    ) -> Result<Response<Answer>, Refused> {
        let broken = |why: &str| Refused::new(StatusCode::BAD_GATEWAY, "api_error", why);
        let mut body = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| broken("the model's answer broke off"))?;
            if body.len() + piece.len() > MOST_ANSWER {
                return Err(broken("the model's answer is too large"));
            }
            body.extend_from_slice(&piece);
        }
        if status.is_success() {
            self.reader.whole(&body);
        }
        let spent =
            |spent: super::budget::Spent| Refused::new(StatusCode::PAYMENT_REQUIRED, "budget_spent", spent.to_string());
        self.proxy.budget.came(body.len() as u64, 0).map_err(spent)?;
        if self.proxy.upstream.is_told_in(&body) {
            tracing::error!("The external agent's endpoint repeats its key in an answer; it was not passed on");
            return Err(broken("the model's answer can't be passed on"));
        }
        self.answer.add(&body);
        self.whole = true;
        if !is_json {
            let why = format!("the model's endpoint answers {}", status.as_u16());
            return Err(Refused::new(status, "api_error", why));
        }
        let mut response = json_response(status, body.into());
        if let Some(after) = retry_after.filter(is_short_number) {
            response.headers_mut().insert(RETRY_AFTER, after);
        }
        Ok(response)
    }
}

/// Whether a status says that what we do is wrong, not what the agent asked: it is told no more than that.
fn is_ours(status: StatusCode) -> bool {
    status.is_informational() || status.is_redirection() || matches!(status.as_u16(), 401 | 402 | 403 | 407)
}

fn is_short_number(value: &HeaderValue) -> bool {
    value.len() <= LONGEST_RETRY_AFTER && !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit)
}
