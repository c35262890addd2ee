-- What is finished does not stay for ever. Numbers are given out once all the same: the highest of
-- what was deleted are in `meta` from now on, so that events may go too and need no index by job.

INSERT INTO meta (key, value)
SELECT 'highest_run', CAST(coalesce(max(n), 0) AS TEXT)
FROM (SELECT max(id) AS n FROM runs UNION ALL SELECT max(run_id) FROM events) AS known;

INSERT INTO meta (key, value)
SELECT 'highest_job', CAST(coalesce(max(n), 0) AS TEXT)
FROM (SELECT max(id) AS n FROM jobs UNION ALL SELECT max(job_id) FROM events) AS known;

DROP INDEX events_by_job;

-- When a request was made. Of earlier ones only the latest moment is known.
ALTER TABLE requests ADD COLUMN at DOUBLE PRECISION NOT NULL DEFAULT 0;

UPDATE requests SET at = coalesce((SELECT at FROM events ORDER BY seq DESC LIMIT 1), 0);
