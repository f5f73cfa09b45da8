-- Milliseconds in a sandbox, of the jobs that are charged for them. Jobs before this were in none.
ALTER TABLE work_done ADD COLUMN sandbox_ms INTEGER NOT NULL DEFAULT 0;
