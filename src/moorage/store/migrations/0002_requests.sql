-- What a request made is remembered by itself: deleting its runs must not let a repetition of it
-- submit them again, and the request ids of one user are not those of another.

CREATE TABLE requests (
    "user" TEXT NOT NULL,
    id TEXT NOT NULL,
    runs TEXT NOT NULL,  -- json: the first reply
    PRIMARY KEY ("user", id)
) /* STRICT */;

DROP INDEX runs_by_request;
ALTER TABLE runs DROP COLUMN request_id;
