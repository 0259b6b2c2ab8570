-- The chunks whose events are all older than their tier's retention. A dropped tier counts as the one with the longest retention.
-- Chunks of an unknown tier, or of a tier with a shorter retention than was set, are kept, because their retention is unknown.
-- The 10 seconds let an ingest call finish that began before its events expired.
-- A day of retention has 24 hours, also when clocks change: hence UTC, here and below.
CREATE FUNCTION tailstream.expired_chunks()
RETURNS TABLE (chunk regclass, tier smallint, tier_name text, retention interval, range_start timestamptz, range_end timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $body$
    SELECT c.chunk, c.tier, coalesce(t.name, '(tier ' || c.tier || ')'), k.retention, c.range_start, c.range_end
    FROM tailstream.chunks('tailstream.events', 'created_at') c
    LEFT JOIN tailstream.tiers t ON t.id = c.tier
    LEFT JOIN tailstream.dropped_tiers d ON d.id = c.tier
    LEFT JOIN tailstream.tier_retentions r ON r.tier = c.tier AND r.retention > t.retention
    CROSS JOIN LATERAL (SELECT CASE WHEN r.tier IS NOT NULL THEN NULL
                                    WHEN t.id IS NOT NULL THEN t.retention
                                    WHEN d.id IS NOT NULL THEN (SELECT max(retention) FROM tailstream.tiers) END) AS k(retention)
    WHERE c.range_end <= clock_timestamp() - k.retention - interval '10 seconds'
$body$;

-- Rescues and drops one chunk, or does nothing if it is in use for longer than `lock_timeout`. While rows are copied, only
-- writers are blocked; readers wait only for the drop itself.
CREATE FUNCTION tailstream.purge_chunk(
    chunk regclass, tier smallint, retention interval, lock_timeout interval,
    OUT dropped boolean, OUT events bigint, OUT rescued bigint, OUT bytes bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $body$
BEGIN
    PERFORM tailstream.set_lock_timeout(lock_timeout);
    dropped := false; events := 0; rescued := 0; bytes := 0;
    IF tier IS NOT NULL THEN
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', chunk);
        -- The tier may have been given a longer retention during the wait.
        IF EXISTS (SELECT FROM tailstream.tiers t WHERE t.id = purge_chunk.tier AND t.retention > purge_chunk.retention) THEN
            RETURN;
        END IF;
        rescued := tailstream.rescue_events(chunk, tier, retention);
    END IF;
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', chunk);
    -- A batch without a position may have been committed into it during the wait.
    IF tier IS NULL AND NOT tailstream.is_done_with(chunk) THEN
        RETURN;
    END IF;
    SELECT greatest(pg_stat_get_live_tuples(c.oid), c.reltuples::bigint, rescued) - rescued, pg_total_relation_size(c.oid)
    INTO events, bytes FROM pg_class c WHERE c.oid = chunk;
    PERFORM _timescaledb_functions.drop_chunk(chunk);
    dropped := true;
EXCEPTION
    WHEN lock_not_available OR deadlock_detected OR undefined_table THEN
        dropped := false; events := 0; rescued := 0; bytes := 0;
    WHEN OTHERS THEN
        -- One broken chunk must not stop the purge of the others.
        RAISE WARNING 'chunk % was not purged: %', chunk, SQLERRM USING ERRCODE = SQLSTATE;
        dropped := false; events := 0; rescued := 0; bytes := 0;
END
$body$;

-- Whether every batch in this chunk of the ledger has its position; `seen` is the snapshot of the last poll.
CREATE FUNCTION tailstream.is_sequenced(chunk regclass, seen pg_snapshot) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    complete boolean := false;
BEGIN
    IF seen IS NOT NULL THEN
        EXECUTE format('SELECT NOT EXISTS (SELECT FROM %1$s b WHERE b.xid >= pg_snapshot_xmax($1) AND b.event_count > 0)
                           AND NOT EXISTS (SELECT FROM %1$s b WHERE b.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1))) AND b.event_count > 0)', chunk)
        INTO complete USING seen;
    END IF;
    RETURN complete;
END
$body$;

-- Whether an expired chunk may be dropped. A chunk of the ledger may be dropped if all of its batches have positions, or if its
-- events are older than any retention; other chunks always.
CREATE FUNCTION tailstream.is_done_with(chunk regclass) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $body$
    SELECT NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = chunk AND i.inhparent = 'tailstream.batches'::regclass)
        OR (SELECT r.range_end FROM tailstream.chunk_range(chunk, 'received_at') r)
           <= clock_timestamp() - (SELECT max(t.retention) FROM tailstream.tiers t)
        OR tailstream.is_sequenced(chunk, (SELECT l.snapshot FROM tailstream.last_poll() l))
$body$;

-- Expired chunks of the other tables. Chunks of the ledger expire when neither the idempotency window nor the sequencer nor a
-- resync of streams needs them; without a sequencer, when the events expire. Positions are kept for two days longer than the
-- longest retention, because readers in event-time order detect gaps by them, and an event may be a day ahead of its
-- position; the chunk of the last position is always kept. Rejected events have a retention of their own.
CREATE FUNCTION tailstream.expired_bookkeeping() RETURNS TABLE (hypertable regclass, chunk regclass, range_end timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $body$
DECLARE
    kept      interval := (SELECT max(t.retention) FROM tailstream.tiers t);
    ledger    interval := (SELECT greatest(max(t.stream_age), current_setting('tailstream.idempotency_window')::interval)
                           FROM tailstream.tiers t);
    seen      pg_snapshot := (SELECT l.snapshot FROM tailstream.last_poll() l);
    placed    timestamptz := (SELECT p.placed_at FROM tailstream.last_position() p);
BEGIN
    RETURN QUERY
    SELECT 'tailstream.batches'::regclass, c.chunk, c.range_end
    FROM tailstream.chunks_before('tailstream.batches', 'received_at', clock_timestamp() - ledger) c
    WHERE c.range_end <= clock_timestamp() - kept OR tailstream.is_sequenced(c.chunk, seen);
    RETURN QUERY
    SELECT 'tailstream.positions'::regclass, c.chunk, c.range_end
    FROM tailstream.chunks_before('tailstream.positions', 'placed_at',
                                  clock_timestamp() - greatest(kept, ledger) - interval '48 hours') c
    WHERE c.range_end <= placed;
    RETURN QUERY
    SELECT 'tailstream.rejected_events'::regclass, c.chunk, c.range_end
    FROM tailstream.chunks_before('tailstream.rejected_events', 'received_at',
                                  clock_timestamp() - current_setting('tailstream.rejected_retention')::interval) c;
END
$body$;

CREATE FUNCTION tailstream.add_to_tally(
    tally jsonb, tier_name text, dropped boolean, events bigint, rescued bigint, bytes bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT tally || jsonb_build_object(tier_name, jsonb_build_object(
        'chunks', coalesce((tally -> tier_name ->> 'chunks')::integer, 0) + dropped::integer,
        'events', coalesce((tally -> tier_name ->> 'events')::bigint, 0) + events,
        'rescued', coalesce((tally -> tier_name ->> 'rescued')::bigint, 0) + rescued,
        'bytes', coalesce((tally -> tier_name ->> 'bytes')::bigint, 0) + bytes))
$body$;

-- One row for each tier, for dropped tiers whose chunks were purged, and for unknown tiers, whose chunks are kept.
CREATE FUNCTION tailstream.retention_report(tally jsonb)
RETURNS TABLE (tier text, chunks_dropped integer, events_dropped bigint, events_rescued bigint,
               bytes_freed bigint, oldest_kept timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    WITH kept AS (
        SELECT c.tier, min(c.range_start) AS oldest
        FROM tailstream.chunks('tailstream.events', 'created_at') c
        WHERE NOT EXISTS (SELECT FROM tailstream.expired_chunks() x WHERE x.chunk = c.chunk)
        GROUP BY c.tier
    ), named AS (
        SELECT t.name, k.oldest FROM tailstream.tiers t LEFT JOIN kept k ON k.tier = t.id
        UNION ALL
        SELECT gone.name, NULL FROM jsonb_object_keys(tally) AS gone(name)
        WHERE NOT EXISTS (SELECT FROM tailstream.tiers t WHERE t.name = gone.name)
        UNION ALL
        SELECT format('(unknown tier %s)', k.tier), k.oldest FROM kept k
        WHERE NOT EXISTS (SELECT FROM tailstream.tiers t WHERE t.id = k.tier)
          AND NOT EXISTS (SELECT FROM tailstream.dropped_tiers d WHERE d.id = k.tier)
    )
    SELECT n.name, coalesce((tally -> n.name ->> 'chunks')::integer, 0), coalesce((tally -> n.name ->> 'events')::bigint, 0),
           coalesce((tally -> n.name ->> 'rescued')::bigint, 0), coalesce((tally -> n.name ->> 'bytes')::bigint, 0), n.oldest
    FROM named n ORDER BY n.name
$body$;

-- Whether this transaction is the only one that purges, until it ends.
CREATE FUNCTION tailstream.try_lock_purge() RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'try_lock_purge_wrapper';

-- Whether another session waits for a lock that this one holds.
CREATE FUNCTION tailstream.is_blocking_others() RETURNS boolean
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT EXISTS (SELECT FROM pg_locks l WHERE NOT l.granted AND pg_backend_pid() = ANY (pg_blocking_pids(l.pid)))
$body$;

-- ts_apply_retention: drops every expired chunk; returns one row per tier. Events of orgs that are on a tier with a longer
-- retention by now are first copied into that tier. If it has no chunk for them yet, this call creates the chunk and the next one
-- copies. A chunk that is in use is left for the next call, too.
CREATE FUNCTION ts_apply_retention()
RETURNS TABLE (tier text, chunks_dropped integer, events_dropped bigint, events_rescued bigint,
               bytes_freed bigint, oldest_kept timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    victim   record;
    outcome  record;
    tally    jsonb := '{}';
    lock_timeout interval;
    give_up  timestamptz;
    made     boolean;
    created  boolean := false;
    held_up  regclass[] := '{}';
    unknown  text;
BEGIN
    -- The first call of a C function loads the library, and with it the settings.
    PERFORM tailstream.require_unbound();
    lock_timeout := current_setting('tailstream.purge_lock_timeout')::interval;
    PERFORM tailstream.require_read_committed();
    IF NOT tailstream.try_lock_purge() THEN
        RAISE NOTICE 'another purge is running';
        RETURN;
    END IF;
    PERFORM pg_stat_clear_snapshot();
    unknown := concat_ws('; ', tailstream.unknown_tiers(), tailstream.shortened_tiers());
    IF unknown <> '' THEN
        RAISE WARNING '%', unknown
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'ts_health() says what to do.';
        -- Their events may have a longer retention than any known tier, so the ledger and the positions are kept as well.
        held_up := ARRAY['tailstream.batches', 'tailstream.positions']::regclass[];
    END IF;
    -- A dropped chunk stays locked until the commit, so after the first drop other sessions may be waiting for this one, even
    -- while it waits for another chunk. After the first drop, all waits together are therefore limited to one lock timeout, and
    -- then the purge ends as soon as another session waits for it. Slow work comes before any drop: first the rescue of one chunk.
    -- Chunks whose rescue needs no new chunk come first, so that a call completes one if there is any. After that, the call creates
    -- the missing chunk of the oldest other one, which the next call can then rescue.
    FOR victim IN
        WITH chunks AS MATERIALIZED (
            SELECT c.tier, c.range_start, c.range_end FROM tailstream.chunks('tailstream.events', 'created_at') c
        )
        SELECT x.*, r.rescue, r.ready
        FROM tailstream.expired_chunks() x
        CROSS JOIN LATERAL (
            SELECT count(*) > 0 AS rescue,
                   bool_and(EXISTS (SELECT FROM chunks c WHERE c.tier = t.new_tier
                                    AND c.range_start <= x.range_start AND x.range_start < c.range_end)) AS ready
            FROM (SELECT DISTINCT o.new_tier FROM tailstream.orgs_to_rescue(x.chunk, x.tier, x.retention) o) t) r
        ORDER BY r.rescue DESC, r.ready DESC, x.range_end, x.tier
    LOOP
        IF victim.rescue THEN
            CONTINUE WHEN CASE WHEN victim.ready THEN give_up IS NOT NULL ELSE created END;
            made := tailstream.make_rescue_chunks(victim.chunk, victim.tier, victim.retention, victim.range_start,
                                                  coalesce(give_up - clock_timestamp(), lock_timeout));
            IF made THEN
                -- Creating a chunk blocks other sessions from creating one until the commit.
                give_up := coalesce(give_up, clock_timestamp() + lock_timeout);
                created := true;
            END IF;
            CONTINUE WHEN made IS NOT FALSE OR give_up IS NOT NULL;
        END IF;
        EXIT WHEN give_up < clock_timestamp() AND tailstream.is_blocking_others();
        outcome := tailstream.purge_chunk(
            victim.chunk, victim.tier, victim.retention, coalesce(give_up - clock_timestamp(), lock_timeout));
        give_up := CASE WHEN outcome.dropped THEN coalesce(give_up, clock_timestamp() + lock_timeout) ELSE give_up END;
        tally := tailstream.add_to_tally(tally, victim.tier_name, outcome.dropped, outcome.events, outcome.rescued, outcome.bytes);
        IF outcome.dropped THEN
            INSERT INTO tailstream.purges AS g (tier, until) VALUES (victim.tier, victim.range_end)
            ON CONFLICT ON CONSTRAINT purges_pkey DO UPDATE SET until = greatest(g.until, excluded.until);
        END IF;
    END LOOP;
    -- Oldest first, and each table only up to the first chunk in use: readers detect gaps by the oldest position.
    FOR victim IN SELECT * FROM tailstream.expired_bookkeeping() l ORDER BY l.range_end LOOP
        EXIT WHEN give_up < clock_timestamp() AND tailstream.is_blocking_others();
        CONTINUE WHEN victim.hypertable = ANY (held_up);
        outcome := tailstream.purge_chunk(victim.chunk, NULL, NULL, coalesce(give_up - clock_timestamp(), lock_timeout));
        IF NOT outcome.dropped THEN
            held_up := held_up || victim.hypertable;
        END IF;
        give_up := coalesce(give_up, clock_timestamp() + lock_timeout);
    END LOOP;
    PERFORM tailstream.drop_expired_cursors();
    PERFORM tailstream.count('tailstream_purge_runs_total', 1),
            tailstream.count('tailstream_purge_chunks_dropped_total', coalesce(sum((t.value ->> 'chunks')::bigint), 0)::bigint),
            tailstream.count('tailstream_purge_events_dropped_total', coalesce(sum((t.value ->> 'events')::bigint), 0)::bigint),
            tailstream.count('tailstream_purge_events_rescued_total', coalesce(sum((t.value ->> 'rescued')::bigint), 0)::bigint)
    FROM jsonb_each(tally) t;
    RETURN QUERY SELECT * FROM tailstream.retention_report(tally);
END
$body$;

-- ts_retention_preview: what ts_apply_retention() would do now. The number of rescued events is exact, that of dropped ones is
-- estimated from statistics.
CREATE FUNCTION ts_retention_preview()
RETURNS TABLE (tier text, chunks_dropped integer, events_dropped bigint, events_rescued bigint,
               bytes_freed bigint, oldest_kept timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    victim  record;
    saved   record;
    rescued bigint;
    tally   jsonb := '{}';
BEGIN
    PERFORM tailstream.require_unbound();
    FOR victim IN
        SELECT x.*, greatest(pg_stat_get_live_tuples(c.oid), c.reltuples::bigint, 0) AS events, pg_total_relation_size(c.oid) AS bytes
        FROM tailstream.expired_chunks() x JOIN pg_class c ON c.oid = x.chunk
    LOOP
        rescued := 0;
        FOR saved IN SELECT * FROM tailstream.orgs_to_rescue(victim.chunk, victim.tier, victim.retention) LOOP
            EXECUTE format('SELECT $3 + count(*) FROM %s e WHERE e.org_id = $1 AND e.created_at >= $2', victim.chunk)
            INTO rescued USING saved.org_id, saved.keep_from, rescued;
        END LOOP;
        tally := tailstream.add_to_tally(tally, victim.tier_name, true, greatest(victim.events - rescued, 0), rescued, victim.bytes);
    END LOOP;
    RETURN QUERY SELECT * FROM tailstream.retention_report(tally);
END
$body$;

GRANT EXECUTE ON FUNCTION ts_apply_retention(), ts_retention_preview() TO tailstream_admin;
