-- name: upsert_node
-- What a node said of itself when it connected, or that it went away.
INSERT INTO nodes (
    id, name, boot_id, state, version, resources, isolation, pythons, last_seen, address
) VALUES (
    :id, :name, :boot_id, :state, :version, :resources, :isolation, :pythons, :last_seen, :address
)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, boot_id = excluded.boot_id, state = excluded.state,
    version = excluded.version, resources = excluded.resources, isolation = excluded.isolation,
    pythons = excluded.pythons, last_seen = excluded.last_seen, address = excluded.address;

-- name: nodes
-- Every node ever seen.
SELECT id, name, boot_id, state, version, resources, isolation, pythons, last_seen, address
FROM nodes
ORDER BY id;

-- name: insert_dropped_log
-- The output of this attempt is to be deleted: its node is told until it says that it is gone.
INSERT INTO dropped_logs (node_id, attempt) VALUES (:node_id, :attempt)
ON CONFLICT (node_id, attempt) DO NOTHING;

-- name: delete_dropped_log
-- The node said that it is gone.
DELETE FROM dropped_logs WHERE node_id = :node_id AND attempt = :attempt;

-- name: dropped_logs
-- Boot: what nodes are to be told when they greet.
SELECT node_id, attempt FROM dropped_logs ORDER BY node_id, attempt;
