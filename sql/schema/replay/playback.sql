-- A row of ts_replay_schedule.
CREATE TYPE tailstream.scheduled_event AS (
    id bigint, created_at timestamptz, org_id text, host text, method text, path text, status integer, response_time integer,
    response_size bigint, user_agent text, referrer text, ip_address inet, metadata jsonb,
    cursor text, kind text, gap_from timestamptz, gap_to timestamptz, gap_reason text, play_at interval);

-- ts_replay_page under a name in a schema that is known.
CREATE FUNCTION tailstream.page(
    org text, start_time timestamptz, end_time timestamptz, after text, page_size integer, filter jsonb,
    direction text DEFAULT 'forward')
RETURNS TABLE (id bigint, created_at timestamptz, org_id text, host text, method text, path text, status integer,
               response_time integer, response_size bigint, user_agent text, referrer text, ip_address inet, metadata jsonb,
               cursor text, kind text, gap_from timestamptz, gap_to timestamptz, gap_reason text)
LANGUAGE c VOLATILE SECURITY DEFINER ROWS 1000 SET search_path = pg_catalog, pg_temp SET enable_sort = off SET jit = off
    SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'ts_replay_page_wrapper';

-- Returns the events of a replay one by one, on demand; it reads them in pages.
CREATE FUNCTION tailstream.play(
    org text, start_time timestamptz, end_time timestamptz, speed double precision, max_gap interval, max_rate integer,
    after text, filter jsonb) RETURNS SETOF tailstream.scheduled_event
LANGUAGE c VOLATILE ROWS 1000 AS 'MODULE_PATHNAME', 'play_wrapper';

-- ts_replay_schedule: a replay with the time at which each event is to be shown. The planner inlines the function, and a
-- set-returning function in a select list returns row by row. So rows stream; in FROM, the function would run to its end
-- first.
CREATE FUNCTION ts_replay_schedule(
    org text, start_time timestamptz, end_time timestamptz, speed double precision DEFAULT 8.0, max_gap interval DEFAULT '2 s',
    max_rate integer DEFAULT 5000, after text DEFAULT NULL, filter jsonb DEFAULT NULL)
RETURNS TABLE (id bigint, created_at timestamptz, org_id text, host text, method text, path text, status integer,
               response_time integer, response_size bigint, user_agent text, referrer text, ip_address inet, metadata jsonb,
               cursor text, kind text, gap_from timestamptz, gap_to timestamptz, gap_reason text, play_at interval)
LANGUAGE sql STABLE ROWS 1000 AS $body$
    SELECT (s.event).*
    FROM (SELECT tailstream.play($1, $2, $3, $4, $5, $6, $7, $8) AS event OFFSET 0) s
$body$;

GRANT EXECUTE ON FUNCTION
    ts_replay_schedule(text, timestamptz, timestamptz, double precision, interval, integer, text, jsonb),
    tailstream.page(text, timestamptz, timestamptz, text, integer, jsonb, text),
    tailstream.play(text, timestamptz, timestamptz, double precision, interval, integer, text, jsonb)
TO tailstream_reader;
