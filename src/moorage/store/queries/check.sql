-- name: check_states
-- Which states there are, how often, and one that has each.
SELECT 'run' AS what, state, count(*) AS total, min(id) AS id FROM runs GROUP BY state
UNION ALL
SELECT 'job', state, count(*), min(id) FROM jobs GROUP BY state
UNION ALL
SELECT 'attempt', state, count(*), min(job_id) FROM attempts GROUP BY state
UNION ALL
SELECT 'node', state, count(*), min(id) FROM nodes GROUP BY state
UNION ALL
SELECT 'storage', state, count(*), 0 FROM storages GROUP BY state;

-- name: check_live_jobs_of_ended_runs
-- A live job needs a live run: the server cannot start from such tables.
SELECT j.id AS job, j.state, r.id AS run, r.state AS run_state
FROM jobs AS j
JOIN runs AS r ON r.id = j.run_id
WHERE j.state NOT IN ('succeeded', 'failed', 'cancelled')
    AND r.state IN ('succeeded', 'failed', 'cancelled')
ORDER BY j.id;

-- name: check_live_runs_without_jobs
-- A run is as live as its jobs; only a schedule waits without one.
SELECT r.id AS run, r.state
FROM runs AS r
WHERE r.state NOT IN ('succeeded', 'failed', 'cancelled', 'scheduled')
    AND NOT EXISTS (
        SELECT 1 FROM jobs AS j
        WHERE j.run_id = r.id AND j.state NOT IN ('succeeded', 'failed', 'cancelled')
    )
ORDER BY r.id;

-- name: check_jobs_without_attempt
-- A job that is on a node has the attempt that it counts: one rank of it, at least, is live.
SELECT j.id AS job, j.state, j.attempt
FROM jobs AS j
WHERE j.state NOT IN ('queued', 'succeeded', 'failed', 'cancelled')
    AND NOT EXISTS (
        SELECT 1 FROM attempts AS a
        WHERE a.job_id = j.id AND a.attempt = j.attempt AND a.state <> 'done'
    )
ORDER BY j.id;

-- name: check_jobs_elsewhere
-- A live job and the first rank of its attempt name one node.
SELECT j.id AS job, j.attempt, j.node_id AS node, a.node_id AS attempt_node
FROM jobs AS j
JOIN attempts AS a ON a.job_id = j.id AND a.attempt = j.attempt AND a.rank = 0
WHERE j.state NOT IN ('queued', 'succeeded', 'failed', 'cancelled')
    AND (j.node_id IS NULL OR j.node_id <> a.node_id)
ORDER BY j.id;

-- name: check_live_attempts_of_ended_jobs
-- What is live of an attempt belongs to a live job.
SELECT a.job_id AS job, a.attempt, a.state, j.state AS job_state
FROM attempts AS a
JOIN jobs AS j ON j.id = a.job_id
WHERE a.state <> 'done'
    AND (
        j.state IN ('succeeded', 'failed', 'cancelled')
        OR a.attempt < j.attempt
        OR (j.state = 'queued' AND a.attempt = j.attempt)
    )
ORDER BY a.job_id, a.attempt;

-- name: check_attempts_beyond
-- A job counts its attempts: the next one must have a number of its own. One in line for its turn
-- (prefilled) is not counted yet.
SELECT a.job_id AS job, max(a.attempt) AS attempt, min(j.attempt) AS counted
FROM attempts AS a
JOIN jobs AS j ON j.id = a.job_id
WHERE a.state <> 'prefilled'
GROUP BY a.job_id
HAVING max(a.attempt) > min(j.attempt)
ORDER BY a.job_id;

-- name: check_ended_runs_without_time
-- Retention goes by the time of the end.
SELECT id AS run, state FROM runs
WHERE state IN ('succeeded', 'failed', 'cancelled') AND ended_at IS NULL
ORDER BY id;

-- name: check_ended_jobs_without_time
-- What ended has a time of its end.
SELECT id AS job, state FROM jobs
WHERE state IN ('succeeded', 'failed', 'cancelled') AND ended_at IS NULL
ORDER BY id;

-- name: check_ended_attempts_without_time
-- What ended has a time of its end.
SELECT job_id AS job, attempt FROM attempts
WHERE state = 'done' AND ended_at IS NULL
ORDER BY job_id, attempt;

-- name: check_live_with_end
-- What has not ended has no time of its end.
SELECT id AS run, state FROM runs
WHERE state NOT IN ('succeeded', 'failed', 'cancelled') AND ended_at IS NOT NULL
ORDER BY id;

-- name: check_lost_content
-- Content that a run names is there.
SELECT b.run_id AS run, r.name, r.state, b.digest, b.kind
FROM run_blobs AS b
JOIN runs AS r ON r.id = b.run_id
WHERE NOT EXISTS (SELECT 1 FROM blobs AS known WHERE known.digest = b.digest)
ORDER BY b.run_id, b.digest;

-- name: check_blob_bounds
-- A blob lies within its pack, behind a header.
SELECT b.digest, b.pack, b.start, b.length, p.bytes
FROM blobs AS b
JOIN packs AS p ON p.id = b.pack
WHERE b.start < 48 OR b.length <= 0 OR b.size < 0 OR b.start + b.length > p.bytes
ORDER BY b.pack, b.start;

-- name: check_numbers
-- Numbers that events know of; none may be given out again.
SELECT coalesce(max(run_id), 0) AS run, coalesce(max(job_id), 0) AS job FROM events;

-- name: check_known
-- The highest numbers that rows and events know of, whatever `meta` says.
SELECT
    (SELECT coalesce(max(n), 0) FROM (
        SELECT max(id) AS n FROM runs UNION ALL SELECT max(run_id) FROM events
    ) AS known) AS run,
    (SELECT coalesce(max(n), 0) FROM (
        SELECT max(id) AS n FROM jobs UNION ALL SELECT max(job_id) FROM events
    ) AS known) AS job,
    (SELECT coalesce(max(attempt), 0) FROM jobs) AS attempt,
    (SELECT coalesce(min(seq), 0) FROM events) AS first_event,
    (SELECT coalesce(max(seq), 0) FROM events) AS last_event;

-- name: check_requests
-- What requests were answered with, some after another.
SELECT "user", id, runs FROM requests
WHERE "user" > :user OR ("user" = :user AND id > :id)
ORDER BY "user", id
LIMIT :limit;

-- name: repair_job_lost
-- Nobody can know how it ended: it counts as failed.
UPDATE jobs SET state = 'failed', reason = 'lost', ended_at = :now,
    message = 'nobody knows how it ended (the store was repaired)'
WHERE id = :job;

-- name: repair_run_from_jobs
-- As bad as its worst job.
UPDATE runs SET ended_at = :now, state = CASE
    WHEN EXISTS (SELECT 1 FROM jobs AS j WHERE j.run_id = runs.id AND j.state = 'failed')
        THEN 'failed'
    WHEN EXISTS (SELECT 1 FROM jobs AS j WHERE j.run_id = runs.id AND j.state = 'cancelled')
        THEN 'cancelled'
    WHEN EXISTS (SELECT 1 FROM jobs AS j WHERE j.run_id = runs.id) THEN 'succeeded'
    ELSE 'failed' END
WHERE id = :run AND NOT EXISTS (
    SELECT 1 FROM jobs AS j
    WHERE j.run_id = runs.id AND j.state NOT IN ('succeeded', 'failed', 'cancelled')
);

-- name: repair_run_of_job
-- As repair_run_from_jobs, of the run of a job that was just ended, unless it is a schedule.
UPDATE runs SET ended_at = :now, state = 'failed', reason = 'lost',
    message = 'nobody knows how it ended (the store was repaired)'
WHERE id = (SELECT run_id FROM jobs WHERE id = :job)
    AND state NOT IN ('succeeded', 'failed', 'cancelled', 'scheduled')
    AND NOT EXISTS (
        SELECT 1 FROM jobs AS j
        WHERE j.run_id = runs.id AND j.state NOT IN ('succeeded', 'failed', 'cancelled')
    );

-- name: repair_attempt_over
-- Its job is over, and so is it.
UPDATE attempts SET state = 'done', ended_at = coalesce(ended_at, :now)
WHERE job_id = :job AND attempt = :attempt;

-- name: repair_job_node
-- The attempt was written last.
UPDATE jobs SET node_id = :attempt_node WHERE id = :job;

-- name: repair_job_count
-- The next attempt gets the next number.
UPDATE jobs SET attempt = :attempt WHERE id = :job AND attempt < :attempt;

-- name: repair_run_time
-- As late as the last job's end, as far as that is known.
UPDATE runs SET ended_at = coalesce(
    (SELECT max(j.ended_at) FROM jobs AS j WHERE j.run_id = runs.id), started_at, submitted_at)
WHERE id = :run AND ended_at IS NULL;

-- name: repair_job_time
-- As late as the last attempt's end, as far as that is known.
UPDATE jobs SET ended_at = coalesce(
    (SELECT max(a.ended_at) FROM attempts AS a WHERE a.job_id = jobs.id), started_at, queued_at)
WHERE id = :job AND ended_at IS NULL;

-- name: repair_attempt_time
-- As far as it is known.
UPDATE attempts SET ended_at = coalesce(started_at, assigned_at)
WHERE job_id = :job AND attempt = :attempt AND ended_at IS NULL;

-- name: repair_no_end
-- It has not ended.
UPDATE runs SET ended_at = NULL WHERE id = :run;

-- name: repair_forget_blob
-- Its bytes are lost: whoever needs it is asked to upload it again.
DELETE FROM blobs WHERE digest = :digest AND pack = :pack;

-- name: repair_pack_length
-- What lay beyond is lost.
UPDATE packs SET bytes = :bytes WHERE id = :id;

-- name: check_counts
-- How much there is.
SELECT (SELECT count(*) FROM runs) AS runs,
    (SELECT count(*) FROM jobs) AS jobs,
    (SELECT count(*) FROM attempts) AS attempts,
    (SELECT count(*) FROM events) AS events,
    (SELECT count(*) FROM blobs) AS blobs,
    (SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM packs) AS content_bytes;
