-- name: insert_job
-- One job of a run; every column.
INSERT INTO jobs (
    id, run_id, idx, state, reason, message, exit_code, attempt, node_id, not_before, stopping,
    failed_at, queued_at, started_at, ended_at, cause
) VALUES (
    :id, :run_id, :idx, :state, :reason, :message, :exit_code, :attempt, :node_id, :not_before,
    :stopping, :failed_at, :queued_at, :started_at, :ended_at, :cause
);

-- name: update_job
-- Everything about a job that changes.
UPDATE jobs SET
    state = :state, reason = :reason, message = :message, exit_code = :exit_code,
    attempt = :attempt, node_id = :node_id, not_before = :not_before, stopping = :stopping,
    failed_at = :failed_at, queued_at = :queued_at, started_at = :started_at,
    ended_at = :ended_at, cause = :cause
WHERE id = :id;

-- name: insert_attempt
-- The assignment of one rank of a job to a node: durable before the node hears of it.
INSERT INTO attempts (job_id, attempt, rank, node_id, state, gpus, assigned_at)
VALUES (:job_id, :attempt, :rank, :node_id, :state, :gpus, :assigned_at);

-- name: update_attempt
-- Progress of one rank of an attempt. `done` is final: what comes later is a repetition and changes
-- nothing.
UPDATE attempts SET
    state = :state, started_at = :started_at, ended_at = :ended_at, phases = :phases,
    outcome = :outcome, usage = :usage
WHERE job_id = :job_id AND attempt = :attempt AND rank = :rank AND state <> 'done';

-- name: judge_attempt
-- How one rank of an attempt that is over counts.
UPDATE attempts SET outcome = :outcome
WHERE job_id = :job_id AND attempt = :attempt AND rank = :rank;

-- name: assign_attempt
-- A job in line got room: from now on its node may run it at once.
UPDATE attempts SET state = 'assigned', assigned_at = :assigned_at
WHERE job_id = :job_id AND attempt = :attempt AND state = 'prefilled';

-- name: delete_attempt
-- It left the line before its turn came: nothing of it ever ran.
DELETE FROM attempts WHERE job_id = :job_id AND attempt = :attempt AND state = 'prefilled';

-- name: live_jobs
-- Boot: every job that has not ended, in the order of its number.
SELECT id, run_id, idx, state, reason, message, exit_code, attempt, node_id, not_before, stopping,
    failed_at, queued_at, started_at, ended_at, cause
FROM jobs
WHERE state NOT IN ('succeeded', 'failed', 'cancelled')
ORDER BY id;

-- name: live_attempts
-- Boot: all ranks of every attempt of which something may be left on a node.
SELECT job_id, attempt, rank, node_id, state, gpus, assigned_at, started_at, ended_at, phases,
    outcome, usage
FROM attempts
WHERE (job_id, attempt) IN (SELECT job_id, attempt FROM attempts WHERE state <> 'done')
ORDER BY job_id, attempt, rank;

-- name: earlier_attempts
-- Boot: how the earlier attempts of jobs that have not ended did end.
SELECT a.job_id, a.attempt, a.rank, a.node_id, a.outcome
FROM jobs AS j
JOIN attempts AS a ON a.job_id = j.id
WHERE j.state NOT IN ('succeeded', 'failed', 'cancelled')
    AND (j.attempt > 1 OR (j.attempt = 1 AND j.state = 'queued'))
    AND (a.attempt < j.attempt OR j.state = 'queued')
    AND a.outcome IS NOT NULL
ORDER BY j.id, a.attempt, a.rank;

-- name: jobs_of_run
-- All jobs of a run, in their order.
SELECT id, run_id, idx, state, reason, message, exit_code, attempt, node_id, not_before, stopping,
    failed_at, queued_at, started_at, ended_at, cause
FROM jobs
WHERE run_id = :run_id
ORDER BY idx;

-- name: attempts_of_run
-- All ranks of all attempts of all jobs of a run, with the names of their nodes. What waits in a
-- line on a node has not begun: to users it is queued.
SELECT a.job_id, a.attempt, a.rank, a.node_id, n.name AS node, a.state, a.assigned_at,
    a.started_at, a.ended_at, a.phases, a.outcome, a.usage
FROM jobs AS j
JOIN attempts AS a ON a.job_id = j.id
JOIN nodes AS n ON n.id = a.node_id
WHERE j.run_id = :run_id AND a.state <> 'prefilled'
ORDER BY a.job_id, a.attempt, a.rank;

-- name: job_at
-- The job of a run with this index.
SELECT id, state FROM jobs WHERE run_id = :run_id AND idx = :idx;

-- name: last_job
-- The newest job of a run.
SELECT id, state FROM jobs WHERE run_id = :run_id ORDER BY idx DESC LIMIT 1;

-- name: attempts_of_job
-- Where one rank of the attempts of a job ran, the first attempt first.
SELECT a.attempt, n.name AS node, a.state
FROM attempts AS a
JOIN nodes AS n ON n.id = a.node_id
WHERE a.job_id = :job_id AND a.rank = :rank AND a.state <> 'prefilled'
ORDER BY a.attempt;
