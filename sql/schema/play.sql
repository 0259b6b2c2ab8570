-- Whether an event is wanted.
CREATE FUNCTION tailstream.is_wanted(filter jsonb, host text, method text, path text, status integer, metadata jsonb) RETURNS boolean
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'is_wanted_wrapper';

-- Where a schedule begins: the earliest event time to read, and time and id of the event to go on behind.
CREATE FUNCTION tailstream.schedule_start(org text, start_time timestamptz, after text) RETURNS timestamptz
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'schedule_start_wrapper';

CREATE FUNCTION tailstream.schedule_time(org text, after text) RETURNS timestamptz
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'schedule_time_wrapper';

CREATE FUNCTION tailstream.schedule_id(org text, after text) RETURNS bigint
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'schedule_id_wrapper';

-- Checks the arguments of ts_replay_schedule; the gap before the first event, if there is one.
CREATE FUNCTION tailstream.schedule_gap(
    org text, start_time timestamptz, end_time timestamptz, after text, speed double precision, max_gap interval, max_rate integer)
RETURNS TABLE (id bigint, created_at timestamptz, org_id text, host text, method text, path text, status integer,
               response_time integer, response_size bigint, user_agent text, referrer text, ip_address inet, metadata jsonb,
               cursor text, kind text, gap_from timestamptz, gap_to timestamptz, gap_reason text)
LANGUAGE c STABLE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'schedule_gap_wrapper';

CREATE TYPE tailstream.played AS (play_at interval, cursor text);

CREATE FUNCTION tailstream.play_next(
    state internal, created_at timestamptz, id bigint, org text, after text, speed double precision, max_gap interval, max_rate integer)
RETURNS internal
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'play_next_wrapper';

CREATE FUNCTION tailstream.play_result(state internal) RETURNS tailstream.played
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'play_result_wrapper';

-- For each row of a window that grows by one row at a time: when to show it, and the token to go on behind it.
CREATE AGGREGATE tailstream.play(
    created_at timestamptz, id bigint, org text, after text, speed double precision, max_gap interval, max_rate integer) (
    SFUNC = tailstream.play_next, STYPE = internal, FINALFUNC = tailstream.play_result, FINALFUNC_MODIFY = READ_ONLY);

-- ts_replay_schedule: a replay with the moment at which each event is to be shown. The planner inlines it, as ts_replay.
CREATE FUNCTION ts_replay_schedule(
    org text, start_time timestamptz, end_time timestamptz, speed double precision DEFAULT 8.0, max_gap interval DEFAULT '2 s',
    max_rate integer DEFAULT 5000, after text DEFAULT NULL, filter jsonb DEFAULT NULL)
RETURNS TABLE (id bigint, created_at timestamptz, org_id text, host text, method text, path text, status integer,
               response_time integer, response_size bigint, user_agent text, referrer text, ip_address inet, metadata jsonb,
               cursor text, kind text, gap_from timestamptz, gap_to timestamptz, gap_reason text, play_at interval)
LANGUAGE sql STABLE ROWS 1000 AS $body$
    SELECT g.*, NULL::interval
    FROM tailstream.schedule_gap($1, $2, $3, $7, $4, $5, $6) g
    UNION ALL
    SELECT e.id, e.created_at, e.org_id, e.host, e.method, e.path, e.status, e.response_time, e.response_size, e.user_agent,
           e.referrer, e.ip_address, e.metadata, (e.played).cursor, 'event', NULL, NULL, NULL, (e.played).play_at
    FROM (SELECT r.*, tailstream.play(r.created_at, r.id, $1, $7, $4, $5, $6)
                      OVER (ORDER BY r.created_at, r.id ROWS UNBOUNDED PRECEDING) AS played
          FROM tailstream.log_events r
          WHERE r.org_id = $1 AND r.created_at >= tailstream.schedule_start($1, $2, $7)
            AND r.created_at < coalesce($3, 'infinity')
            AND (r.created_at, r.id) > (tailstream.schedule_time($1, $7), tailstream.schedule_id($1, $7))
            AND ($8 IS NULL OR tailstream.is_wanted($8, r.host, r.method, r.path, r.status, r.metadata))) e
$body$;
