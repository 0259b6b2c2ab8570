-- ts_ingest: stores a batch of events of one org, whole or not at all.
CREATE FUNCTION ts_ingest(
    org text, events json, idempotency_key text DEFAULT NULL, on_invalid text DEFAULT 'error',
    OUT batch_id bigint, OUT accepted integer, OUT rejected integer, OUT expired integer, OUT duplicate boolean)
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET default_tablespace = ''
AS 'MODULE_PATHNAME', 'ts_ingest_wrapper';

-- ts_ingest_ndjson: the same for newline-delimited JSON.
CREATE FUNCTION ts_ingest_ndjson(
    org text, events text, idempotency_key text DEFAULT NULL, on_invalid text DEFAULT 'error',
    OUT batch_id bigint, OUT accepted integer, OUT rejected integer, OUT expired integer, OUT duplicate boolean)
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET default_tablespace = ''
AS 'MODULE_PATHNAME', 'ts_ingest_ndjson_wrapper';

-- ts_event: an event as the JSON it came in as. Takes a row of tailstream.events, tailstream.log_events or ts_replay().
CREATE FUNCTION ts_event(event record) RETURNS json
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ts_event_wrapper';

-- The same in a schema where no other role can create a better matching function for some row type.
CREATE FUNCTION tailstream.event_json(event record) RETURNS json
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ts_event_wrapper';

-- INSERT INTO tailstream.log_events, for ORMs: the rows of one statement are one batch for each org. The row trigger assigns
-- the ids and collects the rows with the privileges of the caller; the statement trigger stores them. RETURNING shows each
-- row as stored. An event older than its org's retention inserts no row.
CREATE FUNCTION tailstream.insert_log_event() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'insert_log_event_wrapper';

CREATE FUNCTION tailstream.store_log_events() RETURNS trigger
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET default_tablespace = ''
AS 'MODULE_PATHNAME', 'store_log_events_wrapper';

CREATE TRIGGER log_events_insert INSTEAD OF INSERT ON tailstream.log_events
    FOR EACH ROW EXECUTE FUNCTION tailstream.insert_log_event();
CREATE TRIGGER log_events_store AFTER INSERT ON tailstream.log_events
    FOR EACH STATEMENT EXECUTE FUNCTION tailstream.store_log_events();

GRANT EXECUTE ON FUNCTION ts_ingest(text, json, text, text), ts_ingest_ndjson(text, text, text, text) TO tailstream_writer;
GRANT EXECUTE ON FUNCTION ts_event(record) TO tailstream_writer, tailstream_reader;
GRANT EXECUTE ON FUNCTION tailstream.event_json(record) TO tailstream_writer;
-- RETURNING needs SELECT on the columns that it returns. This does not let a writer read the view: a query of the view
-- evaluates its filter, only readers may execute tailstream.is_retained(), and tailstream.session_unbound() refuses other
-- roles while the query is planned.
GRANT INSERT, SELECT (id, created_at, org_id, host, method, path, status, response_time, response_size, user_agent, referrer,
                      ip_address, metadata) ON tailstream.log_events TO tailstream_writer;
