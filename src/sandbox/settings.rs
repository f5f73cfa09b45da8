//! What the operator says about engines and images.

use std::fmt;
use std::path::PathBuf;

use super::Runtime;

/// The engines and images of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSettings {
    /// This installation's id. What a sweep removes bears it, so that two installations on one engine leave each other alone.
    pub instance: String,
    /// The engines.
    pub hosts: Vec<HostSettings>,
    /// What cells can be made from, the default first.
    pub images: Vec<ImageSettings>,
}

/// A container engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// What the operator calls it. Customers never see it.
    pub name: String,
    /// Where it is.
    pub address: HostAddress,
    /// What it may run cells under. Each is offered only while a probe has shown that it works.
    pub runtimes: Vec<Runtime>,
    /// Cells at once.
    pub slots: usize,
    /// What cells may use of its memory together, in MiB, their workspaces included; `None`: all that the engine says it has.
    pub memory_mib: Option<u64>,
}

/// Where an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAddress {
    /// A socket of this machine.
    Unix(PathBuf),
    /// Plain TCP, on loopback only: whoever reaches an engine owns its machine.
    Loopback(String),
    /// TCP with TLS.
    Tls {
        /// Host and port.
        address: String,
        /// How both sides prove who they are.
        files: TlsFiles,
    },
}

/// The files of an engine's TLS, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who vouches for the engine: nobody else is believed.
    pub ca: PathBuf,
    /// Who we are.
    pub certificate: PathBuf,
    /// The proof.
    pub key: PathBuf,
}

/// Why an address can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not one of the forms.
    #[error("'{0}' is no engine's address; write unix:///var/run/docker.sock or tcp://host:2376")]
    Form(String),
    /// Anybody on the way could take the engine over.
    #[error("'{0}' is on another machine: that needs TLS")]
    NeedsTls(String),
}

impl HostAddress {
    /// Where Docker listens unless told otherwise.
    pub const DEFAULT_SOCKET: &'static str = "/var/run/docker.sock";

    /// Reads `unix:///path` or `tcp://host:port`.
    ///
    /// # Errors
    /// For every other form, and for another machine without TLS.
    pub fn parse(text: &str, tls: Option<TlsFiles>) -> Result<Self, AddressError> {
        let form = || AddressError::Form(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(form()) };
        }
        let address = text.strip_prefix("tcp://").ok_or_else(form)?.trim_end_matches('/').to_owned();
        let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(form());
        }
        match tls {
            Some(files) => Ok(Self::Tls { address, files }),
            None if is_loopback(host) => Ok(Self::Loopback(address)),
            None => Err(AddressError::NeedsTls(text.to_owned())),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Loopback(address) | Self::Tls { address, .. } => write!(f, "tcp://{address}"),
        }
    }
}

/// An image that cells can be made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSettings {
    /// What customers call it.
    pub name: String,
    /// What the engine calls it: a reference such as `coinop-default`, or its id.
    pub reference: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_needs_tls() {
        let files = TlsFiles { ca: "ca".into(), certificate: "cert".into(), key: "key".into() };
        for own in ["tcp://127.0.0.1:2375", "tcp://127.9.9.9:2375", "tcp://localhost:2375/", "tcp://[::1]:2375"] {
            assert!(matches!(HostAddress::parse(own, None), Ok(HostAddress::Loopback(_))), "{own}");
        }
        // A name that only begins like loopback is a name, and leads anywhere.
        for far in ["tcp://10.0.0.1:2375", "tcp://127.0.0.1.example.com:2375", "tcp://localhost.example.com:1"] {
            assert_eq!(HostAddress::parse(far, None), Err(AddressError::NeedsTls(far.into())));
            assert!(matches!(HostAddress::parse(far, Some(files.clone())), Ok(HostAddress::Tls { .. })), "{far}");
        }
    }

    #[test]
    fn an_address_is_a_socket_or_a_port() {
        let socket = HostAddress::parse("unix:///run/docker.sock", None).unwrap();
        assert_eq!(socket.to_string(), "unix:///run/docker.sock");
        for bad in ["", "docker", "unix://relative", "ssh://host", "tcp://host", "tcp://:1", "tcp://host:port"] {
            assert_eq!(HostAddress::parse(bad, None), Err(AddressError::Form(bad.into())));
        }
    }
}
