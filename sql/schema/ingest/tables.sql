CREATE FUNCTION tailstream.create_ingest_tables() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    -- One chunk for each (hour, tier): the purge drops whole chunks and nothing else.
    -- Ids are unique by construction (batch_id << 16 | offset), so no constraint pays for it.
    -- org_id is compared byte by byte, because most of the cost of an insert is index descents.
    IF to_regclass('tailstream.events') IS NULL THEN
        CREATE TABLE tailstream.events (
            id            bigint NOT NULL,
            created_at    timestamptz NOT NULL,
            org_id        text COLLATE "C" NOT NULL,
            host          text,
            method        text,
            path          text,
            status        integer,
            response_time integer,
            response_size bigint,
            user_agent    text,
            referrer      text,
            ip_address    inet,
            metadata      jsonb,
            -- After the columns that readers get, so that those can be copied without deforming the row.
            tier          smallint NOT NULL
        );
        CREATE INDEX events_org_id_created_at_id_idx ON tailstream.events (org_id, created_at, id);
    END IF;

    -- The batch ledger: insert-only, one row for each batch id, in the transaction of its events.
    -- Key, accepted, rejected and expired describe the call and are set on its first batch only.
    IF to_regclass('tailstream.batches') IS NULL THEN
        CREATE TABLE tailstream.batches (
            batch_id        bigint NOT NULL,
            received_at     timestamptz NOT NULL,
            xid             xid8 NOT NULL,
            org_id          text COLLATE "C" NOT NULL,
            tier            smallint NOT NULL,
            event_count     integer NOT NULL,
            first_event_at  timestamptz,
            last_event_at   timestamptz,
            idempotency_key text COLLATE "C",
            accepted        integer,
            rejected        integer,
            expired         integer,
            -- Where in the heap the events probably are: oid of the chunk and runs of blocks.
            block_hint      text COLLATE "C",
            -- Hash of the text of the events, for a call with a key.
            payload_hash    bigint
        );
        CREATE INDEX batches_org_id_idempotency_key_idx
            ON tailstream.batches (org_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
        CREATE INDEX batches_xid_batch_id_idx ON tailstream.batches (xid, batch_id);
    END IF;

    -- Invalid events that on_invalid => 'quarantine' stored as they came.
    IF to_regclass('tailstream.rejected_events') IS NULL THEN
        CREATE TABLE tailstream.rejected_events (
            received_at timestamptz NOT NULL,
            batch_id    bigint NOT NULL,
            position    integer NOT NULL,
            org_id      text COLLATE "C" NOT NULL,
            sqlstate    text NOT NULL,
            reason      text NOT NULL,
            event       text NOT NULL
        );
        CREATE INDEX rejected_events_org_id_received_at_idx
            ON tailstream.rejected_events (org_id, received_at);
    END IF;

    -- 47 bits: the id of an event is batch_id << 16 | offset in a bigint.
    IF to_regclass('tailstream.batch_id_seq') IS NULL THEN
        CREATE SEQUENCE tailstream.batch_id_seq AS bigint MAXVALUE 140737488355327 NO CYCLE;
        ALTER SEQUENCE tailstream.batch_id_seq OWNED BY tailstream.batches.batch_id;
    END IF;
END
$body$;
