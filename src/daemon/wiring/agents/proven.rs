//! What is proven to work now, and what is not: nobody is promised a sandbox that was not seen to work.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::OpenAgents;
use crate::config::{Config, Paths};
use crate::daemon::service::AdPlan;
use crate::daemon::wiring::offers::{Choices, Sold, ad_plan, sold};
use crate::daemon::wiring::{configured_models, pool, read_limits};
use crate::identity::{Identity, Signer};
use crate::job::JobKind;
use crate::nip90::Codec;
use crate::provider::Clock;
use crate::relays::{Publisher, Query, RelayPool};

/// How long relays are asked for ads of ours before they are taken back.
const LOOK_PATIENCE: Duration = Duration::from_secs(10);

/// A kind of job that the configuration sells, and that is not offered now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// Which.
    pub kind: JobKind,
    /// Why, for the operator.
    pub why: String,
}

impl OpenAgents {
    /// Takes out what can't be done now, and says why.
    pub fn keep_what_works(&self, config: &Config, sold: &mut Vec<Sold>) -> Vec<Withheld> {
        let missing = sold.iter().filter_map(|sold| {
            let why = self.what_is_missing(config, sold.kind)?;
            Some(Withheld { kind: sold.kind, why })
        });
        let withheld: Vec<Withheld> = missing.collect();
        sold.retain(|sold| withheld.iter().all(|withheld| withheld.kind != sold.kind));
        withheld
    }

    fn what_is_missing(&self, config: &Config, kind: JobKind) -> Option<String> {
        let (runtime, image) = match kind {
            JobKind::SandboxRun => (config.agents.sandbox_run.runtime, None),
            JobKind::PatchGen => (config.agents.patch_gen.runtime, config.agents.patch_gen.image.as_deref()),
            JobKind::TextGeneration | JobKind::RepoIndex | JobKind::CodeReview => return None,
        };
        let images = self.images.get(&runtime).map(Vec::as_slice).unwrap_or_default();
        if !images.iter().any(|found| image.is_none_or(|wanted| found.name == wanted)) {
            return Some(format!("no engine has a usable image and the runtime {runtime}"));
        }
        let lacks_git = kind == JobKind::PatchGen && !self.patches_with_git;
        lacks_git.then(|| "its image has no git".to_owned())
    }

    /// Leaves the engines alone: for those who only looked.
    pub async fn close(self) {
        if let Some(hosts) = self.hosts {
            hosts.shut_down().await;
        }
    }
}

/// The ads of what works now, and what is left out of them: what `coinop serve` would say at its start, short of asking
/// models. The engines are tried, which takes seconds.
///
/// # Errors
/// As [`OpenAgents::open`].
pub async fn proven_ads(config: &Config, paths: &Paths, identity: &Identity) -> Result<(AdPlan, Vec<Withheld>)> {
    let codec = Codec::new(identity.signer.clone(), read_limits(config));
    let mut sold = sold(config);
    let agents = OpenAgents::open(config, paths, &codec).await?;
    let withheld = agents.keep_what_works(config, &mut sold);
    let choices = Choices { models: configured_models(&config.inference), images: agents.images(config) };
    agents.close().await;
    let ads = ad_plan(config, &sold, &choices, &BTreeMap::new());
    Ok((AdPlan { withheld: withheld.iter().map(|withheld| withheld.kind).collect(), ..ads }, withheld))
}

/// Takes back what stands on the relays of these kinds, for a provider that does not start for having nothing to offer.
/// Only what stands there: whoever is started again and again must not fill the relays.
pub async fn take_back(config: &Config, signer: &Signer, kinds: &[JobKind]) {
    let mut relays = pool(config);
    // Each is waited for: one that keeps the ad promises on.
    relays.quorum = relays.relays.len();
    let relays = match RelayPool::connect(relays, signer, None).await {
        Ok(relays) => relays,
        Err(problem) => return tracing::warn!(%problem, "The ads could not be taken back"),
    };
    let us = signer.provider_id();
    let mut standing = Vec::new();
    for kind in kinds {
        if !relays.fetch(&Query::ads(*kind, &[us]), LOOK_PATIENCE).await.is_empty() {
            standing.push(*kind);
        }
    }
    if !standing.is_empty() {
        let codec = Codec::new(signer.clone(), read_limits(config));
        match codec.withdrawal(&standing, Clock::system().now()) {
            Ok(event) if relays.publish(&event, &[]).await.quorum => tracing::info!("Took back the ads"),
            Ok(_) => tracing::warn!("Not every relay took the ads back; 'coinop ad withdraw' tries again"),
            Err(problem) => tracing::warn!(%problem, "The withdrawal could not be written"),
        }
    }
    relays.shutdown().await;
}
