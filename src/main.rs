//! The `coinop` program: dispatch only.

fn main() {}
