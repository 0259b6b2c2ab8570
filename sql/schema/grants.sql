-- PUBLIC gets nothing; each role gets what its work requires.
DO $revoke$
DECLARE
    member regprocedure;
BEGIN
    FOR member IN
        SELECT d.objid::regprocedure
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
        WHERE e.extname = 'tailstream' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
          AND d.classid = 'pg_catalog.pg_proc'::regclass AND d.deptype = 'e'
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', member);
    END LOOP;
END
$revoke$;

-- TimescaleDB lets any role drop any chunk with this function. Owners keep drop_chunks().
REVOKE EXECUTE ON FUNCTION _timescaledb_functions.drop_chunk(regclass) FROM PUBLIC;

GRANT USAGE ON SCHEMA tailstream TO tailstream_writer, tailstream_reader, tailstream_admin;

GRANT EXECUTE ON FUNCTION
    ts_ingest(text, json, text, text),
    ts_ingest_ndjson(text, text, text, text),
    ts_event(record),
    tailstream.event_json(record),
    tailstream.bound_org(),
    tailstream.session_unbound()
TO tailstream_writer;
-- RETURNING needs SELECT on the columns that it returns. This does not let a writer read the view: a query of the view
-- evaluates its filter, only readers may execute tailstream.is_retained(), and tailstream.session_unbound() refuses other
-- roles while the query is planned.
GRANT INSERT, SELECT (id, created_at, org_id, host, method, path, status, response_time, response_size, user_agent, referrer,
                      ip_address, metadata) ON tailstream.log_events TO tailstream_writer;

GRANT EXECUTE ON FUNCTION
    ts_replay(text, timestamptz, timestamptz),
    ts_replay_window(text),
    ts_event(record),
    ts_org(text),
    tailstream.bound_org(),
    tailstream.permitted_org(text),
    tailstream.session_unbound(),
    tailstream.retention_floor(text),
    tailstream.is_retained(text, timestamptz),
    tailstream.replay_floor(text, timestamptz),
    tailstream.storage_missing(),
    ts_replay_page(text, timestamptz, timestamptz, text, integer, jsonb, text),
    ts_replay_schedule(text, timestamptz, timestamptz, double precision, interval, integer, text, jsonb),
    tailstream.page(text, timestamptz, timestamptz, text, integer, jsonb, text),
    tailstream.play(text, timestamptz, timestamptz, double precision, interval, integer, text, jsonb),
    ts_replay_live(text, timestamptz, text),
    ts_cursor_create(text, text, text, jsonb, text),
    ts_cursor_create(text, text, timestamptz, jsonb, text),
    ts_cursor_fetch(text, integer, interval, boolean, boolean, text),
    ts_cursor_ack(text, text, text),
    ts_cursor_seek(text, text, text),
    ts_cursor_seek(text, timestamptz, text),
    ts_cursor_drop(text, text),
    tailstream.cursor_lag(text, boolean, timestamptz, bigint, integer)
TO tailstream_reader;
GRANT SELECT ON tailstream.log_events, tailstream.own_log_events, tailstream.cursors TO tailstream_reader;

GRANT EXECUTE ON FUNCTION
    ts_create_tier(text, interval, bigint, interval),
    ts_alter_tier(text, interval, bigint, interval),
    ts_drop_tier(text),
    ts_set_org_tier(text, text),
    ts_apply_retention(),
    ts_retention_preview(),
    ts_schedule_retention(text),
    ts_unschedule_retention(),
    ts_erase_org(text),
    ts_set_mirror(text, boolean, interval),
    ts_mirror_status(),
    ts_mirror_status(text),
    ts_mirror_verify(text),
    ts_metrics(),
    ts_health()
TO tailstream_admin;

GRANT EXECUTE ON FUNCTION ts_version() TO tailstream_writer, tailstream_reader, tailstream_admin;
