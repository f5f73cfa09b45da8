//! Requests as tests begin with them: everything said that every request has, and nothing asked.

use jiff::Timestamp;

use crate::job::{CustomerId, JobId, JobKind, JobRequest, Params};

/// A request of that kind from a customer who named us: no inputs, no parameters.
pub fn blank(kind: JobKind) -> JobRequest {
    JobRequest {
        id: JobId([1; 32]),
        customer: CustomerId([2; 32]),
        kind,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
        inputs: Vec::new(),
        params: Params::default(),
        output: None,
        bid: None,
        addressed: true,
        relays: Vec::new(),
        encryption: None,
        event_json: String::new(),
    }
}
