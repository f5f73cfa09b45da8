//! The machine that models run on, and the port figures are read at.

use std::net::{SocketAddr, TcpListener};

use super::Finding;
use crate::config::{InferenceSettings, Paths};
use crate::daemon::inventory;
use crate::daemon::lock::ServeLock;
use crate::hardware::{Fit, Hardware};

/// What this machine has, and which of the models on offer suits it.
pub(super) async fn hardware(settings: &InferenceSettings) -> Finding {
    let check = "hardware";
    let machine = tokio::task::spawn_blocking(Hardware::look).await.unwrap_or_default();
    let stock = inventory::take(settings).await;
    let offered = inventory::on_offer(settings, &stock);
    let said = inventory::recommendation(&machine, &offered);
    let line = match said.sentence() {
        Some(sentence) => format!("{machine}; {sentence}"),
        None => machine.to_string(),
    };
    let first = offered.first().and_then(|model| said.verdicts.iter().find(|(name, _)| *name == model.name));
    match first {
        Some((name, Fit::TooLarge { .. })) => Finding::warning(
            check,
            line,
            format!(
                "{name}, which customers get who name none, is too large: put a smaller model first (inference.models)"
            ),
        ),
        _ => Finding::ok(check, line),
    }
}

/// Whether the port for figures is free, or a running provider's.
pub(super) fn metrics(at: SocketAddr, exposed: bool, paths: &Paths) -> Vec<Finding> {
    let check = "metrics";
    let mut found = Vec::new();
    let serving = ServeLock::is_held(&paths.data_dir).unwrap_or(false);
    found.push(match TcpListener::bind(at) {
        Ok(_) => Finding::ok(check, format!("{at} is free")),
        Err(_) if serving => Finding::ok(check, format!("{at} is in use, by the provider that serves")),
        Err(error) => Finding::failed(
            check,
            format!("nothing can be shown at {at}: {error}"),
            "write another address of this machine, or another port, to metrics.listen",
        ),
    });
    if exposed {
        found.push(Finding::warning(
            check,
            format!("others than this machine may reach {at} and read what is earned"),
            "write 127.0.0.1 to metrics.listen, or let a firewall keep others out",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_port_is_free_or_taken_and_an_address_is_ours_or_everybodys() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::find(Some(home.path()), None).unwrap();
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let at = taken.local_addr().unwrap();
        assert_eq!(metrics(at, false, &paths)[0].verdict, Verdict::Failed);
        let serving = ServeLock::take(home.path()).unwrap();
        assert_eq!(metrics(at, false, &paths)[0].verdict, Verdict::Ok, "it is the provider's");
        drop((serving, taken));
        let everywhere = metrics("0.0.0.0:0".parse().unwrap(), true, &paths);
        let verdicts: Vec<_> = everywhere.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Warning]);
    }
}
