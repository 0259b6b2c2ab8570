-- Brings the tables into use, when the extension is created and after a restore.

-- Invalidates the caches of orgs and tiers in all sessions when the change commits.
CREATE FUNCTION tailstream.invalidate_tier_cache() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'invalidate_tier_cache_wrapper';

-- Creates the tables that do not exist.
CREATE FUNCTION tailstream.create_tables() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    SELECT tailstream.create_tiers_tables(),
           tailstream.create_ingest_tables(),
           tailstream.create_sequencer_tables(),
           tailstream.create_mirror_tables(),
           tailstream.create_purge_tables(),
           tailstream.create_replay_tables(),
           tailstream.create_cursors_tables()
$body$;

-- Makes the tables hypertables and creates triggers, where that has not been done.
CREATE FUNCTION tailstream.prepare_tables() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    cached text;
BEGIN
    PERFORM set_config('search_path', format('pg_catalog, %I, pg_temp', n.nspname), true)
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb';
    IF NOT EXISTS (SELECT FROM timescaledb_information.hypertables
                   WHERE hypertable_schema = 'tailstream' AND hypertable_name = 'events') THEN
        PERFORM create_hypertable('tailstream.events', by_range('created_at', interval '1 hour'), create_default_indexes => false);
        PERFORM add_dimension('tailstream.events', by_range('tier', 1));
    END IF;
    PERFORM create_hypertable('tailstream.batches', by_range('received_at', interval '6 hours'), create_default_indexes => false, if_not_exists => true)
    WHERE NOT EXISTS (SELECT FROM timescaledb_information.hypertables
                      WHERE hypertable_schema = 'tailstream' AND hypertable_name = 'batches');
    PERFORM create_hypertable('tailstream.rejected_events', by_range('received_at', interval '1 day'), create_default_indexes => false, if_not_exists => true)
    WHERE NOT EXISTS (SELECT FROM timescaledb_information.hypertables
                      WHERE hypertable_schema = 'tailstream' AND hypertable_name = 'rejected_events');
    PERFORM create_hypertable('tailstream.positions', by_range('placed_at', interval '6 hours'), create_default_indexes => false, if_not_exists => true)
    WHERE NOT EXISTS (SELECT FROM timescaledb_information.hypertables
                      WHERE hypertable_schema = 'tailstream' AND hypertable_name = 'positions');

    FOREACH cached IN ARRAY ARRAY['orgs', 'tiers'] LOOP
        -- Sessions do not cache that an org is missing, so registering one need not invalidate their caches.
        EXECUTE format('CREATE OR REPLACE TRIGGER tailstream_invalidate_cache AFTER %s UPDATE OR DELETE OR TRUNCATE
                        ON tailstream.%I FOR EACH STATEMENT EXECUTE FUNCTION tailstream.invalidate_tier_cache()',
                       CASE cached WHEN 'tiers' THEN 'INSERT OR' ELSE '' END, cached);
        -- So that it also fires with session_replication_role = replica.
        EXECUTE format('ALTER TABLE tailstream.%I ENABLE ALWAYS TRIGGER tailstream_invalidate_cache', cached);
        EXECUTE format('ALTER TRIGGER tailstream_invalidate_cache ON tailstream.%I DEPENDS ON EXTENSION tailstream', cached);
    END LOOP;
    GRANT SELECT ON tailstream.orgs, tailstream.tiers, tailstream.dropped_tiers, tailstream.batches, tailstream.rejected_events,
                    tailstream.positions, tailstream.mirror_rebuilds TO tailstream_admin;
END
$body$;

DO $create$
DECLARE
    owned text;
BEGIN
    IF current_setting('timescaledb.restoring', true) IS NOT DISTINCT FROM 'on' THEN
        RETURN;
    END IF;
    FOR owned IN
        SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'tailstream' AND c.relkind IN ('r', 'S', 'v', 'm', 'p')
          AND c.relowner <> current_user::regrole
          AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE oid = c.relowner)
    LOOP
        RAISE EXCEPTION '% exists and has another owner', owned
            USING ERRCODE = 'insufficient_privilege', HINT = 'Drop it, or give it to a superuser.';
    END LOOP;
    PERFORM tailstream.create_tables();
    PERFORM tailstream.prepare_tables();
    FOR owned IN
        SELECT format('%s %s', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass)
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
        JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid
        WHERE e.extname = 'tailstream' AND c.relkind IN ('r', 'S')
    LOOP
        EXECUTE 'ALTER EXTENSION tailstream DROP ' || owned;
    END LOOP;
END
$create$;
