-- name: insert_pack
-- A pack whose file is durable.
INSERT INTO packs (id, bytes, added_at) VALUES (:id, :bytes, :added_at);

-- name: insert_blob
-- Where a blob lies. When two uploads bring the same one, the first place stays.
INSERT INTO blobs (digest, pack, start, length, size, added_at)
VALUES (:digest, :pack, :start, :length, :size, :added_at)
ON CONFLICT (digest) DO UPDATE SET added_at = excluded.added_at;

-- name: touch_blob
-- A client relies on it: its grace period begins anew.
UPDATE blobs SET added_at = :added_at WHERE digest = :digest;

-- name: move_blob
-- Its live bytes were copied into a new pack.
UPDATE blobs SET pack = :pack, start = :start WHERE digest = :digest AND pack = :old_pack;

-- name: delete_blob
-- Collected, unless somebody came to rely on it since :before.
DELETE FROM blobs WHERE digest = :digest AND pack = :pack AND added_at < :before;

-- name: delete_pack
-- Refused by the foreign key while any blob lies in it.
DELETE FROM packs WHERE id = :id;

-- name: blobs_of_pack
-- What lies in a pack, in its order.
SELECT digest, pack, start, length, size, added_at FROM blobs WHERE pack = :pack ORDER BY start;

-- name: old_blobs
-- Collection: blobs that nobody relied on since :before, those of one pack together.
SELECT digest, pack, length, added_at FROM blobs WHERE added_at < :before ORDER BY pack;

-- name: small_packs
-- Collection: packs below :bytes, oldest first.
SELECT id, bytes FROM packs WHERE bytes < :bytes ORDER BY added_at, id;

-- name: content_bytes
-- What all content takes.
SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) AS total FROM packs;

-- name: packs
-- Every pack.
SELECT id, bytes, added_at FROM packs ORDER BY id;

-- name: referenced
-- What runs keep alive.
SELECT DISTINCT digest, kind FROM run_blobs;

-- name: sparse_packs
-- Collection: packs of which most is dead, the cheapest to free first. A frame's header takes 48
-- bytes.
SELECT p.id, p.bytes, coalesce(sum(b.length + 48), 0) AS live
FROM packs AS p
LEFT JOIN blobs AS b ON b.pack = p.id
GROUP BY p.id, p.bytes
HAVING coalesce(sum(b.length + 48), 0) * 2 < p.bytes
ORDER BY live, p.id;
