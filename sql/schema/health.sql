-- ts_version: the version of the library that is loaded.
CREATE FUNCTION ts_version() RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'ts_version_wrapper';

-- ts_health: rows for each component with the status ok, warning or error, and a hint.
CREATE FUNCTION ts_health() RETURNS TABLE (component text, status text, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    installed text := (SELECT extversion FROM pg_extension WHERE extname = 'tailstream');
    overdue   record;
    job       record;
    worker    record;
    missing   record;
BEGIN
    PERFORM tailstream.require_unbound();
    component := 'tailstream';
    status := CASE WHEN installed = @extschema@.ts_version() THEN 'ok' ELSE 'warning' END;
    detail := format('extension %s, library %s%s', installed, @extschema@.ts_version(),
                     CASE status WHEN 'ok' THEN '' ELSE '; run ALTER EXTENSION tailstream UPDATE' END);
    RETURN NEXT;

    component := 'timescaledb';
    status := 'ok';
    detail := format('%s, %s', (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
                     CASE current_setting('timescaledb.license', true) WHEN 'timescale' THEN 'Community edition' ELSE 'Apache edition' END);
    RETURN NEXT;

    component := 'preload';
    status := CASE WHEN current_setting('shared_preload_libraries') ~ '\mtailstream\M' THEN 'ok' ELSE 'warning' END;
    detail := CASE status WHEN 'ok' THEN 'tailstream is in shared_preload_libraries'
                   ELSE 'tailstream is not in shared_preload_libraries; roles bound to an org need it' END;
    RETURN NEXT;

    component := 'storage';
    status := CASE WHEN to_regclass('tailstream.events') IS NULL
                     OR strpos(pg_get_viewdef('tailstream.log_events'::regclass), 'storage_missing') > 0 THEN 'error' ELSE 'ok' END;
    detail := CASE status WHEN 'ok' THEN (SELECT format('%s event chunks', count(*)) FROM pg_inherits i WHERE i.inhparent = to_regclass('tailstream.events'))
                   ELSE 'tables are not attached; run SELECT tailstream.attach_storage()' END;
    RETURN NEXT;
    IF status = 'error' THEN
        RETURN;
    END IF;

    FOR worker IN SELECT w.name, s.* FROM unnest(ARRAY['sequencer', 'mirror']) WITH ORDINALITY AS w(name, n)
                  LEFT JOIN LATERAL tailstream.worker_state(w.name) s ON true ORDER BY w.n LOOP
        component := worker.name;
        status := CASE WHEN pg_is_in_recovery() THEN 'ok'
                       WHEN NOT tailstream.has_workers() THEN 'warning'
                       WHEN worker.state = 'running' OR worker.name = 'mirror' AND worker.state = 'off' THEN 'ok'
                       WHEN worker.state = 'connecting' THEN 'warning' ELSE 'error' END;
        detail := CASE WHEN pg_is_in_recovery() THEN 'runs on the primary'
                       WHEN NOT tailstream.has_workers()
                       THEN 'none in this database; have tailstream in shared_preload_libraries and the database in tailstream.databases'
                       WHEN worker.state = 'off' THEN 'off; set tailstream.redis_url and tailstream.mirror_enabled to have events in Redis'
                       ELSE worker.state END
                  || CASE WHEN worker.last_error IS NULL THEN ''
                          ELSE format('; last error at %s: %s', date_trunc('second', worker.last_error_at), worker.last_error) END;
        RETURN NEXT;
    END LOOP;

    component := 'retention job';
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') THEN
        SELECT c.schedule, c.active INTO job
        FROM cron.job c JOIN tailstream.retention_jobs() j ON j.job_name = c.jobname
        WHERE j.job_name LIKE 'tailstream-retention-%';
        status := CASE WHEN job.active THEN 'ok' ELSE 'warning' END;
        detail := CASE WHEN job.active THEN format('pg_cron runs it at "%s"', job.schedule)
                       WHEN job.active IS NULL THEN 'not scheduled; run SELECT ts_schedule_retention()'
                       ELSE 'the pg_cron job is not active' END;
    ELSE
        status := 'ok';
        detail := 'not to be seen from here, pg_cron is not in this database: watch purge below; SELECT ts_schedule_retention() says how to schedule it';
    END IF;
    RETURN NEXT;

    SELECT count(*) AS chunks, max(clock_timestamp() - x.retention - x.range_end) AS late INTO overdue
    FROM tailstream.expired_chunks() x;
    component := 'purge';
    status := CASE WHEN overdue.late > interval '1 hour' THEN 'error' WHEN overdue.late > interval '5 minutes' THEN 'warning' ELSE 'ok' END;
    detail := CASE overdue.chunks WHEN 0 THEN 'nothing is overdue'
                   ELSE format('%s chunks to drop, the oldest is %s late', overdue.chunks, date_trunc('second', overdue.late)) END;
    RETURN NEXT;

    FOR missing IN
        SELECT c.name, coalesce(m.status, 'ok') AS status, m.message || '. ' || m.advice AS detail
        FROM (VALUES (1, 'tiers'), (2, 'orgs')) AS c(n, name)
        LEFT JOIN tailstream.missing_registrations(false) m ON m.component = c.name ORDER BY c.n, m.status
    LOOP
        component := missing.name;
        status := missing.status;
        detail := coalesce(missing.detail, CASE missing.name WHEN 'tiers' THEN 'every chunk belongs to a tier'
                                                             ELSE 'no events of unregistered orgs were found' END);
        RETURN NEXT;
    END LOOP;

    component := 'roles';
    status := CASE WHEN (SELECT count(*) FROM pg_roles WHERE rolname IN ('tailstream_writer', 'tailstream_reader', 'tailstream_admin')) = 3
                   THEN 'ok' ELSE 'error' END;
    detail := CASE status WHEN 'ok' THEN 'tailstream_writer, tailstream_reader and tailstream_admin exist'
                   ELSE 'a role is missing; create it and run the grants of the documentation' END;
    RETURN NEXT;

    component := 'drop_chunk';
    status := CASE WHEN has_function_privilege('public', '_timescaledb_functions.drop_chunk(regclass)', 'EXECUTE') THEN 'warning' ELSE 'ok' END;
    detail := CASE status WHEN 'ok' THEN 'ordinary roles cannot drop chunks'
                   ELSE 'any role can drop any chunk; run REVOKE EXECUTE ON FUNCTION _timescaledb_functions.drop_chunk(regclass) FROM PUBLIC' END;
    RETURN NEXT;
END
$body$;

GRANT EXECUTE ON FUNCTION ts_version() TO tailstream_writer, tailstream_reader, tailstream_admin;
GRANT EXECUTE ON FUNCTION ts_health() TO tailstream_admin;
