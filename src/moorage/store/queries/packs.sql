-- name: insert_pack_part
-- A piece of a pack that is kept in the database.
INSERT INTO pack_parts (pack, part, data) VALUES (:pack, :part, :data);

-- name: delete_pack_parts
-- The bytes of a pack whose row is gone, or never came.
DELETE FROM pack_parts WHERE pack = :pack;

-- name: pack_slice
-- Bytes of one part, :begin counted from 1.
SELECT substr(data, :begin, :count) AS data FROM pack_parts WHERE pack = :pack AND part = :part;

-- name: pack_size
-- The bytes and the parts of a pack (0: none here).
SELECT coalesce(sum(length(data)), 0) AS bytes, count(*) AS parts
FROM pack_parts
WHERE pack = :pack;

-- name: stored_packs
-- Every pack of which there are bytes.
SELECT DISTINCT pack FROM pack_parts ORDER BY pack;
