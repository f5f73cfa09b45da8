//! Buys: posts a job, chooses among the offers, pays within a limit, and collects the result.
//!
//! [`purchase`] decides (pure), [`buyer`] does. The rule: at most one payment a job, only to the provider chosen, only of an
//! invoice whose amount is what was said and within the limit, and only that provider's result counts afterwards.

pub mod buyer;
pub mod purchase;

pub use buyer::{BuyError, Buyer, Plan, Progress};
pub use purchase::{Choice, Limits, Offer, Purchase, Receipt, Step};
