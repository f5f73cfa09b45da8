//! The running program: [`wiring`] puts the parts together (the one place that names concrete ones), [`service`] starts and
//! stops them in order, [`tasks`] owns what runs for long, [`signals`] says when to stop, [`checkup`] whether it would
//! work.

pub mod checkup;
pub mod lock;
pub mod service;
pub mod signals;
pub mod tasks;
pub mod wiring;
mod zaps;
