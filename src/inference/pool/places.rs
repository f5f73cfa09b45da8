//! Who works where and who waits for a place: the pool's memory.
//!
//! Jobs wait in one line. Whoever stands first and can be served is served; one whose endpoints are full keeps nobody
//! behind it from another model's free slot.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, OnceCell, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::breaker::{Breaker, Standing, Verdict};
use super::choice::{Candidate, Choice, choose};
use super::offer::{Heard, Offer, is_missing, offers};
use super::{EndpointStatus, PoolEndpoint, PoolModel, PoolOptions};
use crate::inference::{Inference, InferenceError, ModelInfo, meant};

/// An endpoint's fixed part.
pub(super) struct Endpoint {
    pub(super) name: String,
    pub(super) backend: Arc<dyn Inference>,
    /// It failed at a job or a count: worth a look before the next one is due.
    pub(super) look_again: Notify,
}

/// What is known of an endpoint.
struct Desk {
    breaker: Breaker,
    in_use: usize,
    /// It answered, or failed to, when it was asked how it is.
    asked: bool,
    /// It answered when it was asked last.
    answers: bool,
    /// What it listed when it was last heard of.
    heard: Option<Vec<ModelInfo>>,
    /// Its models that make embeddings.
    embedding: Vec<ModelInfo>,
    /// Whether its last count of a prompt was exact.
    counts_exactly: Option<bool>,
    last_error: Option<String>,
    failures: u64,
}

/// A job in the line.
struct Waiter {
    ticket: u64,
    model: Arc<str>,
    tried: Vec<usize>,
    tell: oneshot::Sender<Place>,
}

struct State {
    desks: Vec<Desk>,
    offers: Vec<Offer>,
    /// Configured models that no endpoint has, by their names.
    missing: Vec<String>,
    /// Jobs under way of each model.
    running: HashMap<Arc<str>, usize>,
    waiting: VecDeque<Waiter>,
    next_ticket: u64,
}

/// The pool behind its handles and the places that were given out.
pub(super) struct Shared {
    pub(super) endpoints: Vec<Endpoint>,
    models: Vec<PoolModel>,
    pub(super) options: PoolOptions,
    state: Mutex<State>,
    /// Something changed that a waiting job may care about.
    changes: watch::Sender<()>,
    pub(super) first_look: OnceCell<()>,
}

/// Why there is no place for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Nobody wants it any more.
    Cancelled,
    /// Nothing that could do it is up, nor came back in time.
    Down,
}

/// A job's place at an endpoint. Given back when it is dropped, with what was learnt there.
pub(super) struct Place {
    shared: Option<Arc<Shared>>,
    pub(super) endpoint: usize,
    model: Arc<str>,
    verdict: Verdict,
    error: Option<String>,
}

impl Place {
    /// Gives the place back and says what was learnt.
    pub(super) fn give_back(mut self, verdict: Verdict, error: Option<String>) {
        (self.verdict, self.error) = (verdict, error);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        if matches!(self.verdict, Verdict::Failed | Verdict::Broken) {
            shared.endpoints[self.endpoint].look_again.notify_one();
        }
        let mut state = shared.state();
        state.leave(self.endpoint, &self.model);
        shared.learn_in(&mut state, self.endpoint, self.verdict, self.error.take());
        shared.seat(&mut state, now());
    }
}

/// A place in the line; left when this is dropped.
struct Ticket<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.shared.state().waiting.retain(|waiter| waiter.ticket != self.number);
    }
}

/// The runtime's clock, which the pure parts are handed.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl State {
    fn offer(&self, name: &str) -> Option<&Offer> {
        self.offers.iter().find(|offer| *offer.name == *name)
    }

    fn enter(&mut self, endpoint: usize, model: &Arc<str>, now: Instant) {
        let desk = &mut self.desks[endpoint];
        desk.in_use += 1;
        desk.breaker.begin(now);
        *self.running.entry(Arc::clone(model)).or_default() += 1;
    }

    fn leave(&mut self, endpoint: usize, model: &Arc<str>) {
        let desk = &mut self.desks[endpoint];
        desk.in_use = desk.in_use.saturating_sub(1);
        if let Some(running) = self.running.get_mut(model) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.running.remove(model);
            }
        }
    }
}

impl Shared {
    pub(super) fn new(endpoints: Vec<PoolEndpoint>, models: Vec<PoolModel>, options: PoolOptions) -> Self {
        let desk = || Desk {
            breaker: Breaker::new(options.breaker),
            in_use: 0,
            asked: false,
            answers: false,
            heard: None,
            embedding: Vec::new(),
            counts_exactly: None,
            last_error: None,
            failures: 0,
        };
        let desks = endpoints.iter().map(|_| desk()).collect();
        let endpoints = endpoints
            .into_iter()
            .map(|PoolEndpoint { name, backend }| Endpoint { name, backend, look_again: Notify::new() })
            .collect();
        let state = State {
            desks,
            offers: Vec::new(),
            missing: Vec::new(),
            running: HashMap::new(),
            waiting: VecDeque::new(),
            next_ticket: 0,
        };
        let (changes, _) = watch::channel(());
        let shared =
            Self { endpoints, models, options, state: Mutex::new(state), changes, first_look: OnceCell::new() };
        shared.make_offers(&mut shared.state());
        shared
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_offers(&self, state: &mut State) {
        let heard: Vec<Heard<'_>> = self
            .endpoints
            .iter()
            .zip(&state.desks)
            .map(|(endpoint, desk)| Heard {
                name: &endpoint.name,
                models: desk.heard.as_deref(),
                answers: desk.answers,
            })
            .collect();
        let offers = offers(&self.models, &heard);
        for model in &self.models {
            let known = state.missing.contains(&model.name);
            if is_missing(model, &heard) {
                if !known {
                    warn!("{}; it is not on offer", self.lack_of(model));
                    state.missing.push(model.name.clone());
                }
            } else if known && heard.iter().any(|endpoint| endpoint.lists(model)) {
                state.missing.retain(|name| *name != model.name);
            }
        }
        state.offers = offers;
    }

    /// What is wrong with a configured model that no endpoint has.
    fn lack_of(&self, model: &PoolModel) -> String {
        let all = || self.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        let endpoints = if model.endpoints.is_empty() { all() } else { model.endpoints.clone() };
        format!(
            "no endpoint of the model '{}' lists '{}', which it is to be there (asked: {})",
            model.name,
            model.upstream,
            endpoints.join(", ")
        )
    }

    /// Why nothing is on offer, for the operator.
    pub(super) fn nothing_on_offer(&self) -> InferenceError {
        let state = self.state();
        let missing = self.models.iter().filter(|model| state.missing.contains(&model.name));
        let lacks: Vec<String> = missing.map(|model| self.lack_of(model)).collect();
        InferenceError::Backend(if lacks.is_empty() {
            "no endpoint answers, or none has a model".to_owned()
        } else {
            lacks.join("; ")
        })
    }

    /// Whether there is nothing on offer.
    pub(super) fn offers_nothing(&self) -> bool {
        self.state().offers.is_empty()
    }

    /// The endpoints that were never asked how they are.
    pub(super) fn unasked(&self) -> Vec<usize> {
        let state = self.state();
        (0..self.endpoints.len()).filter(|place| !state.desks[*place].asked).collect()
    }

    /// What is on offer.
    pub(super) fn offered(&self) -> Vec<ModelInfo> {
        self.state().offers.iter().map(|offer| offer.info.clone()).collect()
    }

    /// The model of that name or alias, or the default.
    ///
    /// # Errors
    /// [`InferenceError::UnknownModel`]; [`InferenceError::Backend`] when there is nothing on offer.
    pub(super) fn find(&self, wanted: Option<&str>) -> Result<Offer, InferenceError> {
        let state = self.state();
        if state.offers.is_empty() {
            drop(state);
            return Err(self.nothing_on_offer());
        }
        let found = match wanted {
            None => state.offers.first(),
            Some(wanted) => meant(state.offers.iter(), wanted, |offer, is_it| offer.is_called(is_it)),
        };
        found.cloned().ok_or_else(|| InferenceError::UnknownModel {
            wanted: wanted.unwrap_or_default().to_owned(),
            offered: state.offers.iter().map(|offer| offer.info.name.clone()).collect(),
        })
    }

    /// Jobs of a model, or of all together, that can be under way at once. One, when nothing is up: so that a job runs, and
    /// fails honestly.
    pub(super) fn room(&self, model: Option<&str>) -> usize {
        if model.is_none() {
            return self.room_of_all();
        }
        let Ok(offer) = self.find(model) else { return 1 };
        let up: Vec<usize> = {
            let (state, now) = (self.state(), now());
            let trusted = |place: &usize| state.desks[*place].breaker.standing(now) == Standing::Closed;
            offer.endpoints.iter().copied().filter(trusted).collect()
        };
        let sum = up.into_iter().fold(0_usize, |sum, place| sum.saturating_add(self.room_at(place, &offer)));
        sum.clamp(1, offer.at_once)
    }

    /// Jobs of all models together that can be under way at once, at least one. Models may share an endpoint, so this can be
    /// less than the sum of theirs. A job that is in here and takes no room of an endpoint that is up, because it waits for
    /// one to come back or is still at one that is given up, takes none from the others.
    fn room_of_all(&self) -> usize {
        let (state, now) = (self.state(), now());
        let standing = |place: usize| state.desks[place].breaker.standing(now);
        let is_useful = |place: &usize| state.offers.iter().any(|offer| offer.endpoints.contains(place));
        let room = |place: usize| match standing(place) {
            Standing::Closed => self.endpoints[place].backend.room(None).max(1),
            Standing::HalfOpen => state.desks[place].in_use.max(1),
            Standing::Open { .. } => state.desks[place].in_use,
        };
        let is_down = |waiter: &&Waiter| match state.offer(&waiter.model) {
            Some(offer) => !offer.endpoints.iter().any(|place| standing(*place) == Standing::Closed),
            None => true,
        };
        let idle = state.waiting.iter().filter(is_down).count();
        (0..self.endpoints.len()).filter(is_useful).map(room).fold(idle, usize::saturating_add).max(1)
    }

    /// An endpoint's room for a model. One that says it has none is asked anyway, when its turn comes: it knows best.
    fn room_at(&self, endpoint: usize, offer: &Offer) -> usize {
        self.endpoints[endpoint].backend.room(Some(&offer.upstream)).max(1)
    }

    pub(super) fn status(&self) -> Vec<EndpointStatus> {
        let (state, now) = (self.state(), now());
        let status = |(place, desk): (usize, &Desk)| {
            let here = state.offers.iter().filter(|offer| offer.endpoints.contains(&place));
            EndpointStatus {
                name: self.endpoints[place].name.clone(),
                standing: desk.breaker.standing(now).word(),
                in_use: desk.in_use,
                room: here.clone().map(|offer| self.room_at(place, offer)).max().unwrap_or(0),
                models: here.map(|offer| offer.info.name.clone()).collect(),
                last_error: desk.last_error.clone(),
                failures: desk.failures,
            }
        };
        state.desks.iter().enumerate().map(status).collect()
    }

    /// What an endpoint lists, when it was asked how it is.
    pub(super) fn heard(self: &Arc<Self>, endpoint: usize, models: Vec<ModelInfo>, embedding: Vec<ModelInfo>) {
        let mut state = self.state();
        state.desks[endpoint].embedding = embedding;
        let answered = std::mem::replace(&mut state.desks[endpoint].answers, true);
        state.desks[endpoint].asked = true;
        if !answered || state.desks[endpoint].heard.as_ref() != Some(&models) {
            state.desks[endpoint].heard = Some(models);
            self.make_offers(&mut state);
            self.changes.send_replace(());
        }
        self.learn_in(&mut state, endpoint, Verdict::Answered, None);
        self.seat(&mut state, now());
    }

    /// An endpoint that was asked how it is did not answer.
    pub(super) fn silent(self: &Arc<Self>, endpoint: usize, problem: String) {
        let mut state = self.state();
        state.desks[endpoint].asked = true;
        if std::mem::replace(&mut state.desks[endpoint].answers, false) {
            self.make_offers(&mut state);
        }
        self.learn_in(&mut state, endpoint, Verdict::Broken, Some(problem));
        self.seat(&mut state, now());
    }

    /// Something was learnt of an endpoint without a job's place there.
    pub(super) fn learn(self: &Arc<Self>, endpoint: usize, verdict: Verdict, error: Option<String>) {
        let mut state = self.state();
        self.learn_in(&mut state, endpoint, verdict, error);
        self.seat(&mut state, now());
    }

    fn learn_in(&self, state: &mut State, endpoint: usize, verdict: Verdict, error: Option<String>) {
        let (desk, name, now) = (&mut state.desks[endpoint], &self.endpoints[endpoint].name, now());
        let before = desk.breaker.standing(now);
        desk.breaker.learn(verdict, now);
        let after = desk.breaker.standing(now);
        if matches!(verdict, Verdict::Failed | Verdict::Broken) {
            desk.failures += 1;
        }
        match (before, after) {
            (Standing::Closed, Standing::Closed) => {}
            (Standing::Closed, _) => {
                let error = error.as_deref().map(tracing::field::display);
                warn!(endpoint = %name, error, "The endpoint is out of order");
            }
            (_, Standing::Closed) => info!(endpoint = %name, "The endpoint is back"),
            _ => {}
        }
        if error.is_some() {
            desk.last_error = error;
        }
        if before != after {
            self.changes.send_replace(());
        }
    }

    /// Remembers whether an endpoint counts prompts exactly.
    pub(super) fn counted(&self, endpoint: usize, exactly: bool) {
        self.state().desks[endpoint].counts_exactly = Some(exactly);
    }

    /// The endpoint to ask for a count: one that is up and counts exactly, else one that is up, else one that may be tried.
    pub(super) fn counter(&self, model: &str, tried: &[usize]) -> Option<usize> {
        let (state, now) = (self.state(), now());
        let fitness = |place: &usize| {
            let desk = &state.desks[*place];
            let inexact = match desk.counts_exactly {
                Some(true) => 0,
                None => 1,
                Some(false) => 2,
            };
            match desk.breaker.standing(now) {
                Standing::Closed => Some((0, inexact)),
                Standing::HalfOpen => Some((1, inexact)),
                Standing::Open { .. } => None,
            }
        };
        let endpoints = state.offer(model).map(|offer| offer.endpoints.as_slice()).unwrap_or_default();
        let able = endpoints.iter().filter(|place| !tried.contains(place));
        able.filter_map(|place| Some((fitness(place)?, *place))).min().map(|(_, place)| place)
    }

    /// What makes embeddings, by the names of the endpoints, each once.
    pub(super) fn embedding_models(&self) -> Vec<ModelInfo> {
        let state = self.state();
        let mut found: Vec<ModelInfo> = Vec::new();
        for model in state.desks.iter().flat_map(|desk| &desk.embedding) {
            if found.iter().all(|other| other.name != model.name) {
                found.push(model.clone());
            }
        }
        found
    }

    /// The endpoint to ask for embeddings by that model: one that is up before one that may be tried, the least busy first.
    pub(super) fn embedder(&self, model: &str, tried: &[usize]) -> Option<usize> {
        let (state, now) = (self.state(), now());
        let fitness = |place: usize| {
            let desk = &state.desks[place];
            match desk.breaker.standing(now) {
                _ if tried.contains(&place) || desk.embedding.iter().all(|info| info.name != model) => None,
                Standing::Closed => Some((0, desk.in_use)),
                Standing::HalfOpen => Some((1, desk.in_use)),
                Standing::Open { .. } => None,
            }
        };
        (0..state.desks.len()).filter_map(|place| Some((fitness(place)?, place))).min().map(|(_, place)| place)
    }

    /// News that a waiting job may care about.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn choose(&self, state: &State, model: &str, tried: &[usize], now: Instant) -> Choice {
        // Gone since the job was taken: its endpoints list it no longer.
        let Some(offer) = state.offer(model) else { return Choice::Down { until: None } };
        let able: Vec<usize> = offer.endpoints.iter().copied().filter(|place| !tried.contains(place)).collect();
        let candidates: Vec<Candidate> = able
            .iter()
            .map(|place| Candidate {
                standing: state.desks[*place].breaker.standing(now),
                in_use: state.desks[*place].in_use,
                room: self.room_at(*place, offer),
            })
            .collect();
        let full = state.running.get(model).copied().unwrap_or(0) >= offer.at_once;
        match choose(&candidates) {
            Choice::Take(_) if full => Choice::Wait,
            Choice::Take(place) => Choice::Take(able[place]),
            other => other,
        }
    }

    /// Gives places to those who can have one, first come first served.
    fn seat(self: &Arc<Self>, state: &mut State, now: Instant) {
        for waiter in std::mem::take(&mut state.waiting) {
            let Choice::Take(endpoint) = self.choose(state, &waiter.model, &waiter.tried, now) else {
                state.waiting.push_back(waiter);
                continue;
            };
            state.enter(endpoint, &waiter.model, now);
            let place = Place {
                shared: Some(Arc::clone(self)),
                endpoint,
                model: waiter.model,
                verdict: Verdict::None,
                error: None,
            };
            if let Err(mut place) = waiter.tell.send(place) {
                // Gone meanwhile. Given back here, where the state is held.
                place.shared = None;
                state.leave(endpoint, &place.model);
                state.desks[endpoint].breaker.learn(Verdict::None, now);
            }
        }
    }

    /// Waits for a place at an endpoint of the model that was not tried yet: for a slot as long as it takes, for an endpoint
    /// to come up as long as the pool's patience lasts.
    pub(super) async fn place(
        self: &Arc<Self>,
        model: &Arc<str>,
        tried: &[usize],
        cancel: &CancellationToken,
    ) -> Result<Place, NoPlace> {
        let mut changes = self.changes();
        let (tell, mut coming) = oneshot::channel();
        let _ticket = {
            let mut state = self.state();
            let number = state.next_ticket;
            state.next_ticket += 1;
            state.waiting.push_back(Waiter { ticket: number, model: Arc::clone(model), tried: tried.to_vec(), tell });
            Ticket { shared: self, number }
        };
        let mut down_since = None;
        loop {
            changes.borrow_and_update();
            let now = now();
            let outlook = {
                let mut state = self.state();
                self.seat(&mut state, now);
                self.choose(&state, model, tried, now)
            };
            if let Ok(place) = coming.try_recv() {
                return Ok(place);
            }
            let wake = match outlook {
                Choice::Take(_) | Choice::Wait => {
                    down_since = None;
                    None
                }
                Choice::Down { until } => {
                    let give_up = *down_since.get_or_insert(now) + self.options.patience;
                    if now >= give_up {
                        return Err(NoPlace::Down);
                    }
                    Some(until.map_or(give_up, |until| until.min(give_up)))
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(NoPlace::Cancelled),
                Ok(place) = &mut coming => return Ok(place),
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep_until(wake.unwrap_or(now).into()), if wake.is_some() => {}
            }
        }
    }
}
