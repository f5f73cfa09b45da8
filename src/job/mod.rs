//! A job from request to delivery, as pure functions: nothing here waits, reads a clock or speaks to anybody.
//!
//! [`request`] is what a customer asked, [`quote`] what we ask for it, [`state`] where it stands, [`event`] what can
//! happen to it, [`effect`] what must be done about it, and [`transition`] the one function that ties them together.
//! [`queue`] says whose turn it is.

pub mod admission;
pub mod code_review;
pub mod effect;
pub mod event;
pub mod globs;
pub mod id;
pub mod kind;
pub mod outcome;
pub mod patch_gen;
pub mod path;
pub mod pricing;
pub mod queue;
pub mod quote;
pub mod reading;
pub mod refusal;
pub mod repo_index;
pub mod request;
pub mod sandbox_run;
pub mod schema;
pub mod state;
pub mod text;
pub mod transition;

pub use effect::{Effect, EffectKey, Notice};
pub use event::{Canceller, JobEvent, Purse};
pub use id::{CustomerId, JobId};
pub use kind::JobKind;
pub use outcome::{Compute, Failure, FinishReason, Outcome, TokenRate, Usage};
pub use path::{BadPath, RelativePath};
pub use pricing::Rates;
pub use quote::{Estimate, Quote, QuoteDraft, Terms};
pub use refusal::{Code, Refusal};
pub use request::{Encryption, Input, InputKind, JobRequest, Params};
pub use state::{Job, PaidBy, PaymentState, WorkState};
pub use transition::{Context, IllegalMove, TooDear, Transition};
