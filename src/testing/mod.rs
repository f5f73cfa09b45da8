//! What the tests are made of: fakes, servers of the other side, and the contract suites every adapter must pass.

pub mod blossom_server;
pub mod embedding_contract;
pub mod engine;
pub mod faulty_server;
pub mod gate;
pub mod git_image;
pub mod git_server;
pub mod inference_contract;
pub mod inference_faults;
pub mod input_sources;
pub mod llama_server;
pub mod lnurl_service;
pub mod market;
pub mod nwc_service;
pub mod ollama_server;
pub mod openai_server;
pub mod own_image;
pub mod python_image;
#[cfg(feature = "ldk")]
pub mod regtest;
pub mod relay;
pub mod requests;
pub mod require;
pub mod scripted_model;
pub mod scripted_sandbox;
#[cfg(all(test, feature = "mistralrs"))]
pub mod tiny_folder;
pub mod wallet_contract;
pub mod wallet_servers;
