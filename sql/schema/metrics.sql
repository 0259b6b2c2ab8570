-- ts_metrics: counters, gauges and histograms of this database since the server started, with Prometheus names.
CREATE FUNCTION ts_metrics() RETURNS TABLE (name text, labels jsonb, value double precision, type text, help text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM tailstream.require_unbound();
    RETURN QUERY
    SELECT m.name, m.labels::jsonb || jsonb_build_object('database', current_database()), m.value, m.type, m.help
    FROM tailstream.counters() m;
END
$body$;

-- The counters of this database in shared memory.
CREATE FUNCTION tailstream.counters() RETURNS TABLE (name text, labels text, value double precision, type text, help text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'counters_wrapper';

-- Adds to a counter from SQL: its name and the amount.
CREATE FUNCTION tailstream.count(counter text, amount bigint) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'count_by_name_wrapper';

-- Whether this database has workers, or gets them within seconds.
CREATE FUNCTION tailstream.has_workers() RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'has_workers_wrapper';

-- The state of a worker of this database, from shared memory.
CREATE FUNCTION tailstream.worker_state(worker text)
RETURNS TABLE (pid integer, state text, last_error text, last_error_at timestamptz)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'worker_state_wrapper';

GRANT EXECUTE ON FUNCTION ts_metrics() TO tailstream_admin;
