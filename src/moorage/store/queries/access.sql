-- name: insert_token
-- Lets whoever holds the token of this hash in. kind: user or node; server: whose it is.
INSERT INTO tokens (hash, kind, subject, created_at, server)
VALUES (:hash, :kind, :subject, :created_at, :server);

-- name: delete_token
-- Ends a token.
DELETE FROM tokens WHERE hash = :hash;

-- name: tokens
-- All tokens, oldest first.
SELECT hash, kind, subject, created_at, server FROM tokens ORDER BY created_at, hash;

-- name: token
-- Whose token has this hash.
SELECT kind, subject, server FROM tokens WHERE hash = :hash;

-- name: set_meta
-- One fact about the database itself (schema version, epoch).
INSERT INTO meta (key, value) VALUES (:key, :value)
ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: found_meta
-- One fact that stays as whoever came first put it.
INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO NOTHING;

-- name: meta
-- One fact about the database itself.
SELECT value FROM meta WHERE key = :key;
