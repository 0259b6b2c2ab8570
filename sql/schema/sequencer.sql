-- The sequencer gives each batch its place in one order, after its commit. What is new at a look is what the snapshot
-- of the last look had not seen: xid >= xmax or in its list of running transactions.

-- What the sequencer had seen at its last look that found anything; NULL if it never ran on this server.
CREATE FUNCTION tailstream.sequenced_snapshot() RETURNS pg_snapshot
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce((SELECT p.snapshot FROM tailstream.positions p
                     WHERE p.seq > s.after_seq AND p.snapshot IS NOT NULL ORDER BY p.seq DESC LIMIT 1), s.snapshot)
    FROM tailstream.sequencer s
    WHERE s.system_identifier = (SELECT c.system_identifier FROM pg_control_system() c)
$body$;

-- Takes over a ledger that another server wrote (a dump was restored here, or the server was upgraded), or a new one.
-- The transaction ids of a dump mean nothing here: rows that carry an id which this server has yet to give would
-- be taken for new again and again. Batches without a place get it here.
CREATE FUNCTION tailstream.adopt_ledger() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    here  bigint := (SELECT c.system_identifier FROM pg_control_system() c);
    last  record;
    place timestamptz;
BEGIN
    IF EXISTS (SELECT FROM tailstream.sequencer s WHERE s.system_identifier = here) THEN
        RETURN;
    END IF;
    UPDATE tailstream.batches b SET xid = '3' WHERE b.xid >= pg_snapshot_xmin(pg_current_snapshot());
    UPDATE tailstream.orgs o SET mirror_snapshot = NULL, mirror_from = clock_timestamp() WHERE o.mirror_snapshot IS NOT NULL;
    DELETE FROM tailstream.sequencer;
    SELECT p.seq, p.placed_at, p.stream_seq + p.event_count AS stream_seq, p.events_before + p.event_count AS events
    INTO last FROM tailstream.positions p ORDER BY p.seq DESC LIMIT 1;
    IF last IS NULL THEN
        INSERT INTO tailstream.sequencer (system_identifier, snapshot, after_seq) VALUES (here, '3:3:', 0);
        RETURN;
    END IF;
    place := greatest(date_trunc('milliseconds', clock_timestamp()), last.placed_at + interval '1 millisecond');
    INSERT INTO tailstream.positions (seq, placed_at, stream_seq, batch_id, xid, org_id, tier, event_count,
                                      first_event_at, last_event_at, events_before)
    SELECT last.seq + row_number() OVER w, place, coalesce(sum(b.event_count) OVER earlier, 0), b.batch_id, b.xid,
           b.org_id, b.tier, b.event_count, b.first_event_at, b.last_event_at,
           last.events + coalesce(sum(b.event_count) OVER earlier, 0)
    FROM tailstream.batches b
    WHERE b.event_count > 0 AND NOT EXISTS (SELECT FROM tailstream.positions p WHERE p.batch_id = b.batch_id)
    WINDOW w AS (ORDER BY b.xid, b.batch_id),
           earlier AS (ORDER BY b.xid, b.batch_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING);
    INSERT INTO tailstream.sequencer (system_identifier, snapshot, after_seq)
    SELECT here, pg_current_snapshot(), max(p.seq) FROM tailstream.positions p;
END
$body$;
