-- Several servers on one database: who they are, whose a token is, and content without a disk that
-- they share.

CREATE TABLE servers (
    id TEXT NOT NULL PRIMARY KEY,
    url TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at DOUBLE PRECISION NOT NULL,
    seen_at DOUBLE PRECISION NOT NULL,
    session BIGINT NOT NULL DEFAULT 0,  -- the database's number of its writer's session
    beat BIGINT NOT NULL DEFAULT 0,
    epoch BIGINT NOT NULL DEFAULT 0  -- of its latest term; the highest is the leader's
) /* STRICT */;

CREATE TABLE pack_parts (
    pack TEXT NOT NULL,
    part INTEGER NOT NULL,  -- from 0; all but the last are of one size
    data BYTEA NOT NULL,
    PRIMARY KEY (pack, part)
) /* STRICT */;
/* postgres: ALTER TABLE pack_parts ALTER COLUMN data SET STORAGE EXTERNAL; */

ALTER TABLE tokens ADD COLUMN server TEXT NOT NULL DEFAULT '';
