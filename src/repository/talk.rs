//! A conversation with a repository's server: what references it has, and the objects of one commit.
//!
//! Whatever the server says is counted and timed by the [`Watch`] below the library that reads it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use gix::bstr::{BString, ByteSlice};
use gix::hash::ObjectId;
use gix::progress::Discard;
use gix::protocol::fetch::{Arguments, Response};
use gix::protocol::handshake::Ref;
use gix::protocol::ls_refs::RefPrefixes;
use gix::protocol::{Command, Handshake, LsRefsCommand};
use gix_transport::client::blocking_io::Transport;
use gix_transport::client::blocking_io::http::Transport as HttpTransport;
use gix_transport::packetline::read::Error as SaidError;
use gix_transport::{Protocol, Service};

use super::http::PinnedHttp;
use super::remote::{Remote, Rules};
use super::watch::Watch;
use super::{CommitId, RepositoryError, daemon};

/// Who we say we are, inside the protocol.
const AGENT: &str = concat!("git/coinop-", env!("CARGO_PKG_VERSION"));

/// How a line of the protocol begins that says no.
const REFUSAL: &[u8] = b"ERR ";

/// What we do not want though a server has it. The first would put progress between everything; the second, in the older
/// protocol, has a server count the depth from nothing and send all of the history.
const UNWANTED: [&str; 2] = ["sideband-all", "deepen-relative"];

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// A conversation.
pub(super) struct Talk {
    transport: Box<dyn Transport>,
    greeting: Handshake,
    watch: Arc<Watch>,
}

/// Where in a conversation something went wrong.
#[derive(Clone, Copy)]
enum At {
    Greeting,
    References,
    Objects,
}

impl Talk {
    /// Connects and exchanges greetings.
    pub(super) fn begin(remote: &Remote, rules: Rules, watch: Arc<Watch>) -> Result<Self, RepositoryError> {
        let mut transport: Box<dyn Transport> = match remote {
            Remote::Http(url) => {
                let url = gix::url::parse(url.as_str()).map_err(|_| RepositoryError::BadUrl)?;
                let http = PinnedHttp::new(Arc::clone(&watch), rules);
                Box::new(HttpTransport::new_http(http, url, Protocol::V2, false))
            }
            Remote::Git { host, path } => daemon::connect(&watch, host, path, rules)?,
        };
        // Nobody is ever asked for a password: there is none.
        let greeting =
            gix::protocol::handshake(&mut transport, Service::UploadPack, |_| Ok(None), Vec::new(), &mut Discard)
                .map_err(|error| reason(&watch, &error, At::Greeting))?;
        let names = greeting.capabilities.capability("object-format").and_then(|format| format.value());
        if names.is_some_and(|names| names != "sha1") {
            return Err(RepositoryError::broken("it names its objects by SHA-256, which is not supported"));
        }
        Ok(Self { transport, greeting, watch })
    }

    /// The references that begin with one of these.
    pub(super) fn references(&mut self, beginnings: &[String]) -> Result<Vec<Ref>, RepositoryError> {
        let listed = match &self.greeting.refs {
            // Servers of the older protocol list all of them in their greeting.
            Some(all) => all.clone(),
            None => {
                let mut prefixes = RefPrefixes::new();
                prefixes.extend(beginnings.iter().map(|beginning| BString::from(beginning.as_str())));
                let agent = ("agent", Some(AGENT.to_owned()));
                LsRefsCommand::new(Some(prefixes), &self.greeting.capabilities, agent)
                    .invoke_blocking(&mut self.transport, &mut Discard, false)
                    .map_err(|error| reason(&self.watch, &error, At::References))?
            }
        };
        let wanted = |listed: &Ref| beginnings.iter().any(|beginning| listed.unpack().0.starts_with_str(beginning));
        Ok(listed.into_iter().filter(wanted).collect())
    }

    /// Whether the server would give this commit. Its objects are not waited for.
    pub(super) fn offers(&mut self, commit: &CommitId) -> Result<(), RepositoryError> {
        self.ask_for(commit, true).map(drop)
    }

    /// Writes the objects of this commit alone, as a pack.
    pub(super) fn receive(&mut self, commit: &CommitId, pack: &mut File) -> Result<(), RepositoryError> {
        let watch = Arc::clone(&self.watch);
        let mut reader = self.ask_for(commit, false)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(read) => pack.write_all(&chunk[..read]).map_err(RepositoryError::Disk)?,
                Err(_) => return Err(watch.cause().unwrap_or(RepositoryError::Unreachable)),
            }
        }
    }

    fn ask_for(&mut self, commit: &CommitId, only_whether: bool) -> Result<impl Read, RepositoryError> {
        let version = self.greeting.server_protocol_version;
        let watch = Arc::clone(&self.watch);
        let failed = |error: gix::Error| reason(&watch, &error, At::Objects);
        let mut features = Command::Fetch.default_features(version, &self.greeting.capabilities);
        features.retain(|(name, _)| !UNWANTED.contains(name));
        features.push(("agent", Some(AGENT.to_owned())));
        Response::check_required_features(version, &features).map_err(failed)?;
        let mut wanted = Arguments::new(version, features, false);
        if !wanted.can_use_shallow() {
            return Err(RepositoryError::broken("its server can't give one commit without all before it"));
        }
        wanted.want(ObjectId::from_hex(commit.as_str().as_bytes()).expect("a commit id is 40 hexadecimal digits"));
        wanted.deepen(1);
        if only_whether && wanted.can_use_filter() {
            wanted.filter("tree:0");
        }
        let mut reader = wanted.send(&mut self.transport, true).map_err(|error| failed(error.into()))?;
        // What is said first may be a no; over HTTP the library takes it for an answer.
        match reader.peek_data_line() {
            Some(Ok(Ok(line))) if line.starts_with(REFUSAL) => return Err(RepositoryError::CommitRefused),
            Some(Err(error)) => return Err(failed(gix::Error::from_error(error))),
            Some(Ok(_)) | None => {}
        }
        let answer = Response::from_line_reader(version, &mut reader, true, false).map_err(failed)?;
        if !answer.has_pack() {
            return Err(RepositoryError::CommitRefused);
        }
        // From here on the pack is mixed with the server's progress, which nobody reads, and perhaps an error.
        reader.set_progress_handler(Some(Box::new(|is_error, _| {
            if is_error { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
        })));
        Ok(reader)
    }
}

/// Why a conversation failed, in our words: never by the text of the library's or the server's.
fn reason(watch: &Watch, error: &gix::Error, at: At) -> RepositoryError {
    if let Some(cause) = watch.cause() {
        return cause;
    }
    let io = || error.iter_errors().filter_map(|error| error.downcast_ref::<io::Error>());
    let refused = error.downcast_any_ref::<SaidError>().is_some()
        || io().any(|error| error.get_ref().is_some_and(|inner| inner.is::<SaidError>()));
    match at {
        At::Greeting if refused => RepositoryError::NotFound,
        At::Objects if refused => RepositoryError::CommitRefused,
        _ if io().any(|error| error.kind() == io::ErrorKind::UnexpectedEof) => RepositoryError::Unreachable,
        _ => RepositoryError::broken("no server answers there that speaks git's protocol as it should"),
    }
}
