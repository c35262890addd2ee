-- name: upsert_store
-- A store as its user declared it.
INSERT INTO stores (
    name, kind, endpoint, region, account, path_style, anonymous, role, secrets, "user",
    created_at
) VALUES (
    :name, :kind, :endpoint, :region, :account, :path_style, :anonymous, :role, :secrets, :user,
    :created_at
)
ON CONFLICT (name) DO UPDATE SET
    kind = excluded.kind, endpoint = excluded.endpoint, region = excluded.region,
    account = excluded.account, path_style = excluded.path_style,
    anonymous = excluded.anonymous, role = excluded.role, secrets = excluded.secrets,
    "user" = excluded."user", created_at = excluded.created_at;

-- name: delete_store
-- Nobody uses it any more.
DELETE FROM stores WHERE name = :name;

-- name: stores
-- Boot: every declared store.
SELECT
    name, kind, endpoint, region, account, path_style, anonymous, role, secrets, "user",
    created_at
FROM stores
ORDER BY name;

-- name: upsert_storage
-- A bucket, and how far making or deleting it is.
INSERT INTO storages (
    name, store, bucket, made, persistent, state, message, born, made_by, "user", created_at,
    last_used, unflushed, objects, bytes, looked_at
) VALUES (
    :name, :store, :bucket, :made, :persistent, :state, :message, :born, :made_by, :user,
    :created_at, :last_used, :unflushed, :objects, :bytes, :looked_at
)
ON CONFLICT (name) DO UPDATE SET
    store = excluded.store, bucket = excluded.bucket, made = excluded.made,
    persistent = excluded.persistent, state = excluded.state, message = excluded.message,
    born = excluded.born, made_by = excluded.made_by, "user" = excluded."user",
    created_at = excluded.created_at, last_used = excluded.last_used,
    unflushed = excluded.unflushed, objects = excluded.objects, bytes = excluded.bytes,
    looked_at = excluded.looked_at;

-- name: delete_storage
-- The bucket is gone, or is none of ours any more.
DELETE FROM storages WHERE name = :name;

-- name: storages
-- Boot: every bucket with a name.
SELECT
    name, store, bucket, made, persistent, state, message, born, made_by, "user", created_at,
    last_used, unflushed, objects, bytes, looked_at
FROM storages
ORDER BY name;

-- name: attempt_left
-- An attempt that may have left something on its node, with what its run asked for.
SELECT a.node_id, a.outcome, r.spec
FROM attempts AS a
JOIN jobs AS j ON j.id = a.job_id
JOIN runs AS r ON r.id = j.run_id
WHERE a.job_id = :job_id AND a.attempt = :attempt AND a.rank = :rank AND a.state = 'done';
