//! TLS to an engine: both sides prove who they are.
//!
//! Only the authority that the operator names is believed. The library's own TLS also believes every authority of the
//! machine, any of which could then vouch for an engine that is none of ours.

use std::path::Path;
use std::sync::Arc;

use bollard::BollardRequest;
use bollard::errors::Error;
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::Response;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::engine::GREETING;
use super::error::EngineError;
use crate::sandbox::settings::TlsFiles;

/// What carries requests to an engine.
pub(super) type Transport =
    Box<dyn Fn(BollardRequest) -> BoxFuture<'static, Result<Response<Incoming>, Error>> + Send + Sync>;

/// Connections with these files.
pub(super) fn transport(files: &TlsFiles) -> Result<Transport, EngineError> {
    let config = config(files)?;
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(GREETING));
    // An engine takes a connection over for what a command prints: none is used twice.
    let client =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(HttpsConnector::from((http, config)));
    Ok(Box::new(move |request| client.request(request).map(|answer| answer.map_err(Error::from)).boxed()))
}

fn config(files: &TlsFiles) -> Result<ClientConfig, EngineError> {
    let unusable = |path: &Path, what: &str| EngineError::Tls(format!("{} {what}", path.display()));
    let mut roots = RootCertStore::empty();
    let authorities = CertificateDer::pem_file_iter(&files.ca).map_err(|_| unusable(&files.ca, "can't be read"))?;
    let (added, _) = roots.add_parsable_certificates(authorities.filter_map(Result::ok));
    if added == 0 {
        return Err(unusable(&files.ca, "has no certificate in it"));
    }
    let own = &files.certificate;
    let chain: Vec<_> = CertificateDer::pem_file_iter(own)
        .map_err(|_| unusable(own, "can't be read"))?
        .collect::<Result<_, _>>()
        .map_err(|_| unusable(own, "is no certificate"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|_| unusable(&files.key, "is no private key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the cipher suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| EngineError::Tls(format!("the certificate and its key don't belong together: {error}")))
}
