-- Requests a resync of an org's stream, or its removal if the org was erased.
CREATE FUNCTION tailstream.request_rebuild(org text, reason text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    -- Each request is a row of its own, so that a transaction that stays open blocks neither the mirror nor other
    -- requests.
    WITH earlier AS (
        DELETE FROM tailstream.mirror_rebuilds r
        USING (SELECT l.request FROM tailstream.mirror_rebuilds l WHERE l.org_id = org FOR UPDATE SKIP LOCKED) l
        WHERE r.org_id = org AND r.request = l.request
        RETURNING r.reason
    )
    INSERT INTO tailstream.mirror_rebuilds (org_id, reason)
    -- The stream of an erased org must be removed, whatever is requested later.
    SELECT org, CASE WHEN EXISTS (SELECT FROM earlier e WHERE e.reason = 'erased') THEN 'erased' ELSE request_rebuild.reason END
$body$;

-- ts_set_mirror: switches an org's Redis Stream on or off, from the next commit on. When it is switched on again, the
-- stream is written from nothing with new events. With "backfill", it is written again with the events committed during
-- that interval.
CREATE FUNCTION ts_set_mirror(org text, mirrored boolean, backfill interval DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $body$
DECLARE
    changed boolean;
BEGIN
    PERFORM tailstream.require_unbound();
    PERFORM tailstream.permitted_org(org);
    IF mirrored IS NULL THEN
        RAISE EXCEPTION 'argument "mirrored" is NULL' USING ERRCODE = 'null_value_not_allowed';
    ELSIF backfill IS NOT NULL AND NOT mirrored THEN
        RAISE EXCEPTION 'cannot backfill a stream that is switched off'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave out "backfill", or give true for "mirrored".';
    ELSIF backfill < interval '0' OR NOT tailstream.is_length(backfill) THEN
        RAISE EXCEPTION 'backfill % is not usable', backfill
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'The backfill begins this long before now: from 0 to 36500 days.',
                  HINT = 'A stream never goes back further than stream_age and stream_entries of the org''s tier: give stream_age for all of it.';
    END IF;
    INSERT INTO tailstream.orgs AS o (org_id, tier, mirrored)
    VALUES (org, tailstream.tier_id('standard'), ts_set_mirror.mirrored)
    ON CONFLICT (org_id) DO UPDATE SET
        mirrored = excluded.mirrored,
        mirror_snapshot = CASE WHEN excluded.mirrored AND NOT o.mirrored THEN pg_current_snapshot() ELSE o.mirror_snapshot END,
        mirror_from = CASE WHEN excluded.mirrored AND NOT o.mirrored THEN NULL ELSE o.mirror_from END
    WHERE o.mirrored <> excluded.mirrored;
    changed := FOUND;
    IF backfill IS NOT NULL THEN
        UPDATE tailstream.orgs o SET mirror_snapshot = NULL, mirror_from = least(clock_timestamp() - backfill, clock_timestamp())
        WHERE o.org_id = org;
    END IF;
    -- Until this commits, the mirror treats the org as switched off, and skips even batches that the snapshot does not
    -- show. The resync writes those.
    IF backfill IS NOT NULL OR mirrored AND changed THEN
        PERFORM tailstream.request_rebuild(org, 'backfill');
    END IF;
END
$body$;

-- The state of the mirror of this database, from shared memory.
CREATE FUNCTION tailstream.mirror_progress()
RETURNS TABLE (state text, connected_since timestamptz, next_seq bigint, next_offset integer, last_error text,
               last_error_at timestamptz, entries_sent bigint, entries_resent bigint, entries_expired bigint, retries bigint)
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'mirror_progress_wrapper';

-- Fails unless tailstream is preloaded and this database is listed in tailstream.databases.
CREATE FUNCTION tailstream.require_workers() RETURNS void
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'require_workers_wrapper';

-- ts_mirror_status: one row about the mirror of this database. The backlog counts committed batches that the mirror has
-- neither sent nor skipped yet.
CREATE FUNCTION ts_mirror_status(
    OUT database text, OUT state text, OUT connected_since timestamptz, OUT backlog_batches bigint, OUT backlog_events bigint,
    OUT oldest_unmirrored interval, OUT orgs_to_rebuild bigint, OUT last_error text, OUT last_error_at timestamptz,
    OUT entries_sent bigint, OUT entries_resent bigint, OUT entries_expired bigint, OUT retries bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $body$
DECLARE
    progress record;
    backlog  record;
    oldest   timestamptz;
BEGIN
    PERFORM tailstream.require_unbound();
    PERFORM tailstream.require_workers();
    SELECT * INTO progress FROM tailstream.mirror_progress();
    database := current_database();
    state := progress.state;
    connected_since := progress.connected_since;
    last_error := progress.last_error;
    last_error_at := progress.last_error_at;
    entries_sent := progress.entries_sent;
    entries_resent := progress.entries_resent;
    entries_expired := progress.entries_expired;
    retries := progress.retries;
    orgs_to_rebuild := (SELECT count(DISTINCT r.org_id) FROM tailstream.mirror_rebuilds r);

    IF progress.next_seq IS NULL AND progress.state <> 'off' THEN
        -- The mirror has not read the checkpoint in Redis yet. In the worst case, Redis has no events of the present.
        oldest := clock_timestamp() - (SELECT max(t.stream_age) FROM tailstream.tiers t);
        progress.next_seq := (SELECT min(p.seq) FROM tailstream.positions p WHERE p.placed_at > oldest);
    END IF;
    -- One query, so that a batch that gets its position at this moment is counted exactly once.
    SELECT unplaced.batches + coalesce(head.seq - behind.seq + 1, 0) AS batches,
           unplaced.events + coalesce(head.events - behind.events, 0) AS events, least(behind.placed_at, unplaced.oldest) AS oldest
    INTO backlog
    FROM (SELECT count(*) AS batches, coalesce(sum(b.event_count), 0) AS events, min(b.received_at) AS oldest
          FROM tailstream.unplaced_batches() b) unplaced
    LEFT JOIN LATERAL (SELECT p.seq, p.events_before + p.event_count AS events FROM tailstream.last_position() p) head ON true
    LEFT JOIN LATERAL (SELECT p.seq, p.placed_at,
                              p.events_before + CASE WHEN p.seq = progress.next_seq THEN progress.next_offset ELSE 0 END AS events
                       FROM tailstream.first_position(progress.next_seq) p WHERE head.seq >= progress.next_seq) behind ON true;
    backlog_batches := backlog.batches;
    backlog_events := backlog.events;
    oldest_unmirrored := clock_timestamp() - backlog.oldest;
END
$body$;

-- ts_mirror_status(org): one row about the stream of an org.
CREATE FUNCTION ts_mirror_status(
    org text, OUT org_id text, OUT stream_key text, OUT mirrored boolean, OUT state text, OUT backlog_batches bigint,
    OUT backlog_events bigint, OUT oldest_unmirrored interval, OUT stream_entries bigint, OUT stream_age interval)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $body$
DECLARE
    progress record;
    resync   record;
    behind   record;
    oldest   timestamptz;
BEGIN
    org_id := tailstream.permitted_org(org);
    PERFORM tailstream.require_workers();
    stream_key := tailstream.stream_key(org);
    SELECT o.mirrored, t.stream_entries, t.stream_age INTO mirrored, stream_entries, stream_age
    FROM tailstream.orgs o JOIN tailstream.tiers t ON t.id = o.tier WHERE o.org_id = org;
    SELECT * INTO progress FROM tailstream.mirror_progress();
    SELECT r.reason INTO resync FROM tailstream.mirror_rebuilds r WHERE r.org_id = org ORDER BY r.request DESC LIMIT 1;
    state := CASE WHEN NOT mirrored THEN 'off' WHEN resync.reason IS NOT NULL THEN 'rebuilding: ' || resync.reason
                  ELSE progress.state END;
    oldest := clock_timestamp() - ts_mirror_status.stream_age;
    IF resync.reason IS NULL AND progress.next_seq IS NOT NULL THEN
        -- Batches that were not sent have a position no earlier than the last batch that was sent.
        oldest := greatest(oldest, (SELECT p.placed_at FROM tailstream.last_position(progress.next_seq) p) - interval '1 millisecond');
    END IF;
    SELECT count(*) AS batches, coalesce(sum(p.event_count), 0) AS events, min(p.placed_at) AS oldest INTO behind
    FROM tailstream.positions p, tailstream.orgs o
    WHERE p.org_id = org AND o.org_id = org AND o.mirrored
      AND (p.seq >= coalesce(progress.next_seq, 0) OR resync.reason IS NOT NULL)
      AND p.placed_at > oldest
      AND p.placed_at >= coalesce(o.mirror_from, '-infinity')
      AND (o.mirror_snapshot IS NULL OR NOT pg_visible_in_snapshot(p.xid, o.mirror_snapshot));
    backlog_batches := behind.batches;
    backlog_events := behind.events;
    oldest_unmirrored := clock_timestamp() - behind.oldest;
END
$body$;

-- The key of an org's stream, according to tailstream.stream_key.
CREATE FUNCTION tailstream.stream_key(org text) RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'stream_key_wrapper';

-- ts_mirror_verify: compares an org's stream with the table, within the limits of the stream and up to the mirror's
-- position. One row for each finding; `matching` is always present.
CREATE FUNCTION ts_mirror_verify(org text)
RETURNS TABLE (finding text, entries bigint, first_stream_id text, last_stream_id text, detail text)
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'ts_mirror_verify_wrapper';

GRANT EXECUTE ON FUNCTION
    ts_set_mirror(text, boolean, interval),
    ts_mirror_status(),
    ts_mirror_status(text),
    ts_mirror_verify(text)
TO tailstream_admin;
