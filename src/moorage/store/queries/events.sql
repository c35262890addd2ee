-- name: insert_event
-- One change, in the same transaction as the change itself; the database gives it its number.
INSERT INTO events (at, kind, run_id, job_id, node_id, data)
VALUES (:at, :kind, :run_id, :job_id, :node_id, :data);

-- name: events_since
-- The feed after number :since, oldest first.
SELECT e.seq, e.at, e.kind, e.run_id, coalesce(r.name, '') AS run_name, e.job_id, e.node_id,
    coalesce(n.name, '') AS node, e.data
FROM events AS e
LEFT JOIN runs AS r ON r.id = e.run_id
LEFT JOIN nodes AS n ON n.id = e.node_id
WHERE e.seq > :since
ORDER BY e.seq
LIMIT :limit;

-- name: run_events_since
-- The feed of one run after number :since, oldest first.
SELECT e.seq, e.at, e.kind, e.run_id, coalesce(r.name, '') AS run_name, e.job_id, e.node_id,
    coalesce(n.name, '') AS node, e.data
FROM events AS e
LEFT JOIN runs AS r ON r.id = e.run_id
LEFT JOIN nodes AS n ON n.id = e.node_id
WHERE e.run_id = :run AND e.seq > :since
ORDER BY e.seq
LIMIT :limit;

-- name: newest_events
-- The end of the feed, newest first.
SELECT e.seq, e.at, e.kind, e.run_id, coalesce(r.name, '') AS run_name, e.job_id, e.node_id,
    coalesce(n.name, '') AS node, e.data
FROM events AS e
LEFT JOIN runs AS r ON r.id = e.run_id
LEFT JOIN nodes AS n ON n.id = e.node_id
WHERE e.seq > 0
ORDER BY e.seq DESC
LIMIT :limit;

-- name: newest_run_events
-- The end of the feed of one run, newest first.
SELECT e.seq, e.at, e.kind, e.run_id, coalesce(r.name, '') AS run_name, e.job_id, e.node_id,
    coalesce(n.name, '') AS node, e.data
FROM events AS e
LEFT JOIN runs AS r ON r.id = e.run_id
LEFT JOIN nodes AS n ON n.id = e.node_id
WHERE e.run_id = :run
ORDER BY e.seq DESC
LIMIT :limit;

-- name: max_seq
-- Number of the newest event, also when it was removed since (0: none yet).
SELECT coalesce(max(n), 0) AS seq
FROM (
    SELECT max(seq) AS n FROM events
    UNION ALL SELECT CAST(value AS BIGINT) FROM meta WHERE key = 'events_trimmed'
) AS known;
