//! What is written on containers and volumes, so that whoever sweeps knows whose they are.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

/// Which installation.
const INSTANCE: &str = "coinop.instance";
/// Which process of it.
pub(super) const PROCESS: &str = "coinop.process";
/// Which job, for people who look.
pub const JOB: &str = "coinop.job";
/// When nobody wants it any more, in seconds since 1970.
pub(super) const EXPIRES: &str = "coinop.expires";

/// Who makes cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct Identity {
    /// The installation.
    pub(in crate::sandbox) instance: String,
    /// This process of it.
    pub(in crate::sandbox) process: String,
}

impl Identity {
    /// This process, as one of the installation's.
    pub(in crate::sandbox) fn of(instance: &str) -> Self {
        Self { instance: instance.to_owned(), process: format!("{:016x}", rand::random::<u64>()) }
    }
}

/// The labels of a cell that lives so long.
pub(super) fn labels(identity: &Identity, job: &str, life: Duration) -> HashMap<String, String> {
    let expires = Timestamp::now().as_second().saturating_add(i64::try_from(life.as_secs()).unwrap_or(i64::MAX));
    HashMap::from([
        (INSTANCE.to_owned(), identity.instance.clone()),
        (PROCESS.to_owned(), identity.process.clone()),
        (JOB.to_owned(), job.to_owned()),
        (EXPIRES.to_owned(), expires.to_string()),
    ])
}

/// What all of an installation's bear.
pub(super) fn of_instance(instance: &str) -> String {
    format!("{INSTANCE}={instance}")
}

/// Whether its time is over. What says nothing of it is.
pub(super) fn has_expired(labels: &HashMap<String, String>) -> bool {
    let expires = labels.get(EXPIRES).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    expires < Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_whose_it_is_and_until_when() {
        let identity = Identity::of("here");
        let fresh = labels(&identity, "job", Duration::from_secs(60));
        assert_eq!(fresh[INSTANCE], "here");
        assert_eq!(fresh[PROCESS], identity.process);
        assert!(!has_expired(&fresh));
        assert!(!has_expired(&labels(&identity, "job", Duration::MAX)));
        assert!(has_expired(&HashMap::from([(EXPIRES.to_owned(), "1".to_owned())])));
        assert!(has_expired(&HashMap::new()), "made by nobody who sets limits");
    }
}
