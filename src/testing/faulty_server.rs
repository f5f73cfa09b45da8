//! A server that stands in front of a good one and spoils what it says, byte by byte: what no HTTP library would send.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

/// Where an answer is asked for: its path ends so, whatever the interface.
const ANSWERS: &[&str] = &["/chat/completions", "/completions", "/completion", "/api/chat", "/api/generate"];
/// Between two bytes of a server that trickles.
const TRICKLE: Duration = Duration::from_millis(20);

/// What a request meets instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 503, as while a model is loaded.
    Loading,
    /// The connection is closed without a word.
    Closes,
    /// What comes is no HTTP.
    NotHttp,
    /// 200, and what comes is of no use.
    NoUse,
    /// 200, and one line without an end.
    Endless,
    /// 200, and now and then a byte.
    Trickle,
    /// Go there instead.
    Elsewhere(Url),
}

impl Fault {
    /// Every kind of fault; `elsewhere` is where clients are sent that follow.
    pub fn all(elsewhere: Url) -> Vec<Self> {
        let redirect = Self::Elsewhere(elsewhere);
        vec![Self::Loading, Self::Closes, Self::NotHttp, Self::NoUse, Self::Endless, Self::Trickle, redirect]
    }
}

/// How an answer ends that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The connection is closed.
    Closes,
    /// Something else comes.
    Garbage,
    /// One line without an end comes.
    Endless,
    /// Now and then a byte comes.
    Trickle,
}

impl Break {
    /// Every kind of break.
    pub const ALL: [Self; 4] = [Self::Closes, Self::Garbage, Self::Endless, Self::Trickle];
}

/// What is wrong with the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mood {
    /// Nothing.
    Good,
    /// Every request meets this.
    Everywhere(Fault),
    /// Requests for an answer meet this, others do not.
    Answers(Fault),
    /// Answers break off after so many hundredths of their bytes.
    Breaks {
        /// How many.
        after_percent: usize,
        /// How.
        how: Break,
    },
}

/// Answers a request, given its path, with the bytes of a whole HTTP response.
type Script = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<u8>>> + Send + Sync>;

/// A running server.
#[derive(Debug)]
pub struct FaultyServer {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    asked: watch::Sender<Vec<String>>,
    heard: watch::Sender<Vec<Vec<u8>>>,
    _task: AbortOnDropHandle<()>,
}

/// What a connection needs to know.
#[derive(Clone)]
struct Front {
    behind: Behind,
    mood: watch::Receiver<Mood>,
    asked: watch::Sender<Vec<String>>,
    heard: watch::Sender<Vec<Vec<u8>>>,
}

#[derive(Clone)]
enum Behind {
    Server(SocketAddr),
    Script(Script),
}

impl FaultyServer {
    /// In front of the good server at `good`.
    ///
    /// # Errors
    /// When there is no port to listen on.
    ///
    /// # Panics
    /// When `good` is no address of a socket.
    pub async fn before(good: &Url) -> io::Result<Self> {
        let good = good.socket_addrs(|| None)?;
        Self::start(Behind::Server(good[0])).await
    }

    /// A good server that answers from a script: the path of a request in, the body of the answer out (or all of
    /// the answer, when it begins with `HTTP/`); `None` is 404.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn scripted(script: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> io::Result<Self> {
        let script = Arc::new(script);
        Self::start(Behind::Script(Arc::new(move |path| {
            let answer = match script(&path) {
                Some(whole) if whole.starts_with("HTTP/") => whole,
                Some(body) => format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{body}"),
                None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            Box::pin(async move { Ok(answer.into_bytes()) })
        })))
        .await
    }

    async fn start(behind: Behind) -> io::Result<Self> {
        crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mood = watch::Sender::new(Mood::Good);
        let (asked, heard) = (watch::Sender::new(Vec::new()), watch::Sender::new(Vec::new()));
        let front = Front { behind, mood: mood.subscribe(), asked: asked.clone(), heard: heard.clone() };
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let front = front.clone();
                connections.spawn(async move {
                    // A client may leave at any time.
                    let _ = front.serve(stream).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, mood, asked, heard, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Never: a socket address makes a URL.
    pub fn url(&self) -> Url {
        format!("http://{}/", self.address).parse().expect("a socket address makes a URL")
    }

    /// What is wrong from now on.
    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// The paths that were asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    /// The requests as they came, head and body, in order.
    pub fn heard(&self) -> Vec<String> {
        self.heard.borrow().iter().map(|request| String::from_utf8_lossy(request).into_owned()).collect()
    }

    /// How often an answer was asked for.
    pub fn answers_asked(&self) -> usize {
        self.asked.borrow().iter().filter(|path| is_answer(path)).count()
    }
}

/// HTTP clients, also ones that never speak TLS, want the process to have chosen its cryptography. It may have already.
pub(super) fn crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn is_answer(path: &str) -> bool {
    ANSWERS.iter().any(|ending| path.ends_with(ending))
}

impl Front {
    /// One request a connection, which is then closed.
    async fn serve(self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let request = read_request(&mut stream).await?;
        let path = path_of(&request);
        self.heard.send_modify(|heard| heard.push(request.clone()));
        self.asked.send_modify(|asked| asked.push(path.clone()));
        let mood = self.mood.borrow().clone();
        match mood {
            Mood::Everywhere(fault) => meet(&mut stream, fault).await,
            Mood::Answers(fault) if is_answer(&path) => meet(&mut stream, fault).await,
            Mood::Breaks { after_percent, how } if is_answer(&path) => {
                let answer = self.answer(&request, path).await?;
                let head = position(&answer, b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
                let body = (answer.len() - head) * after_percent / 100;
                stream.write_all(&answer[..head + body]).await?;
                break_off(&mut stream, how).await
            }
            _ => {
                let answer = self.answer(&request, path).await?;
                stream.write_all(&answer).await?;
                stream.shutdown().await
            }
        }
    }

    /// The good answer, whole.
    async fn answer(&self, request: &[u8], path: String) -> io::Result<Vec<u8>> {
        let good = match &self.behind {
            Behind::Script(script) => return script(path).await,
            Behind::Server(good) => good,
        };
        // As of the version before: the answer is not cut into chunks, and ends with the connection. So it can be broken
        // off without a trace in the framing.
        let line = position(request, b"\r\n").unwrap_or(0);
        let (line, rest) = request.split_at(line);
        let line = String::from_utf8_lossy(line).replace("HTTP/1.1", "HTTP/1.0");
        let mut stream = TcpStream::connect(good).await?;
        stream.write_all(line.as_bytes()).await?;
        stream.write_all(rest).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

async fn meet(stream: &mut TcpStream, fault: Fault) -> io::Result<()> {
    match fault {
        Fault::Loading => {
            let body = r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#;
            let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n";
            let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await
        }
        Fault::Closes => stream.shutdown().await,
        Fault::NotHttp => {
            stream.write_all(b"\x16\x03\x01\x00\xff what do you want?\r\n\r\n").await?;
            stream.shutdown().await
        }
        Fault::NoUse => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n<html>It works!\xff\xfe\x00</html>\n\n").await?;
            stream.shutdown().await
        }
        Fault::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            break_off(stream, Break::Endless).await
        }
        Fault::Trickle => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            break_off(stream, Break::Trickle).await
        }
        Fault::Elsewhere(url) => {
            let answer = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await
        }
    }
}

async fn break_off(stream: &mut TcpStream, how: Break) -> io::Result<()> {
    match how {
        Break::Closes => stream.shutdown().await,
        Break::Garbage => {
            stream.write_all(b"\ndata: <html>\xc3\x28\n\n{]\n\n").await?;
            stream.shutdown().await
        }
        Break::Endless => loop {
            stream.write_all(&[b'x'; 4_096]).await?;
        },
        Break::Trickle => loop {
            stream.write_all(b"x").await?;
            tokio::time::sleep(TRICKLE).await;
        },
    }
}

/// A whole request, head and body.
async fn read_request(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut size = None;
    loop {
        if size.is_none()
            && let Some(head) = position(&request, b"\r\n\r\n")
        {
            size = Some(head + 4 + content_length(&request[..head]));
        }
        if size.is_some_and(|size| request.len() >= size) {
            return Ok(request);
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn path_of(request: &[u8]) -> String {
    let line = String::from_utf8_lossy(&request[..position(request, b"\r\n").unwrap_or(0)]).into_owned();
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
