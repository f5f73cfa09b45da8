//! What the tests are made of: fakes, servers of the other side, and the contract suites every adapter must pass.

pub mod gate;
pub mod inference_contract;
pub mod input_sources;
pub mod lnurl_service;
pub mod market;
pub mod nwc_service;
#[cfg(feature = "ldk")]
pub mod regtest;
pub mod relay;
#[cfg(all(test, feature = "mistralrs"))]
pub mod tiny_folder;
pub mod wallet_contract;
pub mod wallet_servers;
