//! When to stop.

/// What a process is asked to stop with: SIGTERM (service managers) or SIGINT (Ctrl-C). From the moment it is made on the
/// system no longer ends the process by itself.
#[cfg(unix)]
#[derive(Debug)]
pub struct Signals {
    term: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system does not let us listen for signals.
    pub fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next one, by its name.
    ///
    /// # Errors
    /// When the system does not let us listen for signals.
    pub async fn next(&mut self) -> std::io::Result<&'static str> {
        tokio::select! {
            _ = self.term.recv() => Ok("SIGTERM"),
            _ = self.interrupt.recv() => Ok("SIGINT"),
        }
    }
}

/// What a process is asked to stop with: Ctrl-C.
#[cfg(not(unix))]
#[derive(Debug)]
pub struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Listens from the first question on.
    ///
    /// # Errors
    /// Never; elsewhere the system may refuse.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// The next one, by its name.
    ///
    /// # Errors
    /// When the system does not let us listen for it.
    pub async fn next(&mut self) -> std::io::Result<&'static str> {
        tokio::signal::ctrl_c().await?;
        Ok("Ctrl-C")
    }
}

/// Returns when the process is asked to stop.
///
/// # Errors
/// When the system does not let us listen for signals.
pub async fn asked_to_stop() -> std::io::Result<&'static str> {
    Signals::listen()?.next().await
}
