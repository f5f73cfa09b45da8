//! Several engines, engines that go and come back, and engines over TCP: the real one behind doors that a test can close.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bollard::query_parameters::RemoveImageOptions;
use futures::FutureExt;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::testing::engine;

/// What a door does to what is said behind it.
#[derive(Debug, Clone, Copy)]
enum Lie {
    /// It repeats everything.
    None,
    /// It says one thing of the same length for another.
    Swap(&'static str, &'static str),
    /// It keeps a question with these words in it to itself.
    Swallow(&'static str),
}

/// A port at loopback with the engine behind it, until it is dropped.
struct Door {
    address: String,
    guests: Arc<AtomicUsize>,
    _porter: AbortOnDropHandle<()>,
}

impl Door {
    async fn open(lie: Lie, tls: Option<ServerConfig>) -> Self {
        Self::open_at("127.0.0.1:0", lie, tls).await
    }

    async fn open_at(address: &str, lie: Lie, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        let guests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&guests);
        let porter = tokio::spawn(async move {
            let mut inside = JoinSet::new();
            while let Ok((guest, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let acceptor = acceptor.clone();
                inside.spawn(async move {
                    match acceptor {
                        Some(acceptor) => {
                            if let Ok(guest) = acceptor.accept(guest).await {
                                show_in(guest, lie).await;
                            }
                        }
                        None => show_in(guest, lie).await,
                    }
                });
            }
        });
        Self { address, guests, _porter: AbortOnDropHandle::new(porter) }
    }

    fn guests(&self) -> usize {
        self.guests.load(Ordering::SeqCst)
    }
}

async fn show_in(guest: impl AsyncRead + AsyncWrite, lie: Lie) {
    let Ok(engine) = UnixStream::connect(HostAddress::DEFAULT_SOCKET).await else { return };
    let (mut from_guest, mut to_guest) = tokio::io::split(guest);
    let (mut from_engine, mut to_engine) = engine.into_split();
    let asking = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_guest.read(&mut buffer).await {
            let asked = &buffer[..read];
            if let Lie::Swallow(words) = lie
                && asked.windows(words.len()).any(|bytes| bytes == words.as_bytes())
            {
                continue;
            }
            if to_engine.write_all(asked).await.is_err() {
                return;
            }
        }
        let _ = to_engine.shutdown().await;
    };
    let answering = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_engine.read(&mut buffer).await {
            let mut said = buffer[..read].to_vec();
            if let Lie::Swap(truth, lie) = lie {
                while let Some(at) = said.windows(truth.len()).position(|bytes| bytes == truth.as_bytes()) {
                    said[at..at + lie.len()].copy_from_slice(lie.as_bytes());
                }
            }
            if to_guest.write_all(&said).await.is_err() {
                return;
            }
        }
        let _ = to_guest.shutdown().await;
    };
    tokio::join!(asking, answering);
}

/// Hosts behind doors, one place each.
async fn behind(doors: &[&Door], runtime: Runtime) -> Option<Hosts> {
    let addresses = doors.iter().map(|door| HostAddress::parse(&format!("tcp://{}", door.address), None).unwrap());
    at(addresses, runtime).await
}

async fn at(addresses: impl Iterator<Item = HostAddress>, runtime: Runtime) -> Option<Hosts> {
    let instance = format!("doors-{:016x}", rand::random::<u64>());
    let mut settings = engine::settings(&instance, runtime).await?;
    let one = settings.hosts.remove(0);
    let host = |(number, address)| HostSettings { name: format!("host {number}"), address, slots: 1, ..one.clone() };
    settings.hosts = addresses.enumerate().map(host).collect();
    Some(Hosts::new(settings))
}

async fn works(hosts: &Hosts, runtime: Runtime) -> bool {
    let cancel = CancellationToken::new();
    let Ok(cell) = hosts.open(&engine::cell("does it work", runtime), &cancel).await else { return false };
    let timeout = Duration::from_secs(60);
    let command = Command { shell: "echo yes".into(), workdir: None, env: Vec::new(), timeout, keep_bytes: 100 };
    let said = cell.run(&command, &cancel).await.map(|ran| ran.stdout.text);
    cell.close().await;
    said.is_ok_and(|said| said == "yes\n")
}

#[tokio::test]
async fn cells_are_spread_over_the_engines_and_the_next_waits() {
    if engine::engine().await.is_none() {
        return;
    }
    let doors = [Door::open(Lie::None, None).await, Door::open(Lie::None, None).await];
    let Some(hosts) = behind(&[&doors[0], &doors[1]], Runtime::Runc).await else { return };
    hosts.images(Runtime::Runc).await.unwrap();
    assert_eq!(hosts.room(Runtime::Runc), 2);
    let before = [doors[0].guests(), doors[1].guests()];
    let cancel = CancellationToken::new();
    let spec = engine::cell("spread", Runtime::Runc);
    let first = hosts.open(&spec, &cancel).await.unwrap();
    let second = hosts.open(&spec, &cancel).await.unwrap();
    assert!(doors[0].guests() > before[0] && doors[1].guests() > before[1], "each has one");
    let mut third = Box::pin(hosts.open(&spec, &cancel));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut third).await.is_err(), "there is no room");
    let mut gives_up = Box::pin(hosts.open(&spec, &cancel));
    assert!((&mut gives_up).now_or_never().is_none());
    drop(gives_up);
    first.close().await;
    let third = third.await.expect("a place is free");
    let waiting = CancellationToken::new();
    let (fourth, ()) = tokio::join!(hosts.open(&spec, &waiting), async { waiting.cancel() });
    assert!(matches!(fourth, Err(SandboxError::Cancelled)), "who waits can be cancelled");
    second.close().await;
    third.close().await;
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_left_out_until_it_does() {
    if engine::engine().await.is_none() {
        return;
    }
    let (stays, goes) = (Door::open(Lie::None, None).await, Door::open(Lie::None, None).await);
    let Some(hosts) = behind(&[&goes, &stays], Runtime::Runc).await else { return };
    assert!(works(&hosts, Runtime::Runc).await);
    let address = goes.address.clone();
    drop(goes);
    // Found out by whoever is sent there first; it is sent to the other instead.
    assert!(works(&hosts, Runtime::Runc).await);
    hosts.report().await;
    assert_eq!(hosts.room(Runtime::Runc), 1);
    let back = Door::open_at(&address, Lie::None, None).await;
    let report = hosts.report().await;
    assert!(report.iter().all(|host| host.runtimes.iter().all(|(_, proof)| proof.holds())), "{report:?}");
    assert_eq!(hosts.room(Runtime::Runc), 2);
    assert!(back.guests() > 0, "it is proven again");
}

#[tokio::test]
async fn without_an_engine_nothing_is_offered() {
    let nowhere = HostAddress::Unix("/nowhere/docker.sock".into());
    let closed = HostAddress::Loopback("127.0.0.1:1".into());
    let host = |(number, address): (usize, HostAddress)| HostSettings {
        name: format!("host {number}"),
        address,
        runtimes: Runtime::ALL.into(),
        slots: 1,
        memory_mib: None,
    };
    let settings = SandboxSettings {
        instance: "nobody".into(),
        hosts: [nowhere, closed].into_iter().enumerate().map(host).collect(),
        images: vec![ImageSettings { name: engine::IMAGE.into(), reference: engine::REFERENCE.into() }],
    };
    let hosts = Hosts::new(settings);
    for runtime in Runtime::ALL {
        assert_eq!(hosts.images(runtime).await.unwrap(), []);
        let opened = hosts.open(&engine::cell("nowhere", runtime), &CancellationToken::new()).await;
        assert!(matches!(opened, Err(SandboxError::NoRuntime(_))));
    }
    assert!(hosts.report().await.iter().all(|host| host.engine.is_err()));
    assert_eq!(hosts.sweep_all().await, docker::Swept { unseen: 2, ..docker::Swept::default() });
    hosts.shut_down().await;
}

#[tokio::test]
async fn a_runtime_that_the_engine_does_not_have_is_not_offered() {
    if engine::engine().await.is_none() {
        return;
    }
    let door = Door::open(Lie::Swap("\"runsc\"", "\"nosuc\""), None).await;
    let address = HostAddress::parse(&format!("tcp://{}", door.address), None).unwrap();
    let mut settings = engine::settings("no such runtime", Runtime::Runc).await.unwrap();
    settings.hosts[0].address = address;
    settings.hosts[0].runtimes = Runtime::ALL.into();
    let hosts = Hosts::new(settings);
    assert_eq!(hosts.images(Runtime::Runsc).await.unwrap(), []);
    assert_eq!(hosts.room(Runtime::Runsc), 0);
    assert!(!hosts.images(Runtime::Runc).await.unwrap().is_empty(), "the other is");
    let opened = hosts.open(&engine::cell("closed", Runtime::Runsc), &CancellationToken::new()).await;
    assert!(matches!(opened, Err(SandboxError::NoRuntime(Runtime::Runsc))));
    let report = hosts.report().await;
    let proof = report[0].runtimes.iter().find(|(runtime, _)| *runtime == Runtime::Runsc).unwrap();
    assert_eq!(proof.1.failures, ["the engine knows no runtime runsc"]);
}

#[tokio::test]
async fn a_start_that_hangs_is_given_up_and_leaves_nothing() {
    let Some((_, real)) = engine::engine().await else { return };
    let door = Door::open(Lie::Swallow("/start HTTP"), None).await;
    let instance = format!("hangs-{:016x}", rand::random::<u64>());
    let mut settings = engine::settings(&instance, Runtime::Runc).await.unwrap();
    settings.hosts[0].address = HostAddress::parse(&format!("tcp://{}", door.address), None).unwrap();
    let mut hosts = Hosts::new(settings);
    hosts.starting = Duration::from_millis(300);
    assert_eq!(hosts.images(Runtime::Runc).await.unwrap(), [], "what does not start is not offered");
    let report = hosts.report().await;
    let failures = &report[0].runtimes[0].1.failures;
    assert!(failures[0].contains("starting a cell: no answer"), "{failures:?}");
    hosts.shut_down().await;
    assert_eq!(real.labelled(&format!("coinop.instance={instance}")).await.unwrap(), []);
}

#[tokio::test]
async fn an_image_made_anew_is_met_by_the_next_cell_though_the_one_from_before_is_removed() {
    let Some((_, real)) = engine::engine().await else { return };
    let number = rand::random::<u64>();
    let reference = format!("coinop-test-anew:{number:016x}");
    let root = || futures::stream::iter([Ok(engine::root())]);
    images::import(&real, &reference, "for a test of coinop", root()).await.unwrap();
    let mut settings = engine::settings(&format!("anew-{number:016x}"), Runtime::Runc).await.unwrap();
    settings.images = vec![ImageSettings { name: engine::IMAGE.into(), reference: reference.clone() }];
    let hosts = Hosts::new(settings);
    assert!(works(&hosts, Runtime::Runc).await);

    let replaced = images::replace(&real, &reference, "for a test of coinop", root()).await.unwrap();
    let before = replaced.before.expect("another one bore the name");
    assert_eq!(before.fate.unwrap(), docker::Discarded::Removed);
    // It is remembered by its digest, and looked at anew when that is gone.
    assert!(works(&hosts, Runtime::Runc).await);
    hosts.shut_down().await;
    let docker = bollard::Docker::connect_with_local_defaults().unwrap();
    docker.remove_image(&reference, None::<RemoveImageOptions>, None).await.unwrap();
}

const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/engine-ca.pem");
const ENGINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/engine.pem");
const ENGINE_KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/engine.key");
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/engine-client.pem");
const CLIENT_KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/engine-client.key");
const OTHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/other.pem");

/// TLS as dockerd has it with `--tlsverify`.
fn both_sides() -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(CA).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(ENGINE).unwrap()],
            PrivateKeyDer::from_pem_file(ENGINE_KEY).unwrap(),
        )
        .unwrap()
}

fn tls(door: &Door, ca: &str) -> HostAddress {
    let files = TlsFiles { ca: ca.into(), certificate: CLIENT.into(), key: CLIENT_KEY.into() };
    HostAddress::parse(&format!("tcp://{}", door.address), Some(files)).unwrap()
}

#[tokio::test]
async fn an_engine_behind_tls_is_used_like_any_other() {
    if engine::engine().await.is_none() {
        return;
    }
    let door = Door::open(Lie::None, Some(both_sides())).await;
    let Some(hosts) = at([tls(&door, CA)].into_iter(), Runtime::Runc).await else { return };
    assert!(works(&hosts, Runtime::Runc).await, "{:?}", hosts.report().await);
}

#[tokio::test]
async fn an_engine_that_another_authority_vouches_for_is_not_believed() {
    if engine::engine().await.is_none() {
        return;
    }
    let door = Door::open(Lie::None, Some(both_sides())).await;
    let plain = HostAddress::parse(&format!("tcp://{}", door.address), None).unwrap();
    let missing = TlsFiles { ca: "/nowhere".into(), certificate: CLIENT.into(), key: CLIENT_KEY.into() };
    let swapped = TlsFiles { ca: CA.into(), certificate: CLIENT.into(), key: ENGINE_KEY.into() };
    let with = |files| HostAddress::parse(&format!("tcp://{}", door.address), Some(files)).unwrap();
    let addresses = [tls(&door, OTHER), plain, with(missing), with(swapped)];
    let Some(hosts) = at(addresses.into_iter(), Runtime::Runc).await else { return };
    for host in hosts.report().await {
        assert!(host.engine.is_err(), "{host:?}");
    }
}
