-- name: note_run
-- Before a run is deleted: its number is never given out again.
INSERT INTO meta (key, value)
SELECT 'highest_run', CAST(id AS TEXT) FROM runs WHERE id = :id
ON CONFLICT (key) DO UPDATE SET value = excluded.value
WHERE CAST(meta.value AS BIGINT) < CAST(excluded.value AS BIGINT);

-- name: note_jobs
-- Before a run is deleted: nor are the numbers of its jobs.
INSERT INTO meta (key, value)
SELECT 'highest_job', CAST(max(id) AS TEXT) FROM jobs WHERE run_id = :id GROUP BY run_id
ON CONFLICT (key) DO UPDATE SET value = excluded.value
WHERE CAST(meta.value AS BIGINT) < CAST(excluded.value AS BIGINT);

-- name: raise_mark
-- A number below which nothing new is numbered, unless it is higher already.
INSERT INTO meta (key, value) VALUES (:key, :value)
ON CONFLICT (key) DO UPDATE SET value = excluded.value
WHERE CAST(meta.value AS BIGINT) < CAST(excluded.value AS BIGINT);

-- name: runs_in_order
-- Retention: what tells whether a run may go, in the order of numbers, after :after.
SELECT id, state, submitted_at, ended_at FROM runs WHERE id > :after ORDER BY id LIMIT :limit;

-- name: count_ended_runs
-- How many runs have ended; two index scans, no row is read.
SELECT (SELECT count(*) FROM runs)
    - (SELECT count(*) FROM runs WHERE state NOT IN ('succeeded', 'failed', 'cancelled')) AS total;

-- name: attempts_to_drop
-- Retention: whose output is to be deleted with a run.
SELECT a.job_id, a.attempt, a.rank, a.node_id
FROM jobs AS j
JOIN attempts AS a ON a.job_id = j.id
WHERE j.run_id = :run_id
ORDER BY a.job_id, a.attempt, a.rank;

-- name: expired_job
-- Retention: of the oldest :limit jobs of a schedule, the last that ended before :before or is not
-- among the newest :keep (0: all are kept). The last of all stays: the next one counts from it. NULL:
-- none.
SELECT max(idx) AS idx
FROM (
    SELECT j.idx, j.ended_at, newest.idx AS newest
    FROM jobs AS j
    JOIN (SELECT max(idx) AS idx FROM jobs WHERE run_id = :run_id) AS newest
        ON j.idx < newest.idx
    WHERE j.run_id = :run_id AND j.state IN ('succeeded', 'failed', 'cancelled')
    ORDER BY j.idx
    LIMIT :limit
) AS oldest
WHERE ended_at < :before OR (:keep > 0 AND idx <= newest - :keep);

-- name: count_jobs_before
-- How many ended jobs of a run are before index :idx.
SELECT count(*) AS total FROM jobs
WHERE run_id = :run_id AND idx < :idx AND state IN ('succeeded', 'failed', 'cancelled');

-- name: attempts_before
-- Retention: whose output is to be deleted with those jobs.
SELECT a.job_id, a.attempt, a.rank, a.node_id
FROM jobs AS j
JOIN attempts AS a ON a.job_id = j.id
WHERE j.run_id = :run_id AND j.idx < :idx AND j.state IN ('succeeded', 'failed', 'cancelled')
ORDER BY a.job_id, a.attempt, a.rank;

-- name: delete_jobs_before
-- Retention: old jobs of a run: of a schedule, and of one that ended, before it, where they are many.
DELETE FROM jobs
WHERE run_id = :run_id AND idx < :idx AND state IN ('succeeded', 'failed', 'cancelled');

-- name: expired_events
-- Retention: the last of the oldest :limit events that is older than :before or not above
-- :surplus. NULL: none.
SELECT max(seq) AS seq
FROM (SELECT seq, at FROM events ORDER BY seq LIMIT :limit) AS oldest
WHERE at < :before OR seq <= :surplus;

-- name: last_expired_event
-- Retention, to be told beforehand: as expired_events, of all.
SELECT max(seq) AS seq FROM events WHERE at < :before OR seq <= :surplus;

-- name: event_ends
-- The lowest and the highest number of the events that there are.
SELECT (SELECT coalesce(min(seq), 0) FROM events) AS oldest,
    (SELECT coalesce(max(seq), 0) FROM events) AS newest;

-- name: surplus_event
-- Retention: the newest event that is not among the newest :keep (0: all are).
SELECT coalesce(max(seq), 0) AS seq
FROM (SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET :keep) AS beyond;

-- name: count_events
-- How many events there are up to number :seq.
SELECT count(*) AS total FROM events WHERE seq <= :seq;

-- name: trim_events
-- Retention: the feed begins after this number from now on.
DELETE FROM events WHERE seq <= :seq;

-- name: first_event_of_run
-- Whether the feed still has the beginning of a run.
SELECT min(seq) AS seq FROM events WHERE run_id = :run AND kind = 'run.submitted';

-- name: expired_requests
-- Retention: some of the requests made before :before.
SELECT "user", id FROM requests WHERE at < :before LIMIT :limit;

-- name: count_expired_requests
-- How many requests were made before :before.
SELECT count(*) AS total FROM requests WHERE at < :before;

-- name: delete_request
-- Retention: its repetition would submit again from now on.
DELETE FROM requests WHERE "user" = :user AND id = :id;

-- name: events_trimmed
-- The number of the last event that retention removed (0: none).
SELECT CAST(coalesce(max(value), '0') AS BIGINT) AS seq FROM meta WHERE key = 'events_trimmed';
