//! Which of several models suits a machine: the largest that fits, and why not the next one. Pure.

use std::fmt;

use serde::Serialize;

use super::{Gibibytes, Hardware};

/// What the rest of the machine needs beside a model in memory: a system, its files, coinop.
const RESERVED_MEMORY: u64 = 2 * 1024 * 1024 * 1024;

/// Of a graphics processor's memory this share in percent stays with its driver, and with what an engine computes in.
const RESERVED_VRAM_PERCENT: u64 = 10;

/// The least a context takes, whatever the model.
const LEAST_KV_BYTES: u64 = 256 * 1024 * 1024;

/// A model that might run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What it is called.
    pub name: String,
    /// Bytes of its weights: the size of its files. `None` when nobody tells.
    pub bytes: Option<u64>,
    /// Bytes of a full context (keys and values of every layer); else [`rule_of_thumb_kv_bytes`].
    pub kv_bytes: Option<u64>,
}

/// Where a model fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "fit")]
pub enum Fit {
    /// In the memory of the graphics processors, all together.
    Gpu {
        /// Bytes it takes.
        needs: u64,
    },
    /// In memory only: it runs on the CPU, or partly so.
    Memory {
        /// Bytes it takes.
        needs: u64,
    },
    /// Nowhere.
    TooLarge {
        /// Bytes it takes.
        needs: u64,
        /// Bytes there are for it.
        has: u64,
    },
    /// Nobody tells its size.
    Unknown,
}

impl Fit {
    fn rank(self) -> u8 {
        match self {
            Self::Gpu { .. } => 2,
            Self::Memory { .. } => 1,
            Self::TooLarge { .. } | Self::Unknown => 0,
        }
    }

    fn needs(self) -> u64 {
        match self {
            Self::Gpu { needs } | Self::Memory { needs } | Self::TooLarge { needs, .. } => needs,
            Self::Unknown => 0,
        }
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Gpu { needs } => write!(f, "takes {} and fits into GPU memory", Gibibytes(needs)),
            Self::Memory { needs } => write!(f, "takes {} and fits into memory, for the CPU", Gibibytes(needs)),
            Self::TooLarge { needs, has } => {
                write!(f, "takes {}, and there are {} for it", Gibibytes(needs), Gibibytes(has))
            }
            Self::Unknown => f.write_str("of unknown size"),
        }
    }
}

/// What [`recommend`] says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Recommendation {
    /// The largest that fits.
    pub chosen: Option<String>,
    /// What is said of each, in the order they were given.
    pub verdicts: Vec<(String, Fit)>,
}

impl Recommendation {
    /// The smallest model that is larger than the chosen one, and where it fits worse or not at all.
    pub fn next(&self) -> Option<&(String, Fit)> {
        let chosen = self.verdicts.iter().find(|(name, _)| Some(name) == self.chosen.as_ref()).map(|(_, fit)| *fit);
        let (rank, size) = chosen.map_or((1, 0), |fit| (fit.rank(), fit.needs()));
        let larger = self
            .verdicts
            .iter()
            .filter(|(_, fit)| *fit != Fit::Unknown && fit.rank() < rank.max(1) && fit.needs() >= size);
        larger.min_by_key(|(_, fit)| fit.needs())
    }

    /// The recommendation in a sentence, and why not the next larger model. `None` when nothing is known.
    pub fn sentence(&self) -> Option<String> {
        let fit_of = |name: &str| self.verdicts.iter().find(|(of, _)| of == name).map(|(_, fit)| *fit);
        let next = self.next().map(|(name, fit)| format!("{name} {fit}"));
        match (&self.chosen, next) {
            (Some(chosen), None) => Some(format!("{chosen} suits this machine: it {}", fit_of(chosen)?)),
            (Some(chosen), Some(next)) => Some(format!("{chosen} suits this machine: it {}; {next}", fit_of(chosen)?)),
            (None, Some(next)) => Some(format!("none of the models fits this machine: {next}")),
            (None, None) => None,
        }
    }
}

/// What a context takes when a model's layers are not known: a fifth of its weights, and a quarter of a gibibyte at least.
/// That is above what models with grouped attention take for 8,192 tokens, at four bits a weight.
pub fn rule_of_thumb_kv_bytes(bytes: u64) -> u64 {
    (bytes / 5).max(LEAST_KV_BYTES)
}

/// The largest model that fits: into the memory of the graphics processors when one does, else into memory. What is in use
/// just now does not count, since it may be the very model that is asked about. Of two of one size the first is taken.
pub fn recommend(hardware: &Hardware, candidates: &[Candidate]) -> Recommendation {
    let vram: u64 = hardware.gpus.iter().map(|gpu| gpu.vram_total).fold(0, u64::saturating_add);
    let vram = vram - vram / 100 * RESERVED_VRAM_PERCENT;
    let memory = hardware.memory_total.saturating_sub(RESERVED_MEMORY);
    let verdict = |candidate: &Candidate| {
        let Some(bytes) = candidate.bytes else { return Fit::Unknown };
        let needs = bytes.saturating_add(candidate.kv_bytes.unwrap_or_else(|| rule_of_thumb_kv_bytes(bytes)));
        match needs {
            needs if needs <= vram => Fit::Gpu { needs },
            needs if needs <= memory => Fit::Memory { needs },
            needs => Fit::TooLarge { needs, has: vram.max(memory) },
        }
    };
    let verdicts: Vec<_> = candidates.iter().map(|candidate| (candidate.name.clone(), verdict(candidate))).collect();
    // The last of the largest, read backwards: the first.
    let best = verdicts.iter().rev().filter(|(_, fit)| fit.rank() > 0).max_by_key(|(_, fit)| (fit.rank(), fit.needs()));
    Recommendation { chosen: best.map(|(name, _)| name.clone()), verdicts }
}

#[cfg(test)]
mod tests {
    use super::super::Gpu;
    use super::*;

    const GIB: u64 = 1024 * 1024 * 1024;

    fn machine(memory: u64, gpus: &[u64]) -> Hardware {
        let gpu = |gib: &u64| Gpu { name: "GPU".into(), vram_total: gib * GIB, vram_free: 0 };
        Hardware { memory_total: memory * GIB, gpus: gpus.iter().map(gpu).collect(), ..Hardware::default() }
    }

    fn model(name: &str, gib: u64) -> Candidate {
        Candidate { name: name.into(), bytes: Some(gib * GIB), kv_bytes: Some(GIB) }
    }

    fn chosen(hardware: &Hardware, models: &[Candidate]) -> Option<String> {
        recommend(hardware, models).chosen
    }

    #[test]
    fn the_largest_that_fits_into_memory_is_chosen_and_the_next_one_says_what_it_lacks() {
        let models = [model("1b", 1), model("8b", 5), model("32b", 20), model("70b", 40)];
        let found = recommend(&machine(16, &[]), &models);
        assert_eq!(found.chosen.as_deref(), Some("8b"));
        assert_eq!(found.next(), Some(&("32b".into(), Fit::TooLarge { needs: 21 * GIB, has: 14 * GIB })));
        let said = found.sentence().unwrap();
        assert!(said.contains("8b suits this machine") && said.contains("32b takes 21.0 GiB, and there are 14.0 GiB"));
    }

    #[test]
    fn a_smaller_model_in_gpu_memory_beats_a_larger_one_beside_it() {
        let models = [model("70b", 40), model("8b", 5), model("32b", 20)];
        let found = recommend(&machine(128, &[12]), &models);
        assert_eq!(found.chosen.as_deref(), Some("8b"));
        assert_eq!(found.next(), Some(&("32b".into(), Fit::Memory { needs: 21 * GIB })));
        assert_eq!(chosen(&machine(128, &[24, 24, 24]), &models).as_deref(), Some("70b"), "several add up");
    }

    #[test]
    fn a_machine_too_small_for_any_says_so() {
        let found = recommend(&machine(4, &[]), &[model("8b", 5), model("3b", 2)]);
        assert_eq!(found.chosen, None);
        assert!(found.sentence().unwrap().starts_with("none of the models fits this machine: 3b takes 3.0 GiB"));
    }

    #[test]
    fn what_nobody_knows_the_size_of_is_never_recommended() {
        let nameless = Candidate { name: "api".into(), bytes: None, kv_bytes: None };
        let found = recommend(&machine(16, &[]), std::slice::from_ref(&nameless));
        assert_eq!((found.chosen.as_deref(), found.sentence()), (None, None));
        assert_eq!(found.verdicts, [("api".into(), Fit::Unknown)]);
        let found = recommend(&machine(16, &[]), &[nameless, model("8b", 5)]);
        assert_eq!((found.chosen.as_deref(), found.next()), (Some("8b"), None));
        assert_eq!(recommend(&machine(16, &[]), &[]), Recommendation::default());
    }

    #[test]
    fn a_context_counts_too_and_is_guessed_when_unknown() {
        let tight = |kv_bytes| Candidate { name: "m".into(), bytes: Some(13 * GIB), kv_bytes };
        assert_eq!(chosen(&machine(16, &[]), &[tight(Some(GIB))]).as_deref(), Some("m"));
        assert_eq!(chosen(&machine(16, &[]), &[tight(None)]), None);
        assert_eq!(rule_of_thumb_kv_bytes(0), LEAST_KV_BYTES);
    }

    #[test]
    fn of_two_of_one_size_the_first_is_taken() {
        assert_eq!(chosen(&machine(16, &[]), &[model("a", 5), model("b", 5)]).as_deref(), Some("a"));
    }
}
