-- What each finished job took, for reports: kept like the books, when its request and result are forgotten.
CREATE TABLE work_done (
    job              BLOB PRIMARY KEY NOT NULL,
    kind             INTEGER NOT NULL,
    -- When the work was finished.
    at               INTEGER NOT NULL,
    prompt_tokens    INTEGER NOT NULL,
    generated_tokens INTEGER NOT NULL,
    -- NULL: the model's parameter count is unknown.
    mflops           INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX work_done_by_time ON work_done (at);

-- Of older jobs as far as their results are still there. When they were finished is not kept; they were done soon before they
-- last changed.
INSERT INTO work_done (job, kind, at, prompt_tokens, generated_tokens, mflops)
    SELECT jobs.id, jobs.kind, jobs.changed_at,
           coalesce(json_extract(outcome, '$.usage.prompt_tokens'), 0),
           coalesce(json_extract(outcome, '$.usage.generated_tokens'), 0),
           2 * json_extract(outcome, '$.parameters')
             * (json_extract(outcome, '$.usage.prompt_tokens') + json_extract(outcome, '$.usage.generated_tokens')) / 1000000
    FROM results JOIN jobs ON jobs.id = results.job;
