CREATE FUNCTION tailstream.create_cursors_tables() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    -- A sequence, because a number must not be used again after a rollback.
    IF to_regclass('tailstream.cursor_seek_generation_seq') IS NULL THEN
        CREATE SEQUENCE tailstream.cursor_seek_generation_seq AS integer CYCLE;
    END IF;

    -- The positions of consumers. Each acknowledgement updates a row, so the fill factor leaves room for the new version in
    -- the same block.
    IF to_regclass('tailstream.durable_cursors') IS NULL THEN
        CREATE TABLE tailstream.durable_cursors (
            cursor_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name         text COLLATE "C" NOT NULL,
            org_id       text COLLATE "C" NOT NULL,
            -- True: the cursor reads in commit order. False: in event-time order.
            by_arrival   boolean NOT NULL,
            filter       jsonb,
            -- Changes with each ts_cursor_seek(), so that tokens fetched before it cannot be acknowledged.
            seek_generation integer NOT NULL DEFAULT nextval('tailstream.cursor_seek_generation_seq'),
            -- In commit order: the next event is at this offset of the batch at this position, or after it, and its position
            -- was not assigned before place_at. In event-time order: the time and id of the last event.
            place_at     timestamptz NOT NULL,
            place_id     bigint NOT NULL,
            place_offset integer NOT NULL,
            -- Losses of events before `accounted_until` with a position before `accounted_until_seq` are not reported: the
            -- events were already gone when the cursor began, or the loss has been reported.
            accounted_until timestamptz NOT NULL,
            accounted_until_seq bigint NOT NULL,
            -- Distinguishes the org from an erased org with the same id.
            incarnation  bigint NOT NULL,
            created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
            last_active  timestamptz NOT NULL DEFAULT clock_timestamp(),
            UNIQUE (name, org_id),
            CONSTRAINT durable_cursors_name_length CHECK (length(name) BETWEEN 1 AND 255)
        ) WITH (fillfactor = 20);
        -- For counting an org's cursors.
        CREATE INDEX durable_cursors_org_id_idx ON tailstream.durable_cursors (org_id);
    END IF;
END
$body$;
