-- The sequencer assigns each batch its position in one total order after its commit. New in a poll are the rows that the
-- snapshot of the last poll had not seen: xid >= xmax, or xid in its list of running transactions.

-- The last position before a number, the first position from a number on, and the last position after a number with which
-- the sequencer stored its snapshot: one row or none. Each function opens only the chunks near the one that it finds.
CREATE FUNCTION tailstream.last_position(before bigint DEFAULT 9223372036854775807)
RETURNS TABLE (seq bigint, placed_at timestamptz, events_before bigint, event_count bigint, snapshot text, partial text, unpolled_since timestamptz)
LANGUAGE c STABLE STRICT ROWS 1 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'last_position_wrapper';

CREATE FUNCTION tailstream.first_position(since bigint)
RETURNS TABLE (seq bigint, placed_at timestamptz, events_before bigint, event_count bigint, snapshot text, partial text, unpolled_since timestamptz)
LANGUAGE c STABLE STRICT ROWS 1 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'first_position_wrapper';

CREATE FUNCTION tailstream.last_poll_after(seq bigint)
RETURNS TABLE (seq bigint, placed_at timestamptz, events_before bigint, event_count bigint, snapshot text, partial text, unpolled_since timestamptz)
LANGUAGE c STABLE STRICT ROWS 1 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'last_poll_after_wrapper';

-- Whether an org has a position in a tier.
CREATE FUNCTION tailstream.has_positions(org text, tier smallint) RETURNS boolean
LANGUAGE c STABLE STRICT COST 10000 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto
AS 'MODULE_PATHNAME', 'has_positions_wrapper';

-- The state of the sequencer's last poll that found a batch: its snapshot, the partly read transactions, and the earliest
-- receive time of batches that it had not seen. No row if the sequencer never ran on this server.
CREATE FUNCTION tailstream.last_poll() RETURNS TABLE (snapshot pg_snapshot, partial text, unpolled_since timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(l.snapshot::pg_snapshot, s.snapshot), l.partial, coalesce(l.unpolled_since, '-infinity')
    FROM tailstream.sequencer s
    LEFT JOIN LATERAL tailstream.last_poll_after(s.after_seq) l ON true
    WHERE s.system_identifier = (SELECT c.system_identifier FROM pg_control_system() c)
$body$;

-- Batches with events that have no position yet: of one org or of all orgs, received since a time. Planned for the times
-- of each call, so it opens no older chunk of the ledger. The hour allows for a clock that was set back while the server was
-- down. Only the sequencer itself reads the whole ledger, when it starts.
CREATE FUNCTION tailstream.unplaced_batches(org text DEFAULT NULL, since timestamptz DEFAULT '-infinity')
RETURNS TABLE (batch_id bigint, org_id text, event_count integer, received_at timestamptz,
               first_event_at timestamptz, last_event_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $body$
DECLARE
    poll   record;
    oldest timestamptz;
BEGIN
    SELECT * INTO poll FROM tailstream.last_poll();
    oldest := greatest(since, poll.unpolled_since - interval '1 hour');
    RETURN QUERY
    SELECT b.batch_id, b.org_id, b.event_count, b.received_at, b.first_event_at, b.last_event_at FROM tailstream.batches b
    WHERE b.event_count > 0 AND (org IS NULL OR b.org_id = org) AND b.received_at >= oldest
      AND (poll.snapshot IS NULL OR b.xid >= pg_snapshot_xmax(poll.snapshot)
           OR b.xid = ANY (ARRAY(SELECT pg_snapshot_xip(poll.snapshot))))
      -- The ledger was restored and is not adopted yet.
      AND (poll.snapshot IS NOT NULL OR NOT EXISTS (SELECT FROM tailstream.positions p WHERE p.batch_id = b.batch_id))
      AND NOT EXISTS (SELECT FROM regexp_split_to_table(poll.partial, ' ') AS part(placed)
                      WHERE b.xid = split_part(placed, '/', 1)::xid8 AND b.batch_id <= split_part(placed, '/', 2)::bigint);
END
$body$;

-- Takes over a ledger that another server wrote (a dump was restored here, or the server was upgraded), or a new one.
-- The transaction ids of a dump have no meaning on this server: rows with an id that this server has not assigned yet
-- would count as new again and again. Batches without a position get one here.
CREATE FUNCTION tailstream.adopt_ledger() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    here  bigint := (SELECT c.system_identifier FROM pg_control_system() c);
    last  record;
    assigned_at timestamptz;
BEGIN
    IF EXISTS (SELECT FROM tailstream.sequencer s WHERE s.system_identifier = here) THEN
        RETURN;
    END IF;
    UPDATE tailstream.batches b SET xid = '3' WHERE b.xid >= pg_snapshot_xmin(pg_current_snapshot());
    UPDATE tailstream.orgs o SET mirror_snapshot = NULL, mirror_from = clock_timestamp() WHERE o.mirror_snapshot IS NOT NULL;
    DELETE FROM tailstream.sequencer;
    SELECT p.seq, p.placed_at, p.events_before + p.event_count AS events INTO last FROM tailstream.last_position() p;
    IF last IS NULL THEN
        INSERT INTO tailstream.sequencer (system_identifier, snapshot, after_seq) VALUES (here, '3:3:', 0);
        RETURN;
    END IF;
    assigned_at := greatest(date_trunc('milliseconds', clock_timestamp()), last.placed_at + interval '1 millisecond');
    INSERT INTO tailstream.positions (seq, placed_at, stream_seq, batch_id, xid, org_id, tier, event_count,
                                      first_event_at, last_event_at, events_before)
    SELECT last.seq + row_number() OVER w, assigned_at, coalesce(sum(b.event_count) OVER earlier, 0), b.batch_id, b.xid,
           b.org_id, b.tier, b.event_count, b.first_event_at, b.last_event_at,
           last.events + coalesce(sum(b.event_count) OVER earlier, 0)
    FROM tailstream.batches b
    WHERE b.event_count > 0 AND NOT EXISTS (SELECT FROM tailstream.positions p WHERE p.batch_id = b.batch_id)
    WINDOW w AS (ORDER BY b.batch_id),
           earlier AS (ORDER BY b.batch_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING);
    INSERT INTO tailstream.sequencer (system_identifier, snapshot, after_seq)
    SELECT here, pg_current_snapshot(), p.seq FROM tailstream.last_position() p;
END
$body$;

-- The chunks that will be needed within `ahead` and do not exist: of every tier that has events now, and of the ledger, the
-- quarantine and the positions. Ordered by the time they are needed; very short chunks are only sampled.
CREATE FUNCTION tailstream.missing_chunks(ahead interval) RETURNS TABLE (name text, tier smallint, needed_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $body$
DECLARE
    timescaledb name := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                         WHERE e.extname = 'timescaledb');
    present     timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY EXECUTE format($query$
        WITH tables AS (
            SELECT t.name, t.time_column, d.time_interval
            FROM (VALUES ('events', 'created_at'), ('batches', 'received_at'), ('rejected_events', 'received_at'),
                         ('positions', 'placed_at')) AS t (name, time_column)
            JOIN timescaledb_information.dimensions d
              ON d.hypertable_schema = 'tailstream' AND d.hypertable_name = t.name AND d.column_name = t.time_column
        ), chunks AS MATERIALIZED (
            -- Of past chunks, only those that may extend into the present.
            SELECT t.name, r.* FROM tables t
            CROSS JOIN LATERAL %I.show_chunks(format('tailstream.%%I', t.name)::regclass,
                                              newer_than => $1 - t.time_interval - interval '1 hour') AS s(chunk)
            CROSS JOIN LATERAL tailstream.chunk_range(s.chunk, t.time_column) r
        )
        SELECT t.name, c.tier, needed.at FROM tables t
        JOIN chunks c ON c.name = t.name AND c.range_start <= $1 AND $1 < c.range_end
        CROSS JOIN LATERAL (SELECT g FROM generate_series($1, $1 + $2, greatest(t.time_interval, $2 / 36)) g UNION SELECT $1 + $2) AS needed(at)
        WHERE NOT EXISTS (SELECT FROM chunks o WHERE o.name = t.name AND o.tier IS NOT DISTINCT FROM c.tier
                                                 AND o.range_start <= needed.at AND needed.at < o.range_end)
        ORDER BY needed.at, t.name, c.tier$query$, timescaledb)
    USING present, ahead;
END
$body$;

-- Creates one of these chunks; returns whether one was missing. A session that creates a chunk blocks all others from creating
-- one until its transaction ends, so a client that writes the first event of an hour and then stays idle would block all
-- ingest. Creating it ahead also lets other sessions learn of the chunk before it contains rows. The function does not wait
-- for a lock holder, because that would delay sequencing.
CREATE FUNCTION tailstream.make_next_chunk(ahead interval) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '10ms' AS $body$
DECLARE
    next record;
    due  timestamptz;
BEGIN
    SELECT * INTO next FROM tailstream.missing_chunks(ahead) m LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    due := next.needed_at;
    -- Inserting a row creates the chunk; the row is then deleted.
    CASE next.name
        WHEN 'events' THEN
            INSERT INTO tailstream.events (id, created_at, org_id, tier) VALUES (0, due, '', next.tier);
            DELETE FROM tailstream.events e WHERE e.org_id = '' AND e.created_at = due AND e.id = 0;
        WHEN 'batches' THEN
            INSERT INTO tailstream.batches (batch_id, received_at, xid, org_id, tier, event_count)
            VALUES (0, due, pg_current_xact_id(), '', 0, 0);
            DELETE FROM tailstream.batches b WHERE b.received_at = due AND b.batch_id = 0;
        WHEN 'positions' THEN
            INSERT INTO tailstream.positions (seq, placed_at, stream_seq, batch_id, xid, org_id, tier, event_count,
                                              first_event_at, last_event_at, events_before)
            VALUES (0, due, 0, 0, pg_current_xact_id(), '', 0, 0, due, due, 0);
            DELETE FROM tailstream.positions p WHERE p.placed_at = due AND p.seq = 0;
        ELSE
            INSERT INTO tailstream.rejected_events (received_at, batch_id, position, org_id, sqlstate, reason, event)
            VALUES (due, 0, 0, '', '', '', '');
            DELETE FROM tailstream.rejected_events r WHERE r.received_at = due AND r.batch_id = 0;
    END CASE;
    RETURN true;
END
$body$;
