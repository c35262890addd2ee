-- A job may have several ranks, each on a node of its own: an attempt has one row a rank. What was
-- there is rank 0. Made anew under its own name, so that its constraints are called as ever.
CREATE TABLE attempts_before AS SELECT * FROM attempts;

DROP TABLE attempts;

CREATE TABLE attempts (
    job_id BIGINT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    rank INTEGER NOT NULL DEFAULT 0,
    node_id BIGINT NOT NULL REFERENCES nodes (id),
    state TEXT NOT NULL,
    gpus TEXT NOT NULL DEFAULT '[]',  -- json: indexes of those reserved
    assigned_at DOUBLE PRECISION NOT NULL,
    started_at DOUBLE PRECISION,
    ended_at DOUBLE PRECISION,
    phases TEXT NOT NULL DEFAULT '[]',  -- json
    outcome TEXT,  -- json
    usage TEXT,  -- json
    PRIMARY KEY (job_id, attempt, rank)
) /* STRICT */;

INSERT INTO attempts (
    job_id, attempt, rank, node_id, state, gpus, assigned_at, started_at, ended_at, phases, outcome,
    usage
)
SELECT job_id, attempt, 0, node_id, state, gpus, assigned_at, started_at, ended_at, phases, outcome,
    usage
FROM attempts_before;

DROP TABLE attempts_before;

CREATE INDEX attempts_live ON attempts (job_id, attempt) WHERE state <> 'done';

-- The rank that ended the present attempt: the first that did not succeed.
ALTER TABLE jobs ADD COLUMN cause INTEGER;

-- Where other nodes reach it.
ALTER TABLE nodes ADD COLUMN address TEXT NOT NULL DEFAULT '';
