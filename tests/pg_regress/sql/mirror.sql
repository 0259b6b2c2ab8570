-- The mirror's functions: their arguments, and what they say where there are no workers.
\set SHOW_CONTEXT never
SELECT ts_set_mirror('quiet', false);
SELECT org_id, mirrored, mirror_snapshot IS NOT NULL AS since, mirror_from IS NOT NULL AS from FROM tailstream.orgs WHERE org_id = 'quiet';
SELECT ts_set_mirror('quiet', true);
SELECT org_id, mirrored, mirror_snapshot IS NOT NULL AS since, mirror_from IS NOT NULL AS from FROM tailstream.orgs WHERE org_id = 'quiet';
SELECT ts_set_mirror('quiet', true, backfill => '10 minutes');
SELECT org_id, mirrored, mirror_snapshot IS NOT NULL AS since, mirror_from IS NOT NULL AS from FROM tailstream.orgs WHERE org_id = 'quiet';
SELECT org_id, reason FROM tailstream.mirror_rebuilds;
SELECT ts_set_mirror('quiet', NULL);
SELECT ts_set_mirror(NULL, true);
SELECT ts_set_mirror('quiet', false, backfill => '1 hour');
SELECT ts_set_mirror('quiet', true, backfill => '-1 hour');
SELECT * FROM ts_erase_org('quiet');
SELECT org_id, reason FROM tailstream.mirror_rebuilds;
DELETE FROM tailstream.mirror_rebuilds;

SELECT ts_create_tier('live', '2 days', 100, '5 minutes');
SELECT ts_alter_tier('live', stream_entries => 200);
SELECT ts_alter_tier('live', stream_age => '10 minutes');
SELECT name, retention, stream_entries, stream_age FROM tailstream.tiers ORDER BY id;
SELECT ts_alter_tier('live');
SELECT ts_alter_tier('live', stream_entries => 0);
SELECT ts_alter_tier('live', stream_age => '1 month');
SELECT ts_drop_tier('live');

SELECT * FROM ts_mirror_status();
SELECT * FROM ts_mirror_status('acme');
SELECT * FROM ts_mirror_verify('acme');
SHOW tailstream.redis_url;
SELECT tailstream.stream_key('acme');
