//! The inference bench: what coinop adds to a call of a model, and what an engine gives with several jobs in flight.
//!
//! `cargo bench --bench inference` (see `docs/benchmarks.md`). The limit found in the same run is the bare backend: the
//! same prompt, sent to the same server by a few lines of HTTP, or to the engine in this process, with nothing in between.
//! It prints figures and fails only when an answer was wrong or lost.

#![allow(missing_docs)] // A program, not an interface.

mod bare;
mod figures;
mod in_flight;
mod layers;
#[path = "../shared/mod.rs"]
mod shared;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use coinop::inference::Inference;
use coinop::inference::http::ServerOptions;
use coinop::inference::llama_cpp::{LlamaCpp, LlamaCppConfig};
use coinop::testing::llama_server::LlamaServer;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Answers a layer.
    answers: usize,
    /// Jobs for each number in flight.
    jobs: usize,
}

fn main() -> ExitCode {
    shared::main(async |quick| {
        let size = if quick { Size { answers: 3, jobs: 8 } } else { Size { answers: 60, jobs: 64 } };
        run(size).await
    })
}

async fn run(size: Size) -> Result<()> {
    match LlamaServer::start().await {
        Some(server) => {
            let config = LlamaCppConfig {
                url: server.url(),
                key: None,
                model_name: None,
                slots: None,
                options: ServerOptions::default(),
            };
            let backend: Arc<dyn Inference> = Arc::new(LlamaCpp::new(config)?);
            backend.models().await?;
            println!("\n## llama.cpp server (another process, over HTTP)\n");
            let bare = bare::over_http(&server.url(), size.answers).await?;
            layers::measure(bare, Arc::clone(&backend), size).await?;
            in_flight::measure("llama.cpp server, 4 slots", backend, size).await?;
        }
        None => println!("No llama.cpp server: COINOP_TEST_LLAMA_SERVER names the program (docs/testing.md)."),
    }
    in_process(size).await
}

#[cfg(feature = "mistralrs")]
async fn in_process(size: Size) -> Result<()> {
    use coinop::inference::mistral_rs::{MistralRs, MistralRsConfig};
    use coinop::inference::tiny;
    let folder = tempfile::tempdir()?;
    let before = figures::memory();
    let model_path = tiny::write_to(folder.path())?;
    let loaded = MistralRs::load(MistralRsConfig { model_path, ..MistralRsConfig::default() }, |_| {}).await?;
    let backend: Arc<dyn Inference> = Arc::new(loaded);
    let after = figures::memory();
    println!("\n## mistral.rs (in this process)\n");
    let bare = bare::in_process(backend.as_ref(), size.answers).await?;
    layers::measure(bare, Arc::clone(&backend), size).await?;
    in_flight::measure("mistral.rs, one at a time on a CPU", backend, size).await?;
    println!(
        "\nMemory of this process: {} MiB before the model was loaded, {} MiB after, {} MiB at the end.",
        before,
        after,
        figures::memory()
    );
    Ok(())
}

#[cfg(not(feature = "mistralrs"))]
async fn in_process(_: Size) -> Result<()> {
    println!("Built without the engine: in-process figures are left out.");
    Ok(())
}
