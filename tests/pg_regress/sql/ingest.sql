-- ts_ingest and ts_ingest_ndjson: batches, idempotency keys, arguments.
\set SHOW_CONTEXT never
SELECT accepted, rejected, expired, duplicate FROM ts_ingest('regress', '[{"path":"/a"},{"path":"/b"}]');
SELECT accepted, rejected, expired, duplicate FROM ts_ingest('regress', '{"path":"/c"}');
SELECT accepted, rejected, expired, duplicate FROM ts_ingest('regress', '[]');
SELECT accepted, rejected, expired, duplicate FROM ts_ingest_ndjson('regress', E'{"path":"/d"}\n\n{"path":"/e"}\r\n');
SELECT accepted, rejected, expired, duplicate FROM ts_ingest_ndjson('regress', '');
SELECT accepted, rejected, expired, duplicate FROM ts_ingest('regress', '[{"ts":"2001-01-01T00:00:00Z"},{}]');
SELECT path, method, status, host FROM tailstream.events WHERE org_id = 'regress' ORDER BY id;
-- The second call with a key is the first one's echo; with other events it is refused.
SELECT accepted, duplicate FROM ts_ingest('regress', '[{},{},{}]', 'key');
SELECT accepted, duplicate FROM ts_ingest('regress', '[{},{},{}]', 'key', 'quarantine');
SELECT accepted, duplicate FROM ts_ingest_ndjson('regress', '[{},{},{}]', 'key');
\set VERBOSITY terse
SELECT accepted, duplicate FROM ts_ingest('regress', '[{},{}, {}]', 'key');
SELECT accepted, duplicate FROM ts_ingest_ndjson('regress', '{}', idempotency_key => 'key');
\set VERBOSITY default
SELECT accepted, duplicate FROM ts_ingest('regress 2', '[{}]', 'key');
-- Its window is the server's.
SET tailstream.idempotency_window = 0;
-- The ledger has one row a batch.
SELECT event_count, idempotency_key, accepted, rejected, expired, tier FROM tailstream.batches WHERE org_id = 'regress' ORDER BY batch_id;
SELECT count(*) AS ids, count(DISTINCT e.id) AS distinct_ids, bool_and(b.batch_id IS NOT NULL) AS in_ledger
FROM tailstream.events e LEFT JOIN tailstream.batches b ON b.batch_id = e.id >> 16;
-- Unknown orgs
SET tailstream.auto_register_orgs = off;
SELECT ts_ingest('regress 3', '{}');
RESET tailstream.auto_register_orgs;
-- Arguments
SELECT ts_ingest(NULL, '{}');
SELECT ts_ingest('', '{}');
SELECT ts_ingest(repeat('x', 256), '{}');
SELECT ts_ingest('regress', NULL);
SELECT ts_ingest('regress', '{}', '');
SELECT ts_ingest('regress', '{}', repeat('k', 256));
SELECT ts_ingest('regress', '{}', on_invalid => 'ignore');
SELECT ts_ingest('regress', '{}', on_invalid => NULL);
SET tailstream.ingest_lane = 'fast';
