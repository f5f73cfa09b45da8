//! Stand-ins for the world that tests, the demo and benchmarks share. Compiled always, because the demo uses them.

pub mod relay;
