//! From request to quote to invoice.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use tracing::{debug, error, info, warn};

use super::{HOLD_SLACK, Moment, Offer, PREPARE_LIMIT, Provider};
use crate::executor::Prepared;
use crate::job::admission::{Turned, too_dear, too_late};
use crate::job::queue::{Lane, Ticket};
use crate::job::{Code, Job, JobEvent, JobKind, JobRequest, QuoteDraft, Refusal, Terms};
use crate::lnurl::Target;
use crate::money::Msat;
use crate::nip90::ReplyTo;
use crate::store::{Opened, StoreError};
use crate::wallet::{Invoice, InvoiceRequest, WalletError};

/// How often a wallet that does not answer is asked for an invoice: about a minute, which a customer still waits.
const INVOICE_ATTEMPTS: usize = 6;

/// The shortest time to pay worth making an invoice for.
const LEAST_TIME_TO_PAY: Duration = Duration::from_secs(5);

impl Provider {
    /// Quotes a request, or turns it away. The order is load-bearing: what costs nothing comes first, nothing is written
    /// before the request is known to be wanted, and the job exists from the moment its quote is durable.
    pub(super) async fn quote(self: &Arc<Self>, request: JobRequest) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let Some(offer) = self.settings.offers.get(&request.kind).copied() else {
            if !self.settings.rules.may_speak(request.customer) {
                return Ok(());
            }
            return self.turn_away(&request, Turned::away(&request, self.not_offered(request.kind))).await;
        };
        match self.census.admit(&request, &self.settings.rules, now) {
            None => return Ok(()),
            Some(Err(turned)) => return self.turn_away(&request, turned).await,
            Some(Ok(())) => {}
        }
        // From here on the request holds a place; every way out gives it back or leaves it to the job.
        if self.was_cancelled_early(request.id, request.customer) || self.parts.store.knows(request.id).await? {
            self.census.leave(request.id);
            return Ok(());
        }
        if let Some(refusal) = bad_refund_target(&request).or_else(|| self.had_too_much_for_nothing(&request, now)) {
            self.census.leave(request.id);
            return self.turn_away(&request, Turned::away(&request, refusal)).await;
        }
        let Some(executor) = self.parts.router.get(request.kind) else {
            self.census.leave(request.id);
            return self.turn_away(&request, Turned::away(&request, self.not_offered(request.kind))).await;
        };
        let preparing = AssertUnwindSafe(executor.prepare(&request)).catch_unwind();
        let prepared = tokio::select! {
            prepared = tokio::time::timeout(PREPARE_LIMIT, preparing) => {
                let too_long = || Refusal::new(Code::Timeout, "the inputs could not be fetched and read in time");
                prepared.map_or_else(|_| Err(too_long()), |prepared| prepared.unwrap_or_else(|_| Err(panicked())))
            }
            // Not taken: the relays still have it, and the next start asks for it again.
            () = self.closing.cancelled() => {
                self.census.leave(request.id);
                return Ok(());
            }
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => {
                self.census.leave(request.id);
                return self.turn_away(&request, Turned::away(&request, refusal)).await;
            }
        };
        let rates = prepared.rates.unwrap_or(offer.rates);
        let prepared = match request.bid {
            Some(bid) if rates.cost(prepared.estimate.most()) > bid => executor.within(prepared, &rates, bid),
            _ => prepared,
        };
        let capabilities = self.parts.wallet.as_ref().map(|wallet| wallet.capabilities());
        let draft = QuoteDraft {
            rates,
            estimate: prepared.estimate,
            terms: offer.terms_with(self.parts.wallet.as_deref()),
            on_the_house: self.settings.rules.on_the_house.contains(&request.customer),
            free_per_day: offer.free_per_day,
            whole_sats: capabilities.is_some_and(|can| can.whole_sats),
            payment_window: SignedDuration::try_from(self.settings.payment_window).unwrap_or(SignedDuration::MAX),
        };
        let (id, customer) = (request.id, request.customer);
        // Making it ready may have taken a while.
        let now = self.parts.clock.now();
        if self.was_cancelled_early(id, customer) || request.is_expired(now) {
            self.census.leave(id);
            return Ok(());
        }
        if let Some(refusal) = self.would_begin_too_late(&request, &prepared, &draft, &offer, now) {
            self.census.leave(id);
            return self.turn_away(&request, Turned::away(&request, refusal)).await;
        }
        match self.parts.store.open_job(request.clone(), prepared.clone(), draft, now).await? {
            Opened::Known => {
                self.census.leave(id);
                debug!("Known already");
            }
            Opened::TooDear(crate::job::TooDear { price }) => {
                self.census.leave(id);
                self.turn_away(&request, Turned::away(&request, too_dear(price))).await?;
            }
            Opened::New(transition) => {
                self.parts.witness.at(Moment::Opened, id).await;
                let job = &transition.job;
                info!(
                    job.id = %job.id,
                    price_msat = job.quote.price.as_msat(),
                    terms = job.quote.terms.word(),
                    prompt_tokens = job.quote.estimate.prompt_tokens,
                    "Quoted job {} at {}", job.id, job.quote.price
                );
                self.remember(request, prepared, None);
                self.census.note(job);
                self.act(job, transition.effects);
                if self.was_cancelled_early(id, customer) {
                    self.cancel_opened(id).await;
                }
            }
        }
        Ok(())
    }

    /// Says that a kind is not offered; where it is sold at other times, that it is not now.
    fn not_offered(&self, kind: JobKind) -> Refusal {
        let now = if self.settings.withheld.contains(&kind) { " now" } else { "" };
        Refusal::unsupported(format!("this provider does not offer {kind}{now}"))
    }

    /// Why nothing is sold for now to somebody for whom work was done in vain too often. Who never pays is not asked to.
    fn had_too_much_for_nothing(&self, request: &JobRequest, now: Timestamp) -> Option<Refusal> {
        let on_the_house = self.settings.rules.on_the_house.contains(&request.customer);
        if on_the_house { None } else { self.given_away.check(request.customer, now).err() }
    }

    /// Why a job is not sold whose turn would come too late. Before it is paid, because afterwards the money would have to go
    /// back.
    fn would_begin_too_late(
        &self,
        request: &JobRequest,
        prepared: &Prepared,
        draft: &QuoteDraft,
        offer: &Offer,
        now: Timestamp,
    ) -> Option<Refusal> {
        let price = draft.price();
        // A job of the day's free ones is taken for a paid one: should it expire in the queue, nobody has lost anything.
        let paid = draft.terms != Terms::Free && !draft.on_the_house && !price.is_zero();
        let longest = (paid && draft.terms == Terms::Hold).then(|| offer.longest_wait());
        if request.expires_at.is_none() && longest.is_none() {
            return None;
        }
        let ticket = Ticket {
            job: request.id,
            customer: request.customer,
            price,
            paid,
            lane: Lane { kind: request.kind, name: prepared.lane.clone() },
            estimate: prepared.estimate,
            longest: offer.time_limit(),
            entered: now,
        };
        too_late(self.turns.wait_of(&ticket)?, request.expires_at, longest, now)
    }

    async fn turn_away(self: &Arc<Self>, request: &JobRequest, turned: Turned) -> Result<(), StoreError> {
        match turned {
            Turned::Silently => debug!("Turned away without a word"),
            Turned::Away(refusal) => self.refuse(&ReplyTo::from(request), &refusal).await,
        }
        Ok(())
    }

    /// Asks the wallet for the job's invoice. An invoice whose making is in doubt was shown to nobody, so asking again is
    /// safe.
    pub(super) async fn issue_invoice(self: &Arc<Self>, job: &Job, amount: Msat) -> Result<(), StoreError> {
        let least = SignedDuration::try_from(LEAST_TIME_TO_PAY).unwrap_or(SignedDuration::ZERO);
        if job.expires_at.is_some_and(|at| at.duration_since(self.parts.clock.now()) < least) {
            self.tell(job.id, JobEvent::Lapsed).await?;
            return Ok(());
        }
        // Closed never; waiting for a place is part of asking.
        let place = self.invoicing.acquire().await;
        let issued = self.try_invoice(job, amount).await;
        drop(place);
        self.parts.witness.at(Moment::After(crate::job::EffectKey::IssueInvoice), job.id).await;
        let event = match issued {
            Ok(invoice) => JobEvent::InvoiceIssued(invoice),
            Err(problem) if self.closing.is_cancelled() && problem.is_passing() => return Ok(()),
            Err(problem) => {
                warn!(%problem, "The wallet makes no invoice");
                JobEvent::InvoiceRefused
            }
        };
        self.tell(job.id, event).await?;
        Ok(())
    }

    async fn try_invoice(&self, job: &Job, amount: Msat) -> Result<Invoice, WalletError> {
        let Some(wallet) = &self.parts.wallet else {
            return Err(WalletError::Refused("no wallet is configured".into()));
        };
        let window = Duration::try_from(job.quote.payment_window).unwrap_or(self.settings.payment_window);
        let left = job.expires_at.map_or(window, |at| {
            Duration::try_from(at.duration_since(self.parts.clock.now())).unwrap_or(Duration::ZERO)
        });
        let request = InvoiceRequest {
            amount,
            description: format!("coinop {} job {}", job.kind, job.id),
            expiry: window.min(left).max(LEAST_TIME_TO_PAY),
        };
        let hold_for = self.settings.offers.get(&job.kind).map_or(HOLD_SLACK, |offer| offer.hold_for);
        let ask = || async {
            match (job.quote.terms, wallet.hold_invoices(), &self.parts.hold_key) {
                (Terms::Hold, Some(hold), Some(key)) => {
                    hold.create_hold_invoice(&request, &key.payment_hash(job.id), hold_for).await
                }
                (Terms::Hold, ..) => Err(WalletError::Refused("it makes no hold invoices".into())),
                _ => wallet.create_invoice(&request).await,
            }
        };
        ask.retry(ExponentialBuilder::default().with_jitter().with_max_times(INVOICE_ATTEMPTS))
            .sleep(tokio::time::sleep)
            .when(|problem: &WalletError| problem.is_passing() && !self.closing.is_cancelled())
            .await
    }
}

fn panicked() -> Refusal {
    // What it says may hold the customer's words.
    error!("Making a request ready panicked");
    Refusal::new(Code::Backend, "the provider failed on this request; change it or try again later")
}

/// What is wrong with the address a request wants credit paid back to: told at once, not when the credit is there.
fn bad_refund_target(request: &JobRequest) -> Option<Refusal> {
    let problem = request.params.get(JobRequest::REFUND_PARAM)?.parse::<Target>().err()?;
    Some(Refusal::bad_request(format!(
        "param 'refund': {problem}; name a lightning address or an LNURL, or leave it out"
    )))
}
