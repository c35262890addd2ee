-- name: restore_queued_jobs
-- A restored server does not know which attempts were begun after the backup: the next one of
-- every job gets a number that none had, and waits until nodes have said what they run.
UPDATE jobs SET attempt = :attempt,
    not_before = CASE WHEN not_before > :at THEN not_before ELSE :at END
WHERE state = 'queued';

-- name: restore_assigned_attempts
-- Perhaps begun: never to be started again under this number. Its node says what became of it.
UPDATE attempts SET state = 'staging' WHERE state = 'assigned';

-- name: restore_prefilled_attempts
-- The line was at a node; the job is queued.
DELETE FROM attempts WHERE state = 'prefilled';

-- name: restore_nodes
-- None is connected.
UPDATE nodes SET state = 'down';

-- name: restore_count
-- How many runs there are.
SELECT count(*) AS total FROM runs;
