-- Waits until no transaction is ingesting for the org, and keeps new ones waiting until this one ends.
CREATE FUNCTION tailstream.lock_org_for_erasure(org text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'lock_org_for_erasure_wrapper';

-- ts_erase_org: permanently deletes everything stored of an org, including its stream. Waits for its running ingest calls.
-- Returns the numbers of deleted rows.
CREATE FUNCTION ts_erase_org(org text, OUT events bigint, OUT batches bigint, OUT rejected_events bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $body$
DECLARE
    last_placed timestamptz;
BEGIN
    PERFORM tailstream.require_unbound();
    PERFORM tailstream.require_read_committed();
    PERFORM tailstream.lock_org_for_erasure(tailstream.permitted_org(org));
    DELETE FROM tailstream.events e WHERE e.org_id = org;
    GET DIAGNOSTICS events = ROW_COUNT;
    DELETE FROM tailstream.rejected_events r WHERE r.org_id = org;
    GET DIAGNOSTICS rejected_events = ROW_COUNT;
    DELETE FROM tailstream.durable_cursors c WHERE c.org_id = org;
    DELETE FROM tailstream.orgs o WHERE o.org_id = org;
    DELETE FROM tailstream.batches b WHERE b.org_id = org;
    GET DIAGNOSTICS batches = ROW_COUNT;
    -- Deletes most rows before it takes the lock, which blocks the sequencing of all orgs. Rows with a snapshot of the sequencer
    -- stay, without the org id.
    last_placed := coalesce((SELECT p.placed_at FROM tailstream.last_position() p), '-infinity');
    DELETE FROM tailstream.positions p WHERE p.org_id = org AND p.snapshot IS NULL;
    UPDATE tailstream.positions p SET org_id = '', event_count = 0 WHERE p.org_id = org;
    -- Also deletes what was sequenced meanwhile. From here on the sequencer waits, and then finds no batch of the org.
    LOCK TABLE ONLY tailstream.positions IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM tailstream.positions p WHERE p.org_id = org AND p.snapshot IS NULL AND p.placed_at >= last_placed;
    UPDATE tailstream.positions p SET org_id = '', event_count = 0 WHERE p.org_id = org AND p.placed_at >= last_placed;
    IF EXISTS (SELECT FROM tailstream.mirror) THEN
        PERFORM tailstream.request_rebuild(org, 'erased');
    END IF;
END
$body$;

GRANT EXECUTE ON FUNCTION ts_erase_org(text) TO tailstream_admin;
