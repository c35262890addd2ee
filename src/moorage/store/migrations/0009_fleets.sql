-- Machines that are reached by ssh: fleets, their hosts, and which node is which of them.

CREATE TABLE fleets (
    name TEXT NOT NULL PRIMARY KEY,
    spec TEXT NOT NULL,  -- json
    state TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    updated_at DOUBLE PRECISION NOT NULL
) /* STRICT */;

CREATE TABLE hosts (
    fleet TEXT NOT NULL REFERENCES fleets (name),
    num INTEGER NOT NULL,
    address TEXT NOT NULL,
    spec TEXT NOT NULL,  -- json
    state TEXT NOT NULL,
    message TEXT NOT NULL DEFAULT '',
    fix TEXT NOT NULL DEFAULT '',
    facts TEXT NOT NULL DEFAULT '{}',  -- json: what the last check found
    node_id BIGINT REFERENCES nodes (id),
    force INTEGER NOT NULL DEFAULT 0,  -- it leaves without waiting for its jobs
    changed_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (fleet, num)
) /* STRICT */;

ALTER TABLE nodes ADD COLUMN fleet TEXT NOT NULL DEFAULT 'local';
ALTER TABLE nodes ADD COLUMN hostname TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
