-- ts_erase_org: all of one org, and nothing of another.
\set SHOW_CONTEXT never
SELECT accepted, rejected FROM ts_ingest('erase', '[{},{},{"status":"x"}]', 'key', 'quarantine');
SELECT accepted FROM ts_ingest('stays', '[{},{}]');
SELECT * FROM ts_erase_org('erase');
SELECT * FROM ts_erase_org('erase');
SELECT count(*) FROM tailstream.events WHERE org_id = 'stays';
SELECT count(*) FROM ts_org('erase');
SELECT accepted, duplicate FROM ts_ingest('erase', '{}', 'key');
SELECT * FROM ts_erase_org('');
