-- Runs can be deleted while a node that has their output is away: it is told when it is back.

CREATE TABLE dropped_logs (
    node_id BIGINT NOT NULL REFERENCES nodes (id),
    attempt TEXT NOT NULL,  -- its key, 12.1.0
    PRIMARY KEY (node_id, attempt)
) /* STRICT */;
