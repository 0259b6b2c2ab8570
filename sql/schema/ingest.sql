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

-- The same, where nobody else can put a function for a row of some type, which would fit better.
CREATE FUNCTION tailstream.event_json(event record) RETURNS json
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ts_event_wrapper';

-- INSERT INTO tailstream.log_events is ts_ingest with one event, for ORMs: the row that RETURNING
-- shows is the row as stored. An event older than its org's retention inserts no row.
CREATE FUNCTION tailstream.insert_log_event() RETURNS trigger
LANGUAGE plpgsql AS $body$
DECLARE
    outcome record;
BEGIN
    NEW.org_id := coalesce(NEW.org_id, tailstream.bound_org());
    IF NEW.org_id IS NULL THEN
        RAISE EXCEPTION 'column "org_id" of view log_events is NULL'
            USING ERRCODE = 'not_null_violation', HINT = 'Name the org, or have the role bound to one.';
    END IF;
    NEW.created_at := coalesce(NEW.created_at, pg_catalog.clock_timestamp());
    NEW.method := coalesce(NEW.method, 'GET');
    NEW.path := coalesce(NEW.path, '/');
    NEW.status := coalesce(NEW.status, 200);
    -- With all arguments in their types: nothing that somebody else puts beside it fits better.
    SELECT * INTO outcome
    FROM @extschema@.ts_ingest(NEW.org_id::text, tailstream.event_json(NEW), NULL::text, 'error'::text);
    IF outcome.accepted OPERATOR(pg_catalog.=) 0 THEN
        RETURN NULL;
    END IF;
    NEW.id := outcome.batch_id OPERATOR(pg_catalog.<<) 16;
    RETURN NEW;
END
$body$;

CREATE TRIGGER log_events_insert INSTEAD OF INSERT ON tailstream.log_events
    FOR EACH ROW EXECUTE FUNCTION tailstream.insert_log_event();
