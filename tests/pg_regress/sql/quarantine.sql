-- on_invalid => 'quarantine' stores the good events and puts the bad ones aside, verbatim.
\set SHOW_CONTEXT never
SELECT accepted, rejected, expired, duplicate FROM ts_ingest('quarantine',
    '[{"path":"/0"}, {"status": "x" }, {"path":"/2"}, 7, {"a":1,"a":2}, {"ts":"2001-01-01"}]', 'key', 'quarantine');
SELECT accepted, rejected, expired, duplicate FROM ts_ingest('quarantine',
    '[{"path":"/0"}, {"status": "x" }, {"path":"/2"}, 7, {"a":1,"a":2}, {"ts":"2001-01-01"}]', 'key', 'quarantine');
SELECT accepted, rejected FROM ts_ingest_ndjson('quarantine', E'{"path":"/3"}\n{broken\n{"ip":"?"}', NULL, 'quarantine');
SELECT path FROM tailstream.events WHERE org_id = 'quarantine' ORDER BY id;
SELECT position, sqlstate, reason, event FROM tailstream.rejected_events WHERE org_id = 'quarantine' ORDER BY batch_id, position;
-- What is no JSON at all is refused even so.
SELECT ts_ingest('quarantine', '"text"', NULL, 'quarantine');
