CREATE FUNCTION tailstream.create_sequencer_tables() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    -- The order in which batches were sequenced after their commit: insert-only, one row for each batch with events. Only the
    -- sequencer writes it.
    IF to_regclass('tailstream.positions') IS NULL THEN
        CREATE TABLE tailstream.positions (
            seq            bigint NOT NULL,
            -- Whole milliseconds, the first part of the batch's stream ids; never decreases with seq.
            placed_at      timestamptz NOT NULL,
            -- The second part of the stream id of the first event; the other events have the following numbers.
            stream_seq     bigint NOT NULL,
            batch_id       bigint NOT NULL,
            xid            xid8 NOT NULL,
            org_id         text COLLATE "C" NOT NULL,
            tier           smallint NOT NULL,
            event_count    integer NOT NULL,
            first_event_at timestamptz NOT NULL,
            last_event_at  timestamptz NOT NULL,
            -- Number of events of all earlier positions.
            events_before  bigint NOT NULL,
            -- On the last row of each poll: the snapshot of the poll.
            snapshot       pg_snapshot,
            -- Transactions that the poll read partly, as "xid/batch_id" of the last batch read, separated by blanks.
            partial        text,
            -- As in the ledger.
            block_hint      text COLLATE "C",
            -- On the last row of each poll: batches that the poll did not see were received at this time or later. NULL if unknown.
            unpolled_since timestamptz
        );
        CREATE INDEX positions_seq_idx ON tailstream.positions (seq);
        CREATE INDEX positions_org_id_seq_idx ON tailstream.positions (org_id, seq);
        -- Whether an event's batch has its position behind a boundary.
        CREATE INDEX positions_batch_id_idx ON tailstream.positions (batch_id);
    END IF;

    -- The server to which the ledger's transaction ids belong, and the sequencer's snapshot when it began there. One row.
    IF to_regclass('tailstream.sequencer') IS NULL THEN
        CREATE TABLE tailstream.sequencer (
            only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            system_identifier bigint NOT NULL,
            snapshot          pg_snapshot NOT NULL,
            after_seq         bigint NOT NULL
        );
    END IF;
END
$body$;
