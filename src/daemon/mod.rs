//! The running program: [`wiring`] puts the parts together (the one place that names concrete ones), [`tasks`] owns what
//! runs for long.

pub mod tasks;
