//! The relays: are they there, do they take what we write, is our ad on them.

use std::time::Duration;

use super::Finding;
use crate::config::Config;
use crate::daemon::wiring;
use crate::identity::{Identity, Signer};
use crate::job::id::ProviderId;
use crate::nip90::handler_info::{Ad, Announcement, read_announcement};
use crate::relays::{self, Probe, Query, RelayPool, RelayVerdict};

/// A clock this far off is worth a word: requests seem older or younger than they are.
const NOTICEABLE_SKEW: Duration = Duration::from_secs(30);

/// Who signs the trial event.
pub(super) struct Key {
    signer: Signer,
    /// Whether it is ours. If not, a refusal says nothing.
    ours: bool,
}

impl Key {
    /// Ours, or one to throw away when the identity did not open: whether a relay is there shows with any key.
    pub(super) fn of(identity: Option<&Identity>) -> Self {
        match identity {
            Some(identity) => Self { signer: identity.signer.clone(), ours: true },
            None => Self { signer: Signer::random(), ours: false },
        }
    }
}

/// Connects, publishes an event nobody keeps, compares clocks.
pub(super) async fn relay(url: &str, key: &Key, patience: Duration, max_skew: Duration) -> Vec<Finding> {
    let found = match relays::probe(url, &key.signer, patience).await {
        Ok(probe) => judge(&probe, key.ours, patience, max_skew),
        Err(error) => vec![Finding::failed("relay", error.to_string(), "correct it in relays.urls")],
    };
    found.into_iter().map(|finding| finding.about(url)).collect()
}

fn judge(probe: &Probe, ours: bool, patience: Duration, max_skew: Duration) -> Vec<Finding> {
    let connecting = match &probe.connected {
        Ok(connecting) => connecting,
        Err(problem) => {
            return vec![Finding::failed(
                "relay",
                format!("can't be reached: {problem}"),
                "is the address right, and this machine online? If the relay is gone, take it out of relays.urls",
            )];
        }
    };
    let reached = Finding::ok("relay", format!("reached in {} ms", connecting.as_millis()));
    vec![reached, accepts(probe, ours, patience), clock(probe, max_skew)]
}

fn accepts(probe: &Probe, ours: bool, patience: Duration) -> Finding {
    let check = "relay.accepts";
    match &probe.verdict {
        RelayVerdict::Accepted => {
            let time = probe.round_trip.map_or_else(String::new, |time| format!(" within {} ms", time.as_millis()));
            let whose = if ours { "our events" } else { "events (of a throwaway key: the identity did not open)" };
            Finding::ok(check, format!("takes {whose}{time}"))
        }
        RelayVerdict::Refused(words) if ours => Finding::failed(
            check,
            format!("refuses our events: \"{words}\""),
            "do what it asks for (a registration, a payment, another rate), or take it out of relays.urls",
        ),
        RelayVerdict::Refused(words) => Finding::skipped(
            check,
            format!("refuses a throwaway key (\"{words}\"); what it says to ours shows when the identity opens"),
        ),
        RelayVerdict::Silent => Finding::failed(
            check,
            format!("did not say within {} s whether it takes our events", patience.as_secs()),
            "try again later; if it stays silent, take it out of relays.urls",
        ),
    }
}

fn clock(probe: &Probe, max_skew: Duration) -> Finding {
    let check = "relay.clock";
    let Some(skew) = probe.clock_skew else { return Finding::skipped(check, "it does not tell its time") };
    let off = skew.unsigned_abs();
    let direction = if skew.is_negative() { "behind" } else { "ahead of" };
    let told = format!("its clock is {} s {direction} ours", off.as_secs());
    let cure =
        "set this machine's clock (timedatectl set-ntp true); if other relays agree with ours, it is this relay's";
    if off > max_skew {
        Finding::failed(check, format!("{told}, more than limits.max_clock_skew"), cure)
    } else if off > NOTICEABLE_SKEW {
        Finding::warning(check, told, cure)
    } else {
        Finding::ok(check, format!("its clock and ours agree ({} s)", off.as_secs()))
    }
}

/// Whether customers find our ad, and whether it says what the configuration says.
pub(super) async fn ad(config: &Config, signer: &Signer, patience: Duration) -> Finding {
    let check = "ad";
    let planned = wiring::configured_ads(config).ads;
    let Some(planned) = planned.first() else { return Finding::skipped(check, "nothing is sold (text.enabled)") };
    let mut pool = wiring::pool(config);
    pool.connect_timeout = patience;
    pool.publish_timeout = patience;
    let pool = match RelayPool::connect(pool, signer, None).await {
        Ok(pool) => pool,
        Err(error) => return Finding::failed(check, error.to_string(), "correct it in relays.urls"),
    };
    let us = signer.provider_id();
    let events = pool.fetch(&Query::ads(planned.kind, &[us]), patience).await;
    let reached = pool.health().iter().any(|relay| relay.connected);
    pool.shutdown().await;
    if events.is_empty() && !reached {
        return Finding::skipped(check, "no relay could be asked");
    }
    // The newest first.
    let standing =
        events.iter().filter_map(|event| read_announcement(event).ok()).find_map(|announced| match announced.what {
            Announcement::Ad { identifier, ad } if is_ours(announced.provider, &identifier, us, planned) => {
                Some((announced.at, ad))
            }
            _ => None,
        });
    let publish = "'coinop ad publish' publishes it, and so does 'coinop serve'";
    match (standing, config.ad.enabled) {
        (None, false) => Finding::ok(check, "none is published, as ad.enabled says"),
        (None, true) => Finding::warning(check, "not on the relays yet: customers do not find us", publish),
        (Some((at, _)), false) => Finding::warning(
            check,
            format!("ad.enabled is false, and an ad of {at} stands on the relays"),
            "'coinop ad withdraw' takes it back",
        ),
        (Some((at, ad)), true) if ad.price == planned.price && ad.terms == planned.terms => {
            Finding::ok(check, format!("on the relays since {at}"))
        }
        (Some((at, _)), true) => {
            Finding::warning(check, format!("the one on the relays ({at}) has another price or other terms"), publish)
        }
    }
}

fn is_ours(provider: ProviderId, identifier: &str, us: ProviderId, planned: &Ad) -> bool {
    provider == us && identifier == Ad::identifier(planned.kind)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::super::Verdict;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const MAX_SKEW: Duration = Duration::from_secs(600);

    fn probe(verdict: RelayVerdict, skew: Option<i64>) -> Probe {
        Probe {
            connected: Ok(Duration::from_millis(12)),
            verdict,
            round_trip: Some(Duration::from_millis(3)),
            clock_skew: skew.map(SignedDuration::from_secs),
        }
    }

    #[test]
    fn a_clock_is_judged_by_how_far_it_is_off_in_either_direction() {
        for (skew, verdict) in [
            (None, Verdict::Skipped),
            (Some(0), Verdict::Ok),
            (Some(-30), Verdict::Ok),
            (Some(31), Verdict::Warning),
            (Some(-600), Verdict::Warning),
            (Some(601), Verdict::Failed),
            (Some(-601), Verdict::Failed),
        ] {
            let found = judge(&probe(RelayVerdict::Accepted, skew), true, PATIENCE, MAX_SKEW);
            assert_eq!(found[2].verdict, verdict, "{skew:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_relays_words_and_counts_only_for_our_own_key() {
        let refused = probe(RelayVerdict::Refused("blocked: pay first".into()), None);
        let found = judge(&refused, true, PATIENCE, MAX_SKEW);
        assert_eq!(found[1].verdict, Verdict::Failed);
        assert!(found[1].finding.contains("blocked: pay first"));
        assert_eq!(judge(&refused, false, PATIENCE, MAX_SKEW)[1].verdict, Verdict::Skipped);
        assert_eq!(judge(&probe(RelayVerdict::Silent, None), true, PATIENCE, MAX_SKEW)[1].verdict, Verdict::Failed);
    }
}
