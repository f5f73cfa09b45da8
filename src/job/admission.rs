//! Decides whether a request is worth preparing a quote for. Pure: same inputs, same verdict.
//!
//! "Speak when spoken to": a request that names us gets the reason it is turned away, a broadcast gets silence.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::queue::roughly;
use super::refusal::{Code, Refusal};
use super::{CustomerId, JobRequest};
use crate::money::Msat;

/// Who may order, and how much at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// When not empty, nobody else is served.
    pub allow: BTreeSet<CustomerId>,
    /// Never served, never answered.
    pub deny: BTreeSet<CustomerId>,
    /// Never asked to pay.
    pub on_the_house: BTreeSet<CustomerId>,
    /// Jobs waiting for their turn, in all.
    pub max_queued: usize,
    /// Quotes waiting for payment, in all: bounds what strangers who never pay can make us keep.
    pub max_open_quotes: usize,
    /// Quotes and jobs of one customer at once.
    pub max_per_customer: usize,
    /// Runs of one customer an hour that end uncharged by their own doing: called off while they ran, failed for what was asked,
    /// or never paid afterwards. At least one.
    pub max_given_away: usize,
    /// Leading zero bits of the request's id (NIP-13). Zero asks for none.
    pub min_pow_bits: u32,
    /// The least time a request must still be wanted for: shorter can't be paid and done.
    pub min_time_left: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            allow: BTreeSet::new(),
            deny: BTreeSet::new(),
            on_the_house: BTreeSet::new(),
            max_queued: 1_000,
            max_open_quotes: 5_000,
            max_per_customer: 20,
            max_given_away: 10,
            min_pow_bits: 0,
            min_time_left: Duration::from_secs(1),
        }
    }
}

impl Rules {
    /// Whether a customer hears from us at all: a denied one gets no word, whatever it sends.
    pub fn may_speak(&self, customer: CustomerId) -> bool {
        !self.deny.contains(&customer)
    }
}

/// How busy we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Jobs running or waiting for their turn.
    pub queued: usize,
    /// Quotes waiting for payment.
    pub open_quotes: usize,
    /// Both, of this customer.
    pub of_customer: usize,
}

/// Not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turned {
    /// Without a word.
    Silently,
    /// With a reason, for those who named us.
    Away(Refusal),
}

impl Turned {
    /// A refusal, said only to those who named us.
    pub fn away(request: &JobRequest, refusal: Refusal) -> Self {
        if request.addressed { Self::Away(refusal) } else { Self::Silently }
    }
}

/// Whether a request is worth a quote.
///
/// # Errors
/// [`Turned`], when it is not.
pub fn screen(request: &JobRequest, rules: &Rules, load: Load, now: Timestamp) -> Result<(), Turned> {
    if !rules.may_speak(request.customer) {
        return Err(Turned::Silently);
    }
    let away = |code, text: String| Err(Turned::away(request, Refusal::new(code, text)));
    if !rules.allow.is_empty() && !rules.allow.contains(&request.customer) {
        return away(Code::Unsupported, "this provider serves invited customers only".into());
    }
    let found = leading_zero_bits(&request.id.0);
    if found < rules.min_pow_bits {
        return away(
            Code::BadRequest,
            format!(
                "this provider asks for {} bits of proof of work (NIP-13 nonce tag); the request has {found}",
                rules.min_pow_bits
            ),
        );
    }
    let needed = now.checked_add(rules.min_time_left).unwrap_or(Timestamp::MAX);
    if request.expires_at.is_some_and(|at| at < needed) {
        return away(Code::Expired, "the request's expiration has passed, or is too close to be paid and done".into());
    }
    if load.of_customer >= rules.max_per_customer {
        return away(
            Code::RateLimited,
            format!("{} of your jobs are open already; wait for one to finish", load.of_customer),
        );
    }
    if load.queued >= rules.max_queued || load.open_quotes >= rules.max_open_quotes {
        return away(Code::RateLimited, "this provider is busy; try again in a few minutes".into());
    }
    Ok(())
}

/// The refusal for a bid below the price.
pub fn too_dear(price: Msat) -> Refusal {
    Refusal::new(Code::Price, format!("the price of this job is {} msat, above your bid", price.as_msat()))
}

/// The refusal for a job that would wait longer than its customer, or a held payment, does; none when there is time.
///
/// `longest` is how long a job may wait whose payment is held meanwhile.
pub fn too_late(
    wait: Duration,
    expires_at: Option<Timestamp>,
    longest: Option<Duration>,
    now: Timestamp,
) -> Option<Refusal> {
    let begins = now.checked_add(wait).unwrap_or(Timestamp::MAX);
    let wait_in_words = roughly(wait);
    let text = match (expires_at, longest) {
        (Some(at), _) if begins >= at => format!(
            "busy: the job would begin in about {wait_in_words}, and the request expires in {}; ask again later, or give it \
             more time",
            roughly(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
        ),
        (_, Some(longest)) if wait > longest => format!(
            "busy: the job would begin in about {wait_in_words}, and a payment is held for at most {} before that; ask again \
             later",
            roughly(longest)
        ),
        _ => return None,
    };
    Some(Refusal::new(Code::RateLimited, text))
}

fn leading_zero_bits(bytes: &[u8]) -> u32 {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let rest = bytes.get(zeros).map_or(0, |byte| byte.leading_zeros());
    u32::try_from(zeros).unwrap_or(u32::MAX).saturating_mul(8).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobId, JobKind, Params};

    fn request(addressed: bool) -> JobRequest {
        JobRequest {
            id: JobId([0x0f; 32]),
            customer: CustomerId([2; 32]),
            kind: JobKind::TextGeneration,
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            inputs: vec![],
            params: Params::default(),
            output: None,
            bid: None,
            addressed,
            relays: vec![],
            encryption: None,
            event_json: String::new(),
        }
    }

    fn verdict(request: &JobRequest, rules: &Rules, load: Load) -> Result<(), Turned> {
        screen(request, rules, load, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_broadcast_is_turned_away_silently_and_an_addressed_request_hears_why() {
        let rules = Rules { max_per_customer: 1, ..Rules::default() };
        let load = Load { of_customer: 1, ..Load::default() };
        assert_eq!(verdict(&request(false), &rules, load), Err(Turned::Silently));
        assert!(matches!(
            verdict(&request(true), &rules, load),
            Err(Turned::Away(Refusal { code: Code::RateLimited, .. }))
        ));
        assert_eq!(verdict(&request(true), &rules, Load::default()), Ok(()));
    }

    #[test]
    fn a_denied_key_never_hears_from_us() {
        let rules = Rules { deny: [CustomerId([2; 32])].into(), ..Rules::default() };
        assert_eq!(verdict(&request(true), &rules, Load::default()), Err(Turned::Silently));
    }

    #[test]
    fn only_invited_keys_are_served_when_there_is_an_allow_list() {
        let mut rules = Rules { allow: [CustomerId([9; 32])].into(), ..Rules::default() };
        assert!(verdict(&request(true), &rules, Load::default()).is_err());
        rules.allow.insert(CustomerId([2; 32]));
        assert_eq!(verdict(&request(true), &rules, Load::default()), Ok(()));
    }

    #[test]
    fn proof_of_work_counts_leading_zero_bits() {
        let rules = |bits| Rules { min_pow_bits: bits, ..Rules::default() };
        assert_eq!(verdict(&request(true), &rules(4), Load::default()), Ok(()));
        assert!(verdict(&request(true), &rules(5), Load::default()).is_err());
    }

    #[test]
    fn a_job_whose_turn_comes_too_late_is_refused_with_the_numbers() {
        let now = Timestamp::UNIX_EPOCH;
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let text = |wait, expires: Option<Duration>, longest| {
            let refusal = too_late(wait, expires.map(|span| now + span), longest, now)?;
            assert_eq!(refusal.code, Code::RateLimited);
            Some(refusal.text)
        };
        assert_eq!(text(minute, None, None), None);
        assert_eq!(text(minute - second, Some(minute), Some(minute)), None);
        let expires = text(minute, Some(minute), None).unwrap();
        assert!(expires.contains("begin in about 60 s") && expires.contains("expires in 60 s"), "{expires}");
        let held = text(minute + second, None, Some(minute)).unwrap();
        assert!(held.contains("begin in about 61 s") && held.contains("held for at most 60 s"), "{held}");
        assert!(text(Duration::MAX, Some(minute), Some(minute)).is_some());
    }

    #[test]
    fn a_request_about_to_expire_is_not_quoted() {
        let mut late = request(true);
        late.expires_at = Some(Timestamp::UNIX_EPOCH);
        assert!(matches!(
            verdict(&late, &Rules::default(), Load::default()),
            Err(Turned::Away(Refusal { code: Code::Expired, .. }))
        ));
    }
}
