//! The sections about sandboxes and what is done in them, as they are written.

use serde::{Deserialize, Serialize};

use crate::config::raw::section;

section! {
    /// `[sandbox]`: where strangers' commands run.
    RawSandbox {
        /// `[[sandbox.hosts]]`. Left out when empty: TOML has no way to add to a list that is written as empty.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        hosts: Vec<RawHost> = Vec::new(),
        /// `[[sandbox.images]]`
        #[serde(skip_serializing_if = "Vec::is_empty")]
        images: Vec<RawImage> = Vec::new(),
        /// How often leftovers are looked for.
        sweep_every: String = "10m".into(),
    }
}

section! {
    /// `[[sandbox.hosts]]`: one container engine.
    RawHost {
        /// What the operator calls it; empty for its address.
        name: String = String::new(),
        /// `unix:///path` or `tcp://host:port`.
        address: String = "unix:///var/run/docker.sock".into(),
        /// Path of the certificate authority, for TLS.
        ca: String = String::new(),
        /// Path of our certificate, for TLS.
        certificate: String = String::new(),
        /// Path of our key, for TLS.
        key: String = String::new(),
        /// runsc, runc.
        runtimes: Vec<String> = vec!["runsc".into()],
        /// Cells at once.
        slots: u32 = 2,
        /// MiB of its memory that cells may have together; 0 for all of it.
        memory_mib: u32 = 0,
    }
}

section! {
    /// `[[sandbox.images]]`: what a cell is made from.
    RawImage {
        /// What customers call it.
        name: String = String::new(),
        /// What the engine calls it.
        reference: String = String::new(),
    }
}

section! {
    /// `[repositories]`: fetching strangers' repositories.
    RawRepositories {
        /// MiB.
        max_mib: u32 = 256,
        /// Files.
        max_files: u32 = 50_000,
        /// Duration.
        time_limit: String = "2m".into(),
        /// MiB of the cache in all.
        cache_mib: u32 = 2_048,
        /// Whether loopback and private addresses may be fetched from.
        allow_private: bool = false,
    }
}

section! {
    /// `[files]`: where results go that no event has room for.
    RawFiles {
        /// Address of a Blossom server.
        server: String = String::new(),
        /// MiB of one file.
        max_mib: u32 = 32,
    }
}

section! {
    /// `[sandbox_run]`: kind 5930.
    RawSandboxRun {
        /// Whether it is sold.
        enabled: bool = false,
        /// Terms of payment.
        terms: String = "prepay".into(),
        /// Amount.
        base: String = "2sat".into(),
        /// Amount a second.
        per_second: String = "50msat".into(),
        /// Amount a gigabyte of memory and minute.
        per_gb_minute: String = "1sat".into(),
        /// Free jobs a key and day.
        free_per_day: u32 = 0,
        /// What cells run under.
        runtime: String = "runsc".into(),
        /// The longest run.
        time_limit: String = "10m".into(),
        /// MiB.
        max_memory_mib: u32 = 2_048,
        /// MiB.
        max_disk_mib: u32 = 1_024,
        /// Cores.
        max_cpus: u32 = 2,
    }
}

section! {
    /// `[repo_index]`: kind 5931.
    RawRepoIndex {
        /// Whether it is sold.
        enabled: bool = false,
        /// Terms of payment.
        terms: String = "prepay".into(),
        /// Amount.
        base: String = "5sat".into(),
        /// Amount a second.
        per_second: String = "100msat".into(),
        /// Amount for 1,000 tokens embedded.
        per_1k_prompt: String = "50msat".into(),
        /// Free jobs a key and day.
        free_per_day: u32 = 0,
        /// The longest run.
        time_limit: String = "5m".into(),
        /// Whether embeddings are sold, where a model server makes them.
        embeddings: bool = true,
    }
}

section! {
    /// `[patch_gen]`: kind 5932.
    RawPatchGen {
        /// Whether it is sold.
        enabled: bool = false,
        /// Terms of payment.
        terms: String = "hold".into(),
        /// Amount.
        base: String = "10sat".into(),
        /// Amount for 1,000 tokens read.
        per_1k_prompt: String = "100msat".into(),
        /// Amount for 1,000 tokens written.
        per_1k_generated: String = "2sat".into(),
        /// Amount a second.
        per_second: String = "50msat".into(),
        /// Amount a gigabyte of memory and minute.
        per_gb_minute: String = "1sat".into(),
        /// Free jobs a key and day.
        free_per_day: u32 = 0,
        /// What cells run under.
        runtime: String = "runsc".into(),
        /// An image's name; empty for the first.
        image: String = String::new(),
        /// The longest run.
        time_limit: String = "15m".into(),
        /// Commands of the agent.
        max_steps: u32 = 40,
        /// Tokens read over all steps.
        max_prompt_tokens: u32 = 400_000,
        /// Tokens written over all steps.
        max_generated_tokens: u32 = 32_000,
        /// MiB.
        memory_mib: u32 = 1_024,
        /// MiB.
        disk_mib: u32 = 1_024,
        /// Cores.
        cpus: u32 = 1,
        /// `[patch_gen.agent]`
        agent: RawAgent = RawAgent::default(),
    }
}

section! {
    /// `[patch_gen.agent]`: an agent program instead of coinop's own loop.
    RawAgent {
        /// The command; empty for coinop's own loop.
        command: String = String::new(),
        /// Address of the one endpoint its model traffic may reach.
        endpoint: String = String::new(),
        /// Reference to the key the endpoint wants.
        key: String = String::new(),
        /// auto, bearer, x-api-key.
        key_header: String = "auto".into(),
        /// The only model it may use.
        model: String = String::new(),
        /// Parameters of that model; 0 for unknown.
        parameters: u64 = 0,
        /// Variables as KEY=VALUE.
        env: Vec<String> = Vec::new(),
    }
}

section! {
    /// `[code_review]`: kind 5933.
    RawCodeReview {
        /// Whether it is sold.
        enabled: bool = false,
        /// Terms of payment.
        terms: String = "prepay".into(),
        /// Amount.
        base: String = "5sat".into(),
        /// Amount for 1,000 tokens read.
        per_1k_prompt: String = "500msat".into(),
        /// Amount for 1,000 tokens written.
        per_1k_generated: String = "2sat".into(),
        /// Free jobs a key and day.
        free_per_day: u32 = 0,
        /// The longest run.
        time_limit: String = "5m".into(),
        /// Tokens written.
        max_generated_tokens: u32 = 8_192,
    }
}
