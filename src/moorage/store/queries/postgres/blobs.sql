-- name: blobs
-- Where many blobs lie; :digests is a JSON array of strings. Unknown ones have no row.
SELECT b.digest, b.pack, b.start, b.length, b.size, b.added_at
FROM jsonb_array_elements_text(CAST(:digests AS JSONB)) AS wanted (digest)
JOIN blobs AS b ON b.digest = wanted.digest;

-- name: blobs_to_note
-- Of many blobs (:digests as above) those that are unknown (added_at is NULL) or that nobody
-- relied on since :since: of an unchanged upload, none.
SELECT wanted.digest, b.added_at
FROM jsonb_array_elements_text(CAST(:digests AS JSONB)) AS wanted (digest)
LEFT JOIN blobs AS b ON b.digest = wanted.digest
WHERE b.added_at IS NULL OR b.added_at < :since;
