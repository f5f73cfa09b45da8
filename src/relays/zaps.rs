//! What being zapped and paying back need of relays: receipts of the one key that is believed, and where people want to be
//! paid.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use nostr::{Alphabet, Filter, Kind, PublicKey, SingleLetterTag};

use super::asks::Want;
use super::pool::RelayPool;
use super::router::{brings_zaps, zaps_id};
use super::{DEFAULT_LOOKUP_PATIENCE, Query};
use crate::job::CustomerId;
use crate::job::id::{NostrKey, ProviderId};
use crate::nip90::{kinds, read_payment_address};

/// How much of the past is asked for again at each refresh: a receipt is dated when the zap was paid and may reach a relay
/// much later.
const RECEIPT_OVERLAP: Duration = Duration::from_secs(60 * 60);

/// Profiles a relay may send of one key: it should keep one.
const PROFILES_A_RELAY: usize = 2;

impl RelayPool {
    /// Takes in receipts of zaps of `us` (NIP-57) signed by `signer` from `since` on, through the same inbox as requests. Called
    /// again with another signer, that one takes the place of the first.
    pub fn hear_zaps(&self, us: NostrKey, signer: NostrKey, since: Timestamp) {
        let filter = Filter::new()
            .kind(Kind::from_u16(kinds::ZAP_RECEIPT))
            .author(PublicKey::from_byte_array(signer.0))
            .custom_tag(SingleLetterTag::lowercase(Alphabet::P), us.to_string())
            .since(nostr::Timestamp::from_secs(u64::try_from(since.as_second()).unwrap_or(0)));
        let want = Want { filters: vec![filter], overlap: Some(RECEIPT_OVERLAP) };
        self.want_instead(brings_zaps, zaps_id(signer), want);
    }
}

/// Knows where people want to be paid.
#[async_trait]
pub trait PaymentAddresses: Send + Sync + 'static {
    /// The lightning address or LNURL in somebody's profile, as written there.
    async fn of(&self, customer: CustomerId) -> Option<String>;
}

#[async_trait]
impl PaymentAddresses for RelayPool {
    /// Asks our relays for the profile (kind 0), bounded in time and size.
    async fn of(&self, customer: CustomerId) -> Option<String> {
        let query = Query {
            kinds: vec![kinds::PROFILE],
            authors: vec![ProviderId(customer.0)],
            limit: Some(PROFILES_A_RELAY),
            ..Query::default()
        };
        let profiles = self.fetch(&query, DEFAULT_LOOKUP_PATIENCE).await;
        profiles.iter().find(|profile| profile.pubkey.to_bytes() == customer.0).and_then(read_payment_address)
    }
}

/// Nobody asks: only addresses that are given or remembered are used.
#[async_trait]
impl PaymentAddresses for () {
    async fn of(&self, _: CustomerId) -> Option<String> {
        None
    }
}
