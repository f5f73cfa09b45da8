//! A real git server on loopback, over smart HTTP and git's own protocol, with repositories that tests make.
//!
//! What speaks is the `git` program; this only carries its words. Some addresses have manners of their own: below `/private/`
//! a password is asked for, `/moved/x` sends on to `/x`, and below `/old/` the older protocol is spoken.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{self, Body};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::require;
use crate::repository::CommitId;

/// Its name where it is required.
const NAME: &str = "git";

/// Bytes of a question at most.
const MAX_QUESTION: usize = 1024 * 1024;

/// A running server with repositories in a temporary folder.
#[derive(Debug)]
pub struct GitServer {
    place: Arc<Place>,
    http: SocketAddr,
    git: SocketAddr,
    _tasks: [AbortOnDropHandle<()>; 2],
}

#[derive(Debug)]
struct Place {
    folder: TempDir,
    /// Those that answer over git's own protocol.
    answering: Mutex<Vec<Child>>,
    /// How often anybody asked anything.
    asked: AtomicU32,
}

impl Drop for Place {
    fn drop(&mut self) {
        for child in self.answering.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // Both fail when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl GitServer {
    /// Starts one; `None` when there is no `git`, which is said.
    ///
    /// # Panics
    /// When there is none and there must be.
    pub async fn start() -> Option<Self> {
        if Command::new("git").arg("--version").stdout(Stdio::null()).status().is_err() {
            require::skip(NAME, "install git");
            return None;
        }
        let folder = tempfile::tempdir().expect("temporary files can be made");
        let place = Arc::new(Place { folder, answering: Mutex::default(), asked: AtomicU32::new(0) });
        let http = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let git = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let addresses = [&http, &git].map(|listener| listener.local_addr().expect("it is bound"));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&place));
        let serving = tokio::spawn(async move { axum::serve(http, router).await.expect("loopback answers") });
        let carrying = tokio::spawn(carry(git, Arc::clone(&place)));
        let [http, git] = addresses;
        Some(Self { place, http, git, _tasks: [serving, carrying].map(AbortOnDropHandle::new) })
    }

    /// A new repository without commits.
    pub fn repository(&self, name: &str) -> GitRepository {
        let folder = self.place.folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("temporary files can be made");
        let repository = GitRepository { folder };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// Where a repository is found over HTTP.
    pub fn http_url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.http)
    }

    /// Where a repository is found over git's own protocol.
    pub fn git_url(&self, name: &str) -> String {
        format!("git://{}/{name}", self.git)
    }

    /// How often anybody asked anything, whatever came of it.
    pub fn asked(&self) -> u32 {
        self.place.asked.load(Ordering::SeqCst)
    }
}

/// A repository of a test.
#[derive(Debug)]
pub struct GitRepository {
    folder: PathBuf,
}

impl GitRepository {
    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs `git` in it, and gives what it wrote.
    ///
    /// # Panics
    /// When it fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, b"")
    }

    /// Runs `git` in it with something to read.
    ///
    /// # Panics
    /// When it fails.
    pub fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = git(&self.folder);
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("git starts");
        child.stdin.take().expect("it is piped").write_all(input).expect("git reads");
        let output = child.wait_with_output().expect("git ends");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("git writes text").trim_end().to_owned()
    }

    /// Writes a file.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.folder.join(path);
        std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("temporary files can be made");
        std::fs::write(path, content).expect("temporary files can be written");
        self
    }

    /// Commits all that was written.
    pub fn commit(&self, message: &str) -> CommitId {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"]).parse().expect("git writes a commit's id")
    }

    /// Makes a commit of a tree that `git` itself would not make, and the branch `main` of it. Each entry is a mode, a name
    /// and an object's id.
    pub fn commit_entries(&self, entries: &[(&str, &[u8], &str)]) -> CommitId {
        let tree = self.tree(entries);
        let commit = self.git(&["commit-tree", &tree, "-m", "made by hand"]);
        self.git(&["update-ref", "refs/heads/main", &commit]);
        commit.parse().expect("git writes a commit's id")
    }

    /// Makes a tree that `git` itself would not make.
    pub fn tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut list = Vec::new();
        for (mode, name, id) in entries {
            list.extend_from_slice(mode.as_bytes());
            list.push(b' ');
            list.extend_from_slice(name);
            list.push(0);
            list.extend(hex::decode(id).expect("an id is hexadecimal"));
        }
        self.git_with(&["hash-object", "-t", "tree", "--literally", "-w", "--stdin"], &list)
    }

    /// Makes an object of a file's content.
    pub fn blob(&self, content: &[u8]) -> String {
        self.git_with(&["hash-object", "-w", "--stdin"], content)
    }
}

/// `git` without anybody's configuration, in that folder.
fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GIT_") {
            command.env_remove(name);
        }
    }
    command.envs([
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "Ann"),
        ("GIT_AUTHOR_EMAIL", "ann@example.com"),
        ("GIT_AUTHOR_DATE", "2026-01-02T03:04:05Z"),
        ("GIT_COMMITTER_NAME", "Ann"),
        ("GIT_COMMITTER_EMAIL", "ann@example.com"),
        ("GIT_COMMITTER_DATE", "2026-01-02T03:04:05Z"),
    ]);
    command
}

/// Hands each connection to a `git daemon` of its own.
async fn carry(listener: TcpListener, place: Arc<Place>) {
    loop {
        let (stream, _) = listener.accept().await.expect("loopback answers");
        place.asked.fetch_add(1, Ordering::SeqCst);
        let stream = stream.into_std().expect("the stream was only just accepted");
        stream.set_nonblocking(false).expect("a socket can wait");
        let reply = stream.try_clone().expect("a socket can be shared");
        let folder = place.folder.path();
        let base = format!("--base-path={}", folder.display());
        let child = git(folder)
            .args(["daemon", "--inetd", "--export-all", "--log-destination=none", &base])
            .stdin(Stdio::from(OwnedFd::from(stream)))
            .stdout(Stdio::from(OwnedFd::from(reply)))
            .stderr(Stdio::null())
            .spawn()
            .expect("git starts");
        let mut answering = place.answering.lock().unwrap_or_else(PoisonError::into_inner);
        answering.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        answering.push(child);
    }
}

async fn answer(State(place): State<Arc<Place>>, request: Request) -> Response<Body> {
    place.asked.fetch_add(1, Ordering::SeqCst);
    let (parts, question) = request.into_parts();
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    if path.starts_with("/private/") {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")]).into_response();
    }
    if let Some(moved) = path.strip_prefix("/moved/") {
        return (StatusCode::FOUND, [(header::LOCATION, format!("/{moved}?{query}"))]).into_response();
    }
    let (path, is_old) = match path.strip_prefix("/old/") {
        Some(path) => (format!("/{path}"), true),
        None => (path.to_owned(), false),
    };
    let Ok(question) = body::to_bytes(question, MAX_QUESTION).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let text = |name: &str, headers: &HeaderMap| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let mut environment = HashMap::from([
        ("GIT_PROJECT_ROOT", place.folder.path().display().to_string()),
        ("GIT_HTTP_EXPORT_ALL", "1".to_owned()),
        ("PATH_INFO", path),
        ("QUERY_STRING", query.to_owned()),
        ("REQUEST_METHOD", parts.method.to_string()),
        ("CONTENT_TYPE", text("content-type", &parts.headers)),
        ("REMOTE_ADDR", "127.0.0.1".to_owned()),
    ]);
    if !is_old {
        environment.insert("GIT_PROTOCOL", text("git-protocol", &parts.headers));
    }
    let mut command = git(place.folder.path());
    command.arg("http-backend").envs(environment);
    let written = tokio::task::spawn_blocking(move || {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("git starts");
        // It may not want to read all of it.
        let _ = child.stdin.take().expect("it is piped").write_all(&question);
        child.wait_with_output().expect("git ends").stdout
    });
    response(&written.await.expect("the thread ends"))
}

/// What a CGI program wrote: headers, an empty line, the body.
fn response(written: &[u8]) -> Response<Body> {
    let end = written.windows(4).position(|window| window == b"\r\n\r\n").expect("git writes headers");
    let head = std::str::from_utf8(&written[..end]).expect("headers are text");
    let mut response = Response::builder();
    for line in head.lines() {
        let (name, value) = line.split_once(": ").expect("a header has a value");
        response = match name {
            "Status" => response.status(value.split(' ').next().expect("a status is a number")),
            _ => response.header(name, value),
        };
    }
    response.body(Body::from(written[end + 4..].to_vec())).expect("git writes headers")
}
