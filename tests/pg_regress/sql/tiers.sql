-- Tiers and orgs.
\set SHOW_CONTEXT never
SELECT id, name, retention FROM tailstream.tiers ORDER BY id;
SELECT ts_create_tier('gold', '30 days');
SELECT ts_create_tier('gold', '1 day');
SELECT ts_create_tier('bad', '1 month');
SELECT ts_create_tier('bad', '0');
SELECT ts_create_tier('', '1 day');
SELECT ts_set_org_tier('tiers', 'gold');
SELECT org_id, tier, retention FROM ts_org('tiers');
SELECT * FROM ts_org('never seen');
SELECT retention FROM ts_replay_window('tiers');
SELECT retention FROM ts_replay_window('never seen');
SELECT ts_set_org_tier('tiers', 'silver');
SELECT ts_alter_tier('gold', '60 days');
SELECT ts_alter_tier('silver', '1 day');
SELECT retention FROM ts_replay_window('tiers');
SELECT ts_drop_tier('gold');
SELECT ts_set_org_tier('tiers', 'standard');
SELECT ts_drop_tier('gold');
SELECT ts_drop_tier('gold');
SELECT ts_drop_tier('standard');
SELECT tier, chunks_dropped, events_dropped, events_rescued, bytes_freed > 0 AS freed FROM ts_retention_preview();
SELECT tier, chunks_dropped, events_dropped, events_rescued, bytes_freed > 0 AS freed FROM ts_apply_retention();
