//! How tokens are chosen. The engine's sampler has no seed: one generator of fixed seed serves all requests in turn. So
//! tokens are drawn here, in the hook the engine offers between its penalties and its sampler, and the engine's sampler
//! only takes the one that is left.
//!
//! Where a grammar forbids the token drawn, the engine takes the model's logits once more, with those of all forbidden
//! tokens at negative infinity, and asks again, penalties and this hook included. That is a draw of its own for the same
//! place.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU32, Ordering as Memory};
use std::sync::{Arc, Mutex, PoisonError};

use mistralrs::{CustomLogitsProcessor, SamplingParams, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::job::text::Sampling;

/// What `None` means, as in llama.cpp, so that one model answers alike on both.
const DEFAULT_TEMPERATURE: f64 = 0.8;
const DEFAULT_TOP_K: u32 = 40;
const DEFAULT_TOP_P: f64 = 0.95;
/// Below this the most likely token is taken: the division would overflow.
const GREEDY_BELOW: f64 = 1e-3;
/// The logit of tokens not drawn. Finite: the engine computes with it.
const NOT_DRAWN: f32 = f32::MIN;

/// The engine's parameters: penalties and length. The rest is [`Draw`]'s.
pub(super) fn engine_params(sampling: &Sampling, max_tokens: u32) -> SamplingParams {
    // The engine knows f32 only; the values are small.
    let single = |value: Option<f64>| value.map(|value| value as f32);
    SamplingParams {
        temperature: Some(0.0),
        frequency_penalty: single(sampling.frequency_penalty),
        presence_penalty: single(sampling.presence_penalty),
        repetition_penalty: single(sampling.repeat_penalty),
        max_len: Some(max_tokens as usize),
        ..SamplingParams::deterministic()
    }
}

/// No token's number.
const NO_TOKEN: u32 = u32::MAX;

/// What was drawn for one answer, as the engine goes on.
#[derive(Debug)]
pub(super) struct Drawn {
    /// Tokens, the end-of-sequence token included.
    count: AtomicU32,
    /// The last one, where it was drawn here.
    last: AtomicU32,
}

impl Default for Drawn {
    fn default() -> Self {
        Self { count: AtomicU32::new(0), last: AtomicU32::new(NO_TOKEN) }
    }
}

impl Drawn {
    /// How many tokens.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Memory::SeqCst)
    }

    /// Whether the last one ends an answer. Greedy answers are not drawn here: never.
    pub(super) fn ended_by(&self, end_tokens: &[u32]) -> bool {
        end_tokens.contains(&self.last.load(Memory::SeqCst))
    }
}

/// Draws the tokens of one answer, and counts them.
#[derive(Debug)]
pub(super) struct Draw {
    temperature: f64,
    top_k: usize,
    top_p: f64,
    seed: u64,
    drawn: Arc<Drawn>,
    last: Mutex<Place>,
}

/// Where in an answer a token is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    /// Tokens in front of it, the prompt's included; never 0.
    position: usize,
    /// Draws there before this one.
    again: u64,
}

impl Draw {
    /// For one answer. `drawn` counts its tokens, the end-of-sequence token included.
    pub(super) fn new(sampling: &Sampling, drawn: Arc<Drawn>) -> Self {
        Self {
            temperature: sampling.temperature.unwrap_or(DEFAULT_TEMPERATURE),
            top_k: sampling.top_k.unwrap_or(DEFAULT_TOP_K).max(1) as usize,
            top_p: sampling.top_p.unwrap_or(DEFAULT_TOP_P),
            seed: sampling.seed.unwrap_or_else(rand::random),
            drawn,
            last: Mutex::default(),
        }
    }

    /// The place of this draw. Counts the token when it is the first one there.
    fn place(&self, position: usize) -> Place {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.position == position {
            last.again += 1;
        } else {
            *last = Place { position, again: 0 };
            self.drawn.count.fetch_add(1, Memory::SeqCst);
        }
        *last
    }

    /// The token at a place: of the likeliest `top_k` those that make up `top_p` of all probability, one drawn by its
    /// share. The same seed, place and logits give the same token.
    fn pick(&self, logits: &[f32], place: Place) -> usize {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // Ties go to the lower index, so that equal logits give equal answers.
        let likelier = |a: &usize, b: &usize| {
            logits[*b].partial_cmp(&logits[*a]).unwrap_or(Ordering::Equal).then_with(|| a.cmp(b))
        };
        if self.top_k < order.len() {
            order.select_nth_unstable_by(self.top_k, likelier);
            order.truncate(self.top_k);
        }
        order.sort_unstable_by(likelier);

        let Some(&best) = order.first() else { return 0 };
        let weight = |index: usize| ((f64::from(logits[index]) - f64::from(logits[best])) / self.temperature).exp();
        let all: f64 = (0..logits.len()).map(weight).filter(|weight| weight.is_finite()).sum();
        let mut kept = Vec::with_capacity(order.len());
        let mut reached = 0.0;
        for index in order {
            let share = weight(index);
            kept.push((index, share));
            reached += share;
            if reached >= self.top_p * all {
                break;
            }
        }
        let mut left = self.generator(place).gen_range(0.0..1.0) * reached;
        kept.iter()
            .find(|(_, share)| {
                left -= share;
                left < 0.0
            })
            .map_or(best, |(index, _)| *index)
    }

    /// A fresh generator for each draw: it doesn't depend on what ran before, nor on the draw that was forbidden.
    fn generator(&self, place: Place) -> StdRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&(place.position as u64).to_le_bytes());
        seed[16..24].copy_from_slice(&place.again.to_le_bytes());
        StdRng::from_seed(seed)
    }
}

impl CustomLogitsProcessor for Draw {
    fn apply(&self, logits: &Tensor, context: &[u32]) -> mistralrs::Result<Tensor> {
        let place = self.place(context.len());
        if self.temperature < GREEDY_BELOW {
            return Ok(logits.clone());
        }
        let values = logits.to_vec1::<f32>()?;
        let mut only = vec![NOT_DRAWN; values.len()];
        let picked = self.pick(&values, place);
        if let Some(drawn) = only.get_mut(picked) {
            *drawn = 0.0;
        }
        self.drawn.last.store(u32::try_from(picked).unwrap_or(NO_TOKEN), Memory::SeqCst);
        Tensor::from_vec(only, values.len(), logits.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: Sampling) -> Draw {
        Draw::new(&sampling, Arc::default())
    }

    fn at(position: usize) -> Place {
        Place { position, again: 0 }
    }

    fn seeded(seed: u64) -> Sampling {
        Sampling { seed: Some(seed), temperature: Some(1.0), top_p: Some(1.0), top_k: Some(100), ..Sampling::default() }
    }

    #[test]
    fn a_seed_repeats_the_draw_and_another_one_does_not() {
        let logits = [1.0; 100];
        let answer = |seed| (0..50).map(|position| draw(seeded(seed)).pick(&logits, at(position))).collect::<Vec<_>>();
        assert_eq!(answer(7), answer(7));
        assert_ne!(answer(7), answer(8));
    }

    #[test]
    fn tokens_are_drawn_by_their_share() {
        let logits = [3.0f32.ln(), 1.0f32.ln()];
        let draw = draw(seeded(1));
        let first = (0..4_000).filter(|position| draw.pick(&logits, at(*position)) == 0).count();
        assert!((2_850..3_150).contains(&first), "{first} of 4,000 instead of 3,000");
    }

    #[test]
    fn top_k_and_top_p_keep_the_unlikely_out() {
        let logits: Vec<f32> = (0..100u8).map(|n| f32::from(n) / 50.0).collect();
        let top_k = draw(Sampling { top_k: Some(2), ..seeded(3) });
        assert!((0..500).all(|position| top_k.pick(&logits, at(position)) >= 98));
        let top_p = draw(Sampling { top_p: Some(0.01), ..seeded(3) });
        assert!((0..500).all(|position| top_p.pick(&logits, at(position)) == 99));
    }

    #[test]
    fn penalties_and_length_are_the_engines() {
        let sampling = Sampling {
            frequency_penalty: Some(0.5),
            presence_penalty: Some(-0.5),
            repeat_penalty: Some(1.25),
            ..seeded(1)
        };
        let params = engine_params(&sampling, 42);
        assert_eq!(params.frequency_penalty, Some(0.5));
        assert_eq!(params.presence_penalty, Some(-0.5));
        assert_eq!(params.repetition_penalty, Some(1.25));
        assert_eq!(params.max_len, Some(42));
        assert_eq!(params.temperature, Some(0.0), "the draw is ours");
    }

    #[test]
    fn a_forbidden_token_is_drawn_again_by_the_shares_of_the_rest() {
        // One half is forbidden; of the rest the second has three quarters.
        let [free, masked] = [[4.0f32, 3.0, 1.0], [0.0, 3.0, 1.0]].map(|shares| shares.map(f32::ln));
        let draw = draw(seeded(5));
        let redrawn = (0..8_000).filter(|position| draw.pick(&free, at(*position)) == 0);
        let picks: Vec<usize> = redrawn.map(|position| draw.pick(&masked, Place { position, again: 1 })).collect();
        assert!(picks.iter().all(|pick| *pick != 0), "a forbidden token was drawn");
        let second = picks.iter().filter(|pick| **pick == 1).count();
        assert!((70..80).contains(&(second * 100 / picks.len())), "{second} of {}", picks.len());
    }

    #[test]
    fn a_token_drawn_twice_counts_once() {
        let drawn = Arc::<Drawn>::default();
        let draw = Draw::new(&Sampling::default(), Arc::clone(&drawn));
        let places: Vec<Place> = [7, 7, 8, 9, 9].map(|position| draw.place(position)).to_vec();
        assert_eq!(places.iter().map(|place| place.again).collect::<Vec<_>>(), [0, 1, 0, 0, 1]);
        assert_eq!(drawn.count(), 3);
    }

    #[test]
    fn odd_logits_do_not_panic() {
        let draw = draw(seeded(1));
        for logits in [&[][..], &[f32::NAN, f32::NAN], &[f32::NEG_INFINITY, 0.0], &[f32::INFINITY, 0.0]] {
            assert!(draw.pick(logits, at(0)) <= 1);
        }
    }
}
