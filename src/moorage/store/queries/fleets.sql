-- name: upsert_fleet
-- A fleet as its file says it should be.
INSERT INTO fleets (name, spec, state, created_at, updated_at)
VALUES (:name, :spec, :state, :created_at, :updated_at)
ON CONFLICT (name) DO UPDATE SET
    spec = excluded.spec, state = excluded.state, updated_at = excluded.updated_at;

-- name: delete_fleet
-- Its last host is gone.
DELETE FROM fleets WHERE name = :name;

-- name: fleets
-- Boot: every fleet.
SELECT name, spec, state, created_at, updated_at FROM fleets ORDER BY name;

-- name: upsert_host
-- A host of a fleet, and how far it is.
INSERT INTO hosts (
    fleet, num, address, spec, state, message, fix, facts, node_id, force, changed_at
) VALUES (
    :fleet, :num, :address, :spec, :state, :message, :fix, :facts, :node_id, :force, :changed_at
)
ON CONFLICT (fleet, num) DO UPDATE SET
    address = excluded.address, spec = excluded.spec, state = excluded.state,
    message = excluded.message, fix = excluded.fix, facts = excluded.facts,
    node_id = excluded.node_id, force = excluded.force, changed_at = excluded.changed_at;

-- name: delete_host
-- Nothing of it is left.
DELETE FROM hosts WHERE fleet = :fleet AND num = :num;

-- name: hosts
-- Boot: every host of every fleet.
SELECT fleet, num, address, spec, state, message, fix, facts, node_id, force, changed_at
FROM hosts
ORDER BY fleet, num;

-- name: place_node
-- Where a node belongs, and whether it takes new jobs.
UPDATE nodes SET
    fleet = :fleet, hostname = :hostname, draining = :draining, gone = :gone
WHERE id = :id;

-- name: node_places
-- Boot: the same of every node.
SELECT id, fleet, hostname, draining, gone FROM nodes ORDER BY id;

-- name: delete_node_tokens
-- No agent may speak for this node any more.
DELETE FROM tokens WHERE kind = 'node' AND subject = :subject;

-- name: delete_older_node_tokens
-- The agent of a node has a new token: the others end.
DELETE FROM tokens WHERE kind = 'node' AND subject = :subject AND hash <> :hash;
