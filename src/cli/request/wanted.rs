//! What is ordered, before it is known from whom and for how much.

use std::time::Duration;

use crate::job::{Input, InputKind, JobKind, Params};

/// What is ordered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// What kind of work.
    pub(super) kind: JobKind,
    /// What it works on.
    pub(super) inputs: Vec<Input>,
    /// How.
    pub(super) params: Params,
    /// The wanted format.
    pub(super) output: Option<String>,
    /// Whether pieces of the result are shown as they come.
    pub(super) stream: bool,
    /// How long the work itself may take: the command waits longer.
    pub(super) time_limit: Option<Duration>,
}

impl Wanted {
    /// An order of a kind with nothing in it.
    pub(super) fn of(kind: JobKind) -> Self {
        let params = Params::default();
        Self { kind, inputs: Vec::new(), params, output: None, stream: false, time_limit: None }
    }

    /// Adds a text.
    pub(super) fn text(&mut self, data: String, marker: Option<&str>) {
        let marker = marker.map(str::to_owned);
        self.inputs.push(Input { data, kind: InputKind::Text, relay: None, marker });
    }

    /// Adds an address.
    pub(super) fn url(&mut self, data: String, marker: &str) {
        self.inputs.push(Input { data, kind: InputKind::Url, relay: None, marker: Some(marker.to_owned()) });
    }

    /// Adds a parameter.
    pub(super) fn param(&mut self, key: &str, value: impl ToString) {
        self.params.push(key, vec![value.to_string()]);
    }

    /// Adds a parameter where there is a value for it.
    pub(super) fn maybe<T: ToString>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.param(key, value);
        }
    }

    /// Adds a list: `key_0`, `key_1`, …
    pub(super) fn list<T: ToString>(&mut self, key: &str, values: impl IntoIterator<Item = T>) {
        for (place, value) in values.into_iter().enumerate() {
            self.param(&format!("{key}_{place}"), value);
        }
    }
}

#[cfg(test)]
impl Wanted {
    /// As a provider reads it.
    pub(super) fn read_with<T>(self, read: impl FnOnce(&crate::job::JobRequest) -> T) -> T {
        read(&crate::job::JobRequest {
            id: crate::job::JobId([1; 32]),
            customer: crate::job::CustomerId([2; 32]),
            kind: self.kind,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            expires_at: None,
            inputs: self.inputs,
            params: self.params,
            output: self.output,
            bid: None,
            addressed: true,
            relays: Vec::new(),
            encryption: None,
            event_json: String::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_numbered_and_what_is_not_there_is_left_out() {
        let mut wanted = Wanted::of(JobKind::SandboxRun);
        wanted.list("cmd", ["make", "make test"]);
        wanted.maybe("image", None::<String>);
        wanted.maybe("workdir", Some("sub"));
        let written: Vec<(&str, &str)> = wanted.params.iter().map(|(key, values)| (key, values[0].as_str())).collect();
        assert_eq!(written, [("cmd_0", "make"), ("cmd_1", "make test"), ("workdir", "sub")]);
    }
}
