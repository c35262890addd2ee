-- The whole database as it is now; `migrations/` leads there step by step, and a test compares.
--
-- One text for SQLite and PostgreSQL. It is written with PostgreSQL's type names; before SQLite
-- runs it, `sql.for_sqlite` puts in the names that its STRICT tables know:
--     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY -> INTEGER PRIMARY KEY AUTOINCREMENT
--     BIGINT -> INTEGER,  DOUBLE PRECISION -> REAL,  BYTEA -> BLOB,  /* STRICT */ -> STRICT
-- What only PostgreSQL understands is a comment, which `sql.for_postgres` takes off:
--     /* postgres: STATEMENT; */
--
-- Times are Unix seconds, sizes bytes, flags 0 or 1, columns marked `json` are JSON text.
-- States have no CHECK: the closed types of `core/` guard them, and a new state must not need a
-- table rebuilt. Ids of runs, jobs and nodes come from the engine.

-- schema_version; epoch; highest_run and highest_job: of those deleted, never given out again;
-- events_trimmed: number of the last event that retention removed.
CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) /* STRICT */;

CREATE TABLE tokens (
    hash TEXT NOT NULL PRIMARY KEY,  -- SHA-256, hex: the token itself is stored nowhere
    kind TEXT NOT NULL,  -- user | node
    subject TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    server TEXT NOT NULL DEFAULT ''  -- whose: `servers.id`; '' from before there were several
) /* STRICT */;

-- The servers that share this database (PostgreSQL only).
CREATE TABLE servers (
    id TEXT NOT NULL PRIMARY KEY,
    url TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at DOUBLE PRECISION NOT NULL,
    seen_at DOUBLE PRECISION NOT NULL,
    session BIGINT NOT NULL DEFAULT 0,  -- the database's number of its writer's session
    beat BIGINT NOT NULL DEFAULT 0,
    epoch BIGINT NOT NULL DEFAULT 0,  -- of its latest term; the highest is the leader's
    lease DOUBLE PRECISION NOT NULL DEFAULT 0  -- seconds without a beat that are allowed to it
) /* STRICT */;

CREATE TABLE nodes (
    id BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    boot_id TEXT NOT NULL,
    state TEXT NOT NULL,
    version TEXT NOT NULL,
    resources TEXT NOT NULL,  -- json
    isolation TEXT NOT NULL,  -- json
    pythons TEXT NOT NULL,  -- json
    last_seen DOUBLE PRECISION,
    address TEXT NOT NULL DEFAULT '',  -- where other nodes reach it
    fleet TEXT NOT NULL DEFAULT 'local',
    hostname TEXT NOT NULL DEFAULT '',  -- as the fleet's file names it
    draining INTEGER NOT NULL DEFAULT 0,
    gone INTEGER NOT NULL DEFAULT 0  -- its host left its fleet
) /* STRICT */;

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

CREATE TABLE runs (
    id BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    "user" TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    exit_code INTEGER,
    priority INTEGER NOT NULL DEFAULT 0,
    spec TEXT NOT NULL,  -- json
    source TEXT NOT NULL DEFAULT '',
    dialect TEXT NOT NULL DEFAULT 'native',
    tags TEXT NOT NULL DEFAULT '{}',  -- json
    submitted_at DOUBLE PRECISION NOT NULL,
    started_at DOUBLE PRECISION,
    ended_at DOUBLE PRECISION,
    next_at DOUBLE PRECISION,
    stopping INTEGER NOT NULL DEFAULT 0,
    node TEXT NOT NULL DEFAULT '',
    attempt INTEGER NOT NULL DEFAULT 0
) /* STRICT */;

CREATE INDEX runs_by_name ON runs (name, id);
CREATE INDEX runs_live ON runs (id) WHERE state NOT IN ('succeeded', 'failed', 'cancelled');
CREATE INDEX runs_by_state ON runs (state, id);
CREATE INDEX runs_ended ON runs (name, state, id) WHERE ended_at IS NOT NULL;

-- Never a foreign key: a repeated request gets its first reply also when its runs were deleted.
CREATE TABLE requests (
    "user" TEXT NOT NULL,
    id TEXT NOT NULL,
    runs TEXT NOT NULL,  -- json: the first reply
    at DOUBLE PRECISION NOT NULL DEFAULT 0,  -- retention
    PRIMARY KEY ("user", id)
) /* STRICT */;

CREATE TABLE jobs (
    id BIGINT NOT NULL PRIMARY KEY,
    run_id BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    idx INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    exit_code INTEGER,
    attempt INTEGER NOT NULL DEFAULT 0,
    node_id BIGINT REFERENCES nodes (id),
    not_before DOUBLE PRECISION,
    stopping INTEGER NOT NULL DEFAULT 0,
    failed_at DOUBLE PRECISION,  -- the first failure: `retry.duration` counts from here
    queued_at DOUBLE PRECISION NOT NULL,
    started_at DOUBLE PRECISION,
    ended_at DOUBLE PRECISION,
    cause INTEGER,  -- the rank that ended the present attempt: the first that did not succeed
    UNIQUE (run_id, idx)
) /* STRICT */;

CREATE INDEX jobs_live ON jobs (id) WHERE state NOT IN ('succeeded', 'failed', 'cancelled');

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

CREATE INDEX attempts_live ON attempts (job_id, attempt) WHERE state <> 'done';

-- Output of deleted runs on nodes that were away then: each is told when it is back.
CREATE TABLE dropped_logs (
    node_id BIGINT NOT NULL REFERENCES nodes (id),
    attempt TEXT NOT NULL,  -- its key, 12.1.0
    PRIMARY KEY (node_id, attempt)
) /* STRICT */;

-- Never a foreign key: what happened to a run outlives the run.
CREATE TABLE events (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at DOUBLE PRECISION NOT NULL,
    kind TEXT NOT NULL,
    run_id BIGINT,
    job_id BIGINT,
    node_id BIGINT,
    data TEXT NOT NULL DEFAULT '{}'  -- json
) /* STRICT */;

CREATE INDEX events_by_run ON events (run_id, seq) WHERE run_id IS NOT NULL;

CREATE TABLE packs (
    id TEXT NOT NULL PRIMARY KEY,
    bytes BIGINT NOT NULL,
    added_at DOUBLE PRECISION NOT NULL
) /* STRICT */;

-- The bytes of packs where several servers share a database (PostgreSQL); else they are files.
-- Never a foreign key: parts come before the row of their pack, and go after it.
CREATE TABLE pack_parts (
    pack TEXT NOT NULL,
    part INTEGER NOT NULL,  -- from 0; all but the last are of one size
    data BYTEA NOT NULL,
    PRIMARY KEY (pack, part)
) /* STRICT */;
-- It is compressed already.
/* postgres: ALTER TABLE pack_parts ALTER COLUMN data SET STORAGE EXTERNAL; */

CREATE TABLE blobs (
    digest TEXT NOT NULL PRIMARY KEY,
    pack TEXT NOT NULL REFERENCES packs (id),
    start BIGINT NOT NULL,  -- of the zstd frame in the pack's file
    length BIGINT NOT NULL,  -- compressed
    size BIGINT NOT NULL,  -- raw
    added_at DOUBLE PRECISION NOT NULL  -- or when a client last relied on it
) /* STRICT */;

CREATE INDEX blobs_by_pack ON blobs (pack);

CREATE TABLE run_blobs (
    run_id BIGINT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    kind TEXT NOT NULL,  -- tree: a manifest and all it names; blob: just this one
    PRIMARY KEY (run_id, digest)
) /* STRICT */;

-- Object stores that were declared.
CREATE TABLE stores (
    name TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    endpoint TEXT NOT NULL DEFAULT '',
    region TEXT NOT NULL DEFAULT '',
    account TEXT NOT NULL DEFAULT '',
    path_style INTEGER NOT NULL DEFAULT 0,
    anonymous INTEGER NOT NULL DEFAULT 0,
    role TEXT NOT NULL DEFAULT '',  -- what nodes take on instead of the secrets
    secrets TEXT NOT NULL DEFAULT '',  -- sealed with a key that is not in the database
    "user" TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL
) /* STRICT */;

-- Buckets that moorage knows by a name.
CREATE TABLE storages (
    name TEXT NOT NULL PRIMARY KEY,
    store TEXT NOT NULL,  -- a name in `stores`, or of a kind
    bucket TEXT NOT NULL,
    made INTEGER NOT NULL,  -- 1: moorage made the bucket, and may delete it
    persistent INTEGER NOT NULL,  -- 0: it goes with the last run that uses it
    state TEXT NOT NULL,
    message TEXT NOT NULL DEFAULT '',
    born TEXT NOT NULL DEFAULT '',  -- when it was made, as the store tells it
    made_by BIGINT,  -- run; no foreign key: it outlives the run
    "user" TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    last_used DOUBLE PRECISION NOT NULL,
    unflushed TEXT NOT NULL DEFAULT '[]',  -- json: attempts that left something on their node
    objects BIGINT,  -- when it was looked at last
    bytes BIGINT,
    looked_at DOUBLE PRECISION,
    UNIQUE (store, bucket)
) /* STRICT */;
