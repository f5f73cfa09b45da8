//! What the tests are made of: fakes, servers of the other side, and the contract suites every adapter must pass.

pub mod gate;
pub mod inference_contract;
pub mod input_sources;
pub mod market;
pub mod nwc_service;
pub mod relay;
pub mod wallet_contract;
pub mod wallet_servers;
