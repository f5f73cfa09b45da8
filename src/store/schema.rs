//! The tables and how they came to be. Migrations are only ever added.

use rusqlite_migration::{M, Migrations};

/// Every migration in order.
pub(super) fn migrations() -> Migrations<'static> {
    Migrations::new(vec![
        M::up(include_str!("0001_foundation.sql")),
        M::up(include_str!("0002_zaps_and_refunds.sql")),
        M::up(include_str!("0003_work_done.sql")),
        M::up(include_str!("0004_sandbox_time.sql")),
    ])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_migrations_are_valid() {
        assert_eq!(super::migrations().validate(), Ok(()));
    }

    #[test]
    fn work_done_before_it_was_counted_is_counted() {
        let mut db = rusqlite::Connection::open_in_memory().unwrap();
        super::migrations().to_version(&mut db, 2).unwrap();
        let outcome = r#"{"usage": {"prompt_tokens": 10, "generated_tokens": 5}, "parameters": 885888}"#;
        let unknown = r#"{"usage": {"prompt_tokens": 1, "generated_tokens": 2}, "parameters": null}"#;
        for (job, outcome) in [(1, outcome), (2, unknown)] {
            db.execute(
                "INSERT INTO jobs (id, customer, kind, work, payment, terms, opened_at, changed_at, version, state)
                 VALUES (?1, x'00', 5050, 'delivered', 'free', 'free', 1, 2, 1, '{}')",
                [[job]],
            )
            .unwrap();
            db.execute(
                "INSERT INTO results (job, event, outcome) VALUES (?1, '{}', ?2)",
                rusqlite::params![[job], outcome],
            )
            .unwrap();
        }
        super::migrations().to_latest(&mut db).unwrap();
        let mut rows = db.prepare("SELECT kind, at, prompt_tokens, generated_tokens, mflops FROM work_done").unwrap();
        let counted: Vec<(i64, i64, i64, i64, Option<i64>)> = rows
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(counted, [(5050, 2, 10, 5, Some(26)), (5050, 2, 1, 2, None)]);
    }

    #[test]
    fn the_books_of_an_older_coinop_are_kept_to_the_last_posting() {
        let mut db = rusqlite::Connection::open_in_memory().unwrap();
        super::migrations().to_version(&mut db, 1).unwrap();
        db.execute_batch(
            "INSERT INTO entries VALUES (7, 1, x'01', 'payment'), (9, 2, x'02', 'earned');
             INSERT INTO postings VALUES (7, 'wallet', 5), (7, 'escrow:x', -5), (9, 'income:5050', -5), (9, 'escrow:x', 5);",
        )
        .unwrap();
        super::migrations().to_latest(&mut db).unwrap();
        let mut rows = db
            .prepare("SELECT entries.id, at, account, msat FROM entries JOIN postings ON entry = entries.id ORDER BY postings.rowid")
            .unwrap();
        let kept: Vec<(i64, i64, String, i64)> = rows
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(kept[0], (7, 1, "wallet".into(), 5));
        assert_eq!(kept[3], (9, 2, "escrow:x".into(), 5));
        assert_eq!(kept.len(), 4);
        // The references still hold.
        db.execute_batch(
            "PRAGMA foreign_keys = ON; INSERT INTO entries (at, job, reason) VALUES (3, NULL, 'refunded')",
        )
        .unwrap();
        assert!(db.execute("INSERT INTO postings VALUES (99, 'wallet', 1)", []).is_err());
    }
}
