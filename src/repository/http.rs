//! HTTP for git: every hop is looked up once and goes to public addresses only, without cookies, proxies or passwords.

use std::any::Any;
use std::io::{self, BufRead, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gix_transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use url::{Host, Url};

use super::RepositoryError;
use super::remote::Rules;
use super::watch::Watch;
use crate::fetch::address;

/// Redirects followed.
const MAX_REDIRECTS: usize = 3;

/// Who we say we are. Some hosts show a web page to whoever does not begin like this.
const USER_AGENT: &str = concat!("git/2.0 (coinop ", env!("CARGO_PKG_VERSION"), ")");

/// A result as the library wants it.
type Outcome<T> = gix::error::Result<T>;

/// Asks one repository's server.
#[derive(Debug)]
pub(super) struct PinnedHttp {
    asker: Asker,
    /// Where the repository has moved to.
    moved: Option<String>,
}

#[derive(Debug, Clone)]
struct Asker {
    watch: Arc<Watch>,
    rules: Rules,
}

impl PinnedHttp {
    /// Under a watch. The process must have a default rustls provider (`main` installs it).
    pub(super) fn new(watch: Arc<Watch>, rules: Rules) -> Self {
        Self { asker: Asker { watch, rules }, moved: None }
    }

    /// Asks, and follows where the repository has moved to: everything before what git appends.
    fn get_and_follow(&mut self, url: &str, tail: &str, headers: &HeaderMap) -> Result<Response, RepositoryError> {
        let mut at = Url::parse(url).map_err(|_| RepositoryError::BadUrl)?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.asker.ask(Method::GET, &at, headers.clone(), Vec::new())?;
            if !response.status().is_redirection() {
                return answered(response);
            }
            let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = target.and_then(|target| at.join(target).ok()).ok_or(RepositoryError::Unreachable)?;
            if at.scheme() == "https" && next.scheme() != "https" {
                return Err(RepositoryError::NotPublic);
            }
            let base = next.as_str().strip_suffix(tail).ok_or(RepositoryError::NotFound)?;
            self.moved = Some(base.to_owned());
            at = next;
        }
        Err(RepositoryError::Unreachable)
    }
}

impl Asker {
    /// Asks one server. A client a hop, because the pinned addresses belong to the client.
    fn ask(&self, method: Method, url: &Url, headers: HeaderMap, body: Vec<u8>) -> Result<Response, RepositoryError> {
        if !(url.scheme() == "https" || url.scheme() == "http" && self.rules.plain_http) {
            return Err(RepositoryError::NotPublic);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RepositoryError::NotFound);
        }
        let addresses = self.watch.wait(address::resolve_by(url, self.rules.may_connect))??;
        let mut builder =
            Client::builder().no_proxy().redirect(Policy::none()).pool_max_idle_per_host(0).user_agent(USER_AGENT);
        if let Some(Host::Domain(name)) = url.host() {
            builder = builder.resolve_to_addrs(name, &addresses);
        }
        let client = builder.build().map_err(|_| RepositoryError::Unreachable)?;
        let request = client.request(method, url.clone()).headers(headers).body(body);
        self.watch.wait(request.send())?.map_err(|_| RepositoryError::Unreachable)
    }
}

/// What came, when the server said yes.
fn answered(response: Response) -> Result<Response, RepositoryError> {
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => {
            Err(RepositoryError::NotFound)
        }
        _ => Err(RepositoryError::Unreachable),
    }
}

/// The library's `Name: value` lines, without those that we write ourselves.
fn header_map(lines: impl IntoIterator<Item = impl AsRef<str>>) -> HeaderMap {
    let pairs = lines.into_iter().filter_map(|line| {
        let (name, value) = line.as_ref().split_once(':')?;
        let name = name.trim().parse::<HeaderName>().ok()?;
        let ours = name == reqwest::header::USER_AGENT || name == reqwest::header::AUTHORIZATION;
        (!ours).then_some((name, HeaderValue::from_str(value.trim()).ok()?))
    });
    pairs.collect()
}

impl Http for PinnedHttp {
    type Headers = Head;
    type ResponseBody = Body;
    type PostBody = Question;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Outcome<GetResponse<Head, Body>> {
        // The base may end in the slash that stands between the two.
        let tail = url.strip_prefix(base_url.trim_end_matches('/')).unwrap_or(url).to_owned();
        let response = self
            .get_and_follow(url, &tail, &header_map(headers))
            .map_err(|cause| gix::error::Error::from_error(self.asker.watch.end(cause)))?;
        let exchange = Call::new(&self.asker.watch, Exchange::Answered(response));
        Ok(GetResponse { headers: Head::of(&exchange), body: Body::of(&exchange) })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _kind: PostBodyDataKind,
    ) -> Outcome<PostResponse<Head, Body, Question>> {
        let url = Url::parse(url)
            .map_err(|_| gix::error::Error::from_error(self.asker.watch.end(RepositoryError::BadUrl)))?;
        let headers = header_map(headers);
        let asked = Exchange::Open { asker: self.asker.clone(), url, headers, question: Vec::new() };
        let exchange = Call::new(&self.asker.watch, asked);
        Ok(PostResponse {
            post_body: Question(exchange.clone()),
            headers: Head::of(&exchange),
            body: Body::of(&exchange),
        })
    }

    fn configure(&mut self, _config: &dyn Any) -> Outcome<()> {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.moved.clone()
    }
}

/// A question and its answer. What is posted is small (which objects are wanted), so it is collected first and sent when
/// somebody reads.
enum Exchange {
    Open { asker: Asker, url: Url, headers: HeaderMap, question: Vec<u8> },
    Answered(Response),
    Over,
}

#[derive(Clone)]
struct Call {
    watch: Arc<Watch>,
    exchange: Arc<Mutex<Exchange>>,
}

impl Call {
    fn new(watch: &Arc<Watch>, exchange: Exchange) -> Self {
        Self { watch: Arc::clone(watch), exchange: Arc::new(Mutex::new(exchange)) }
    }

    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what is still to be sent.
    fn ask<'a>(&self, exchange: &'a mut Exchange) -> Result<Option<&'a mut Response>, RepositoryError> {
        if let Exchange::Open { .. } = exchange {
            let Exchange::Open { asker, url, headers, question } = std::mem::replace(exchange, Exchange::Over) else {
                return Ok(None);
            };
            // A redirect here would make us send the question elsewhere: git does not follow it either.
            *exchange = Exchange::Answered(answered(asker.ask(Method::POST, &url, headers, question)?)?);
        }
        match exchange {
            Exchange::Answered(response) => Ok(Some(response)),
            Exchange::Open { .. } | Exchange::Over => Ok(None),
        }
    }

    fn content_type(&self) -> Result<String, RepositoryError> {
        let mut exchange = self.exchange();
        let response = self.ask(&mut exchange)?;
        let value = response.and_then(|response| response.headers().get(CONTENT_TYPE)?.to_str().ok());
        Ok(format!("{CONTENT_TYPE}: {}\n", value.unwrap_or_default()))
    }

    fn chunk(&self) -> Result<Bytes, RepositoryError> {
        let mut exchange = self.exchange();
        loop {
            let Some(response) = self.ask(&mut exchange)? else { return Ok(Bytes::new()) };
            match self.watch.wait(response.chunk())?.map_err(|_| RepositoryError::Unreachable)? {
                Some(chunk) if chunk.is_empty() => {}
                Some(chunk) => return self.watch.count(chunk.len()).map(|()| chunk),
                None => *exchange = Exchange::Over,
            }
        }
    }
}

/// The answer's headers, as far as they matter: what it is.
pub(super) struct Head {
    call: Call,
    line: Option<io::Cursor<String>>,
}

impl Head {
    fn of(exchange: &Call) -> Self {
        Self { call: exchange.clone(), line: None }
    }

    fn line(&mut self) -> io::Result<&mut io::Cursor<String>> {
        if self.line.is_none() {
            let line = self.call.content_type().map_err(|cause| self.call.watch.end(cause))?;
            self.line = Some(io::Cursor::new(line));
        }
        Ok(self.line.as_mut().expect("it was just set"))
    }
}

impl Read for Head {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.line()?.read(buffer)
    }
}

impl BufRead for Head {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.line()?.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        if let Some(line) = &mut self.line {
            line.consume(bytes);
        }
    }
}

/// The answer.
pub(super) struct Body {
    call: Call,
    chunk: Bytes,
}

impl Body {
    fn of(exchange: &Call) -> Self {
        Self { call: exchange.clone(), chunk: Bytes::new() }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty() {
            self.chunk = self.call.chunk().map_err(|cause| self.call.watch.end(cause))?;
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, bytes: usize) {
        let _ = self.chunk.split_to(bytes.min(self.chunk.len()));
    }
}

/// What is posted.
pub(super) struct Question(Call);

impl Write for Question {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut *self.0.exchange() {
            Exchange::Open { question, .. } => question.extend_from_slice(buffer),
            Exchange::Answered(_) | Exchange::Over => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
