//! The tables and how they came to be. Migrations are only ever added.

use rusqlite_migration::{M, Migrations};

/// Every migration in order.
pub(super) fn migrations() -> Migrations<'static> {
    Migrations::new(vec![M::up(include_str!("0001_foundation.sql"))])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_migrations_are_valid() {
        assert_eq!(super::migrations().validate(), Ok(()));
    }
}
