-- name: upsert_node
-- What a node said of itself when it connected, or that it went away.
INSERT INTO nodes (id, name, boot_id, state, version, resources, isolation, pythons, last_seen)
VALUES (:id, :name, :boot_id, :state, :version, :resources, :isolation, :pythons, :last_seen)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, boot_id = excluded.boot_id, state = excluded.state,
    version = excluded.version, resources = excluded.resources, isolation = excluded.isolation,
    pythons = excluded.pythons, last_seen = excluded.last_seen;

-- name: nodes
-- Every node ever seen.
SELECT id, name, boot_id, state, version, resources, isolation, pythons, last_seen
FROM nodes
ORDER BY id;
