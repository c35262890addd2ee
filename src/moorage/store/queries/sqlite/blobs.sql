-- name: blobs
-- Where many blobs lie; :digests is a JSON array of strings. Unknown ones have no row.
SELECT b.digest, b.pack, b.start, b.length, b.size, b.added_at
FROM json_each(:digests) AS wanted
CROSS JOIN blobs AS b ON b.digest = wanted.value;
