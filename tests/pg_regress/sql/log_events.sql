-- The view: reading is clamped, INSERT is ts_ingest with one event.
\set SHOW_CONTEXT never
INSERT INTO tailstream.log_events (org_id, path, status, metadata) VALUES ('view', '/a', 404, '{"k": 1.50}')
RETURNING org_id, method, path, status, metadata, id IS NOT NULL AS has_id, created_at IS NOT NULL AS has_time;
INSERT INTO tailstream.log_events (org_id) VALUES ('view'), ('view') RETURNING method, path, status;
INSERT INTO tailstream.log_events (org_id, created_at) VALUES ('view', '2001-01-01') RETURNING path;
INSERT INTO tailstream.log_events (path) VALUES ('/no org');
SELECT path, status, metadata FROM tailstream.log_events WHERE org_id = 'view' ORDER BY id;
-- A session that is bound to an org
SET tailstream.org = 'view';
SELECT count(*) AS own, count(*) FILTER (WHERE org_id <> 'view') AS foreign FROM tailstream.log_events;
SELECT ts_ingest('other', '{}');
SELECT * FROM ts_replay('other', now(), now());
SELECT ts_set_org_tier('view', 'premium');
SELECT accepted FROM ts_ingest('view', '{}');
RESET tailstream.org;
