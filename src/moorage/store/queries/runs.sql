-- name: insert_run
-- A submitted run; every column.
INSERT INTO runs (
    id, name, "user", state, reason, message, exit_code, priority, spec, source, dialect,
    tags, submitted_at, started_at, ended_at, next_at, stopping, node, attempt
) VALUES (
    :id, :name, :user, :state, :reason, :message, :exit_code, :priority, :spec, :source, :dialect,
    :tags, :submitted_at, :started_at, :ended_at, :next_at, :stopping, :node, :attempt
);

-- name: update_run
-- Everything about a run that changes after its submission.
UPDATE runs SET
    state = :state, reason = :reason, message = :message, exit_code = :exit_code,
    started_at = :started_at, ended_at = :ended_at, next_at = :next_at, stopping = :stopping,
    node = :node, attempt = :attempt
WHERE id = :id;

-- name: delete_run
-- Forgets a run with its jobs, attempts and references to blobs; its events stay.
DELETE FROM runs WHERE id = :id;

-- name: insert_run_blob
-- Keeps content alive as long as the run is known. kind: tree or blob.
INSERT INTO run_blobs (run_id, digest, kind) VALUES (:run_id, :digest, :kind)
ON CONFLICT (run_id, digest) DO NOTHING;

-- name: live_runs
-- Boot: every run that has not ended, oldest first, and how many jobs each has had (the last one
-- always stays, see expired_job).
SELECT id, name, "user", state, reason, message, exit_code, priority, spec, source, dialect,
    tags, submitted_at, started_at, ended_at, next_at, stopping, node, attempt,
    (SELECT coalesce(max(j.idx) + 1, 0) FROM jobs AS j WHERE j.run_id = runs.id) AS jobs
FROM runs
WHERE state NOT IN ('succeeded', 'failed', 'cancelled')
ORDER BY id;

-- name: run_by_id
-- One run, whole.
SELECT id, name, "user", state, reason, message, exit_code, priority, spec, source, dialect,
    tags, submitted_at, started_at, ended_at, next_at, stopping, node, attempt
FROM runs
WHERE id = :id;

-- name: run_by_name
-- The newest run of that name, whole.
SELECT id, name, "user", state, reason, message, exit_code, priority, spec, source, dialect,
    tags, submitted_at, started_at, ended_at, next_at, stopping, node, attempt
FROM runs
WHERE name = :name
ORDER BY id DESC
LIMIT 1;

-- name: insert_request
-- Remembers what a request made, in the same transaction. A second one of that id is refused.
INSERT INTO requests ("user", id, runs, at) VALUES (:user, :id, :runs, :at);

-- name: request
-- What a request made: the answer when it is repeated.
SELECT runs FROM requests WHERE "user" = :user AND id = :id;

-- name: runs_page
-- Rows of `ps`, newest first, below the id :before.
SELECT id, name, "user", state, reason, message, exit_code, priority, tags,
    submitted_at, started_at, ended_at, next_at, stopping, node, attempt
FROM runs
WHERE id < :before
ORDER BY id DESC
LIMIT :limit;

-- name: active_runs_page
-- As runs_page, of the runs that have not ended: few among many, found by their own index.
SELECT id, name, "user", state, reason, message, exit_code, priority, tags,
    submitted_at, started_at, ended_at, next_at, stopping, node, attempt
FROM runs
WHERE state NOT IN ('succeeded', 'failed', 'cancelled') AND id < :before
ORDER BY id DESC
LIMIT :limit;

-- name: state_runs_page
-- As runs_page, of the runs in one state. Said as a range, which no other index answers in order:
-- a planner that takes the state for a frequent one would look for it among all runs.
SELECT id, name, "user", state, reason, message, exit_code, priority, tags,
    submitted_at, started_at, ended_at, next_at, stopping, node, attempt
FROM runs
WHERE state >= :state AND (state, id) < (:state, :before)
ORDER BY state DESC, id DESC
LIMIT :limit;

-- name: named_runs_page
-- As runs_page, of the runs of one name.
SELECT id, name, "user", state, reason, message, exit_code, priority, tags,
    submitted_at, started_at, ended_at, next_at, stopping, node, attempt
FROM runs
WHERE name = :name AND id < :before
ORDER BY id DESC
LIMIT :limit;

-- name: named_state_runs_page
-- As runs_page, of the runs of one name in one final state; a range as in state_runs_page.
SELECT id, name, "user", state, reason, message, exit_code, priority, tags,
    submitted_at, started_at, ended_at, next_at, stopping, node, attempt
FROM runs
WHERE ended_at IS NOT NULL
    AND (name, state) >= (:name, :state) AND (name, state, id) < (:name, :state, :before)
ORDER BY name DESC, state DESC, id DESC
LIMIT :limit;

-- name: count_runs
-- How many runs there are, counted up to :most: the smallest index answers, not the rows.
SELECT count(*) AS total FROM (SELECT 1 FROM runs LIMIT :most) AS counted;

-- name: count_active_runs
-- How many runs have not ended, counted up to :most. The order is there for the index's sake.
SELECT count(*) AS total FROM (
    SELECT 1 FROM runs WHERE state NOT IN ('succeeded', 'failed', 'cancelled')
    ORDER BY id LIMIT :most
) AS counted;

-- name: count_state_runs
-- How many runs are in one state, counted up to :most; a range as in state_runs_page.
SELECT count(*) AS total FROM (
    SELECT 1 FROM runs WHERE state >= :state AND state <= :state ORDER BY state, id LIMIT :most
) AS counted;

-- name: count_named_runs
-- How many runs have one name, counted up to :most; a range as in state_runs_page.
SELECT count(*) AS total FROM (
    SELECT 1 FROM runs WHERE name >= :name AND name <= :name ORDER BY name, id LIMIT :most
) AS counted;

-- name: count_named_state_runs
-- How many runs of one name are in one final state, counted up to :most; a range as above.
SELECT count(*) AS total FROM (
    SELECT 1 FROM runs
    WHERE ended_at IS NOT NULL
        AND (name, state) >= (:name, :state) AND (name, state) <= (:name, :state)
    ORDER BY name, state, id LIMIT :most
) AS counted;

-- name: max_ids
-- Boot: the highest number ever given to a run, a job and a node (0: none yet), those of deleted
-- runs included.
SELECT
    (SELECT coalesce(max(n), 0) FROM (
        SELECT max(id) AS n FROM runs
        UNION ALL SELECT CAST(value AS BIGINT) FROM meta WHERE key = 'highest_run'
    ) AS known) AS run,
    (SELECT coalesce(max(n), 0) FROM (
        SELECT max(id) AS n FROM jobs
        UNION ALL SELECT CAST(value AS BIGINT) FROM meta WHERE key = 'highest_job'
    ) AS known) AS job,
    (SELECT coalesce(max(id), 0) FROM nodes) AS node;
