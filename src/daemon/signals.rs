//! When to stop.

/// Returns when the process is asked to stop: SIGTERM (service managers) or SIGINT (Ctrl-C).
///
/// # Errors
/// When the system does not let us listen for signals.
#[cfg(unix)]
pub async fn asked_to_stop() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

/// Returns when the process is asked to stop (Ctrl-C).
///
/// # Errors
/// When the system does not let us listen for it.
#[cfg(not(unix))]
pub async fn asked_to_stop() -> std::io::Result<&'static str> {
    tokio::signal::ctrl_c().await?;
    Ok("Ctrl-C")
}
