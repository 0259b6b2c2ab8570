-- ts_replay_live: opens a replay of the history that continues with the org's Redis Stream.
CREATE FUNCTION ts_replay_live(
    org text, start_time timestamptz DEFAULT NULL, resume_after text DEFAULT NULL,
    OUT cursor text, OUT stream_key text, OUT stream_id text)
RETURNS SETOF record
LANGUAGE c VOLATILE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ts_replay_live_wrapper';

-- ts_cursor_create: stores a position in an org's events under a name.
CREATE FUNCTION ts_cursor_create(
    name text, org text, start text DEFAULT 'beginning', filter jsonb DEFAULT NULL, order_by text DEFAULT 'arrival') RETURNS void
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'ts_cursor_create_wrapper';

CREATE FUNCTION ts_cursor_create(
    name text, org text, start timestamptz, filter jsonb DEFAULT NULL, order_by text DEFAULT 'arrival') RETURNS void
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'ts_cursor_create_at_wrapper';

-- ts_cursor_fetch: returns the next events after the cursor's position.
CREATE FUNCTION ts_cursor_fetch(
    name text, n integer DEFAULT 1000, timeout interval DEFAULT NULL, auto_ack boolean DEFAULT false,
    nowait boolean DEFAULT false, org text DEFAULT NULL)
RETURNS TABLE (id bigint, created_at timestamptz, org_id text, host text, method text, path text, status integer,
               response_time integer, response_size bigint, user_agent text, referrer text, ip_address inet, metadata jsonb,
               cursor text, kind text, gap_from timestamptz, gap_to timestamptz, gap_reason text)
LANGUAGE c VOLATILE SECURITY DEFINER ROWS 1000 SET search_path = pg_catalog, pg_temp SET enable_sort = off SET jit = off
    SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'ts_cursor_fetch_wrapper';

-- ts_cursor_ack: moves the cursor past a row that was fetched with it.
CREATE FUNCTION ts_cursor_ack(name text, token text, org text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'ts_cursor_ack_wrapper';

-- ts_cursor_seek: moves the cursor to any position.
CREATE FUNCTION ts_cursor_seek(name text, start text, org text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'ts_cursor_seek_wrapper';

CREATE FUNCTION ts_cursor_seek(name text, start timestamptz, org text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'ts_cursor_seek_at_wrapper';

-- ts_cursor_drop: removes a cursor.
CREATE FUNCTION ts_cursor_drop(name text, org text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ts_cursor_drop_wrapper';

-- The lag of a cursor: how many events, before filtering, it can still get, and since when the first of them has been
-- waiting. The function runs with the rights of the view's owner.
CREATE FUNCTION tailstream.cursor_lag(
    org_id text, by_arrival boolean, place_at timestamptz, place_id bigint, place_offset integer,
    OUT events bigint, OUT since timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $body$
DECLARE
    unplaced record;
BEGIN
    PERFORM tailstream.permitted_org(org_id);
    IF NOT by_arrival THEN
        SELECT count(*), min(e.created_at) INTO events, since FROM tailstream.events e
        WHERE e.org_id = cursor_lag.org_id AND e.created_at >= place_at
          AND e.created_at >= tailstream.retention_floor(cursor_lag.org_id) AND (e.created_at, e.id) > (place_at, place_id);
        RETURN;
    END IF;
    SELECT coalesce(sum(p.event_count - CASE WHEN p.seq = place_id THEN place_offset ELSE 0 END), 0), min(p.placed_at)
    INTO events, since FROM tailstream.positions p
    WHERE p.org_id = cursor_lag.org_id AND p.seq >= place_id AND p.placed_at >= place_at
      AND p.last_event_at >= tailstream.retention_floor(cursor_lag.org_id);
    SELECT coalesce(sum(b.event_count), 0) AS events, min(b.received_at) AS since
    INTO unplaced FROM tailstream.unplaced_batches(cursor_lag.org_id) b;
    events := events + unplaced.events;
    since := least(since, unplaced.since);
END
$body$;

-- The durable cursors that this session may use.
CREATE FUNCTION tailstream.create_cursors_view() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF to_regclass('tailstream.durable_cursors') IS NULL THEN
        CREATE OR REPLACE VIEW tailstream.cursors WITH (security_barrier) AS
        SELECT NULL::text COLLATE "C" AS name, s.org_id, NULL::text AS order_by, NULL::jsonb AS filter, s.created_at AS position_at,
               s.id AS position_id, s.id AS lag_events, NULL::interval AS lag, s.created_at, s.created_at AS last_active,
               s.created_at AS expires_at
        FROM (SELECT m.org_id COLLATE "C" AS org_id, m.created_at, m.id FROM tailstream.storage_missing() m) s;
        RETURN;
    END IF;
    CREATE OR REPLACE VIEW tailstream.cursors WITH (security_barrier) AS
    SELECT c.name, c.org_id, CASE WHEN c.by_arrival THEN 'arrival' ELSE 'event_time' END AS order_by, c.filter,
           c.place_at AS position_at, nullif(c.place_id, 9223372036854775807) AS position_id, l.events AS lag_events,
           coalesce(clock_timestamp() - l.since, interval '0') AS lag, c.created_at, c.last_active,
           -- Computed in seconds, so that a day always has 24 hours.
           c.last_active + nullif(extract(epoch FROM current_setting('tailstream.cursor_ttl')::interval), 0) * interval '1 second'
               AS expires_at
    FROM tailstream.durable_cursors c
    LEFT JOIN LATERAL tailstream.cursor_lag(c.org_id, c.by_arrival, c.place_at, c.place_id, c.place_offset) l ON true
    WHERE tailstream.bound_org() IS NULL OR c.org_id = tailstream.bound_org();
END
$body$;

SELECT tailstream.create_cursors_view();

-- Locks the cursor until the end of the transaction; false if another transaction uses it.
CREATE FUNCTION tailstream.try_lock_cursor(cursor_id bigint) RETURNS boolean
LANGUAGE c VOLATILE STRICT COST 10000 AS 'MODULE_PATHNAME', 'try_lock_cursor_wrapper';

-- Drops cursors that were not used for longer than tailstream.cursor_ttl, except those in use now. One call drops at most
-- 500, because each needs a lock until the purge commits and the server's lock table is limited.
CREATE FUNCTION tailstream.drop_expired_cursors() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $body$
DECLARE
    kept    interval := current_setting('tailstream.cursor_ttl')::interval;
    expired bigint;
BEGIN
    IF kept = interval '0' THEN
        RETURN;
    END IF;
    FOR expired IN SELECT c.cursor_id FROM tailstream.durable_cursors c
                   WHERE c.last_active < clock_timestamp() - kept ORDER BY c.last_active LIMIT 500
    LOOP
        DELETE FROM tailstream.durable_cursors c
        WHERE c.cursor_id = expired AND tailstream.try_lock_cursor(expired) AND c.last_active < clock_timestamp() - kept;
    END LOOP;
EXCEPTION WHEN OTHERS THEN
    -- An error here must not prevent the purge from dropping chunks.
    RAISE WARNING 'expired cursors are left for the next purge: %', SQLERRM;
END
$body$;

GRANT EXECUTE ON FUNCTION
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
GRANT SELECT ON tailstream.cursors TO tailstream_reader;
