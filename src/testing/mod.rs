pub mod inference_contract;
pub mod input_sources;
