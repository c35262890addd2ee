-- Object stores that were declared, and the buckets in them that moorage knows by a name.

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
