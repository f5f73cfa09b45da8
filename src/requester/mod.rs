//! Buys: posts a job, chooses among the offers, pays within a limit, and collects the result.
//!
//! [`purchase`] decides (pure), [`buyer`] does, [`calling_off`] ends it for a customer who changed their mind, [`book`]
//! remembers what was paid. The rule: at most one payment a job, only to the provider chosen, only of an invoice whose amount
//! is what was said and within the limits, never of an invoice that stands in the book, and only that provider's result
//! counts afterwards.

pub mod book;
pub mod buyer;
pub mod calling_off;
pub mod purchase;

pub use book::{Book, NotBegun, Reconciled, fee_limit};
pub use buyer::{BuyError, Buyer, Fate, Plan, Progress};
pub use calling_off::CalledOff;
pub use purchase::{Choice, Limits, Offer, Purchase, Receipt, Step};
