//! The `coinop` program: dispatch only.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Two cryptography providers are compiled in (ring for the relays, another with the model), so rustls must be told,
    // before the first connection, which one to use. It only fails when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    coinop::cli::main()
}
