-- While a query is planned, this becomes a constant: a time that start_time cannot precede, or -infinity.
CREATE FUNCTION tailstream.planned_start_support(internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'planned_start_support_wrapper';
CREATE FUNCTION tailstream.planned_start(start_time timestamptz) RETURNS timestamptz
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 SUPPORT tailstream.planned_start_support
AS 'MODULE_PATHNAME', 'planned_start_wrapper';

-- ts_replay: an org's events with start_time <= created_at < end_time, never older than its retention.
-- The planner inlines it (so no SECURITY DEFINER and no SET here): a caller's LIMIT, ORDER BY created_at, id
-- and further conditions reach the chunks' indexes, and rows stream.
CREATE FUNCTION ts_replay(org text, start_time timestamptz, end_time timestamptz)
RETURNS SETOF tailstream.log_events
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1000 AS $body$
    SELECT * FROM tailstream.log_events
    WHERE org_id = org AND created_at >= start_time AND created_at >= tailstream.planned_start(start_time)
      AND created_at >= tailstream.replay_floor(org, start_time) AND created_at < end_time
$body$;

-- ts_replay_window: the time range of an org's events that ts_replay can return now.
CREATE FUNCTION ts_replay_window(org text, OUT earliest timestamptz, OUT latest timestamptz, OUT retention interval)
LANGUAGE sql STABLE AS $body$
    SELECT tailstream.retention_floor(tailstream.permitted_org(org)),
           pg_catalog.statement_timestamp(),
           pg_catalog.statement_timestamp() OPERATOR(pg_catalog.-) tailstream.retention_floor(org)
$body$;

-- ts_replay_page: the next events of a replay, each with a token to continue after it. The function is not STABLE, because a
-- snapshot from before its locks could miss an event that a rescue is copying, in its old chunk and in its new one.
-- enable_sort is off: the position is compared twice, so the planner underestimates the rows that are left and would read
-- and sort all of them. jit is off, because a plan that must sort nevertheless has a cost that turns JIT on.
-- plan_cache_mode is set, because some plans must be made anew whatever the session's setting is.
CREATE FUNCTION ts_replay_page(
    org text, start_time timestamptz, end_time timestamptz, after text DEFAULT NULL, page_size integer DEFAULT 1000,
    filter jsonb DEFAULT NULL, direction text DEFAULT 'forward')
RETURNS TABLE (id bigint, created_at timestamptz, org_id text, host text, method text, path text, status integer,
               response_time integer, response_size bigint, user_agent text, referrer text, ip_address inet, metadata jsonb,
               cursor text, kind text, gap_from timestamptz, gap_to timestamptz, gap_reason text)
LANGUAGE c VOLATILE SECURITY DEFINER ROWS 1000 SET search_path = pg_catalog, pg_temp SET enable_sort = off SET jit = off
    SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'ts_replay_page_wrapper';

GRANT EXECUTE ON FUNCTION
    ts_replay(text, timestamptz, timestamptz),
    ts_replay_window(text),
    ts_replay_page(text, timestamptz, timestamptz, text, integer, jsonb, text)
TO tailstream_reader;
