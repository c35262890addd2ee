-- name: restore_event_numbers
-- Followers have seen events of after the backup: new ones get numbers beyond those.
UPDATE sqlite_sequence SET seq = :seq WHERE name = 'events' AND seq < :seq;
