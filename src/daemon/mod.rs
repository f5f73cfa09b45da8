//! The running program: [`wiring`] puts the parts together (the one place that names concrete ones), [`service`] starts and
//! stops them in order, [`tasks`] owns what runs for long, [`wiring::wallets`] opens the wallet for
//! it or for a command beside it, [`inventory`] tells what models there are, [`signals`] when to stop, [`checkup`] whether it would
//! work.

pub mod checkup;
pub mod inventory;
pub mod lock;
pub mod service;
pub mod signals;
pub mod tasks;
pub mod wiring;
mod zaps;
