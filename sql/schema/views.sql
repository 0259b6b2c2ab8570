-- Until the tables exist (while a dump is being restored), the views have their columns and raise an error with a hint.
CREATE FUNCTION tailstream.storage_missing()
RETURNS TABLE (id bigint, created_at timestamptz, org_id text, host text, method text, path text, status integer,
               response_time integer, response_size bigint, user_agent text, referrer text, ip_address inet, metadata jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RAISE EXCEPTION 'tailstream''s tables are not attached yet'
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'After timescaledb_post_restore() run: SELECT tailstream.attach_storage();';
END
$body$;

-- Two views of the same rows. log_events is an ordinary view, so the planner can flatten it and rows stream, but a cheap
-- function in a caller's WHERE clause could see rows before the view's filter removes them. A session with an org scope
-- therefore never reads log_events: its queries are redirected to own_log_events, a security barrier view.
CREATE FUNCTION tailstream.create_views() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    columns text := 'id, created_at, org_id, host, method, path, status, response_time, response_size,
                     user_agent, referrer, ip_address, metadata';
BEGIN
    IF to_regclass('tailstream.events') IS NULL THEN
        columns := replace('SELECT ' || columns || ' FROM tailstream.storage_missing()', 'org_id', 'org_id COLLATE "C" AS org_id');
        EXECUTE 'CREATE OR REPLACE VIEW tailstream.log_events AS ' || columns;
        EXECUTE 'CREATE OR REPLACE VIEW tailstream.own_log_events WITH (security_barrier) AS ' || columns;
        RETURN;
    END IF;
    EXECUTE format('CREATE OR REPLACE VIEW tailstream.log_events AS
        SELECT %s FROM tailstream.events
        WHERE tailstream.session_unbound() AND tailstream.is_retained(org_id, created_at)', columns);
    -- The retention cutoff bounds the index scan once, when it starts; is_retained also checks each row while a cursor
    -- stays open.
    -- The order is the index's, so it costs nothing and lets a caller's LIMIT stop early.
    EXECUTE format('CREATE OR REPLACE VIEW tailstream.own_log_events WITH (security_barrier) AS
        SELECT %s FROM tailstream.events
        WHERE org_id = tailstream.bound_org() AND created_at >= tailstream.retention_floor(tailstream.bound_org())
          AND tailstream.is_retained(org_id, created_at)
        ORDER BY created_at, id', columns);
END
$body$;

SELECT tailstream.create_views();

-- Takes tables that a restored dump brought into use.
CREATE FUNCTION tailstream.attach_storage() RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
    missing record;
BEGIN
    IF current_setting('timescaledb.restoring', true) IS NOT DISTINCT FROM 'on' THEN
        RAISE EXCEPTION 'a dump is being restored into this database'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'First run: SELECT timescaledb_post_restore();';
    END IF;
    PERFORM tailstream.create_tables();
    PERFORM tailstream.prepare_tables();
    PERFORM tailstream.create_views();
    PERFORM tailstream.create_cursors_view();
    -- psql goes on after errors: a restore may have lost tiers and orgs, and kept their events.
    FOR missing IN SELECT * FROM tailstream.missing_registrations(true) LOOP
        RAISE WARNING '%', missing.message
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = missing.advice;
    END LOOP;
END
$body$;

GRANT EXECUTE ON FUNCTION tailstream.storage_missing() TO tailstream_reader;
GRANT SELECT ON tailstream.log_events, tailstream.own_log_events TO tailstream_reader;
