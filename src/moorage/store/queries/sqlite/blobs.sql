-- name: blobs
-- Where many blobs lie; :digests is a JSON array of strings. Unknown ones have no row.
SELECT b.digest, b.pack, b.start, b.length, b.size, b.added_at
FROM json_each(:digests) AS wanted
CROSS JOIN blobs AS b ON b.digest = wanted.value;

-- name: blobs_to_note
-- Of many blobs (:digests as above) those that are unknown (added_at is NULL) or that nobody
-- relied on since :since: of an unchanged upload, none.
SELECT wanted.value AS digest, b.added_at
FROM json_each(:digests) AS wanted
LEFT JOIN blobs AS b ON b.digest = wanted.value
WHERE b.added_at IS NULL OR b.added_at < :since;
