-- name: announce_server
-- A server is here, leader or not. Times are the database's, so that all compare alike.
INSERT INTO servers (id, url, version, started_at, seen_at)
VALUES (
    :id, :url, :version, extract(epoch FROM clock_timestamp()),
    extract(epoch FROM clock_timestamp())
)
ON CONFLICT (id) DO UPDATE SET
    url = excluded.url, version = excluded.version, seen_at = excluded.seen_at;

-- name: lead_server
-- A term begins, in the transaction that raises the epoch.
INSERT INTO servers (id, url, version, started_at, seen_at, session, epoch, lease)
VALUES (
    :id, :url, :version, extract(epoch FROM clock_timestamp()),
    extract(epoch FROM clock_timestamp()), pg_backend_pid(), :epoch, :lease
)
ON CONFLICT (id) DO UPDATE SET
    url = excluded.url, version = excluded.version, seen_at = excluded.seen_at,
    session = excluded.session, epoch = excluded.epoch, beat = servers.beat + 1,
    lease = excluded.lease;

-- name: beat_server
-- The leader lives and can commit.
UPDATE servers SET beat = beat + 1, seen_at = extract(epoch FROM clock_timestamp())
WHERE id = :id;

-- name: withdraw_server
-- A server ends in good order.
DELETE FROM servers WHERE id = :id;

-- name: forget_servers
-- Those that ended without a word, days ago; never the latest leader.
DELETE FROM servers
WHERE seen_at < extract(epoch FROM clock_timestamp()) - :age
    AND epoch < (SELECT max(epoch) FROM servers);

-- name: servers
-- All servers, the latest leader first; age: seconds since the last sign of life.
SELECT id, url, version, epoch,
    CAST(extract(epoch FROM clock_timestamp()) - seen_at AS DOUBLE PRECISION) AS age
FROM servers
ORDER BY epoch DESC, id;

-- name: pulse
-- Which session holds the lock, and the latest leader's sign of life: when nothing of it changes for
-- as long as the leader itself said (lease; 0: it did not), it is frozen. No row: nobody holds the
-- lock, or work without a server, which takes as long as it takes.
SELECT l.pid, coalesce(s.epoch, 0) AS epoch, coalesce(s.beat, 0) AS beat,
    coalesce(s.lease, 0.0) AS lease
FROM pg_locks AS l
LEFT JOIN (SELECT epoch, beat, lease FROM servers ORDER BY epoch DESC, id LIMIT 1) AS s ON TRUE
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE coalesce(a.application_name, '') <> 'moorage offline'
    AND l.locktype = 'advisory' AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid = :lock AND l.objid = :place AND l.objsubid = 2;

-- name: evict_session
-- Ends the session that holds the lock, if it is still the one that was seen to be frozen.
SELECT pg_terminate_backend(l.pid) AS done
FROM pg_locks AS l
WHERE l.locktype = 'advisory' AND l.granted AND l.pid = :pid
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid = :lock AND l.objid = :place AND l.objsubid = 2
    AND :epoch = (SELECT coalesce(max(epoch), 0) FROM servers)
    AND :beat = (
        SELECT coalesce(max(beat), 0) FROM servers
        WHERE epoch = (SELECT max(epoch) FROM servers)
    );
