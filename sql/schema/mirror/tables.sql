CREATE FUNCTION tailstream.create_mirror_tables() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    -- The state of the mirror that must survive a crash of all processes. One row.
    IF to_regclass('tailstream.mirror') IS NULL THEN
        CREATE TABLE tailstream.mirror (
            only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            -- Also stored in Redis. If the two differ, Redis has lost data or belongs to another database.
            epoch      text NOT NULL,
            stream_key text NOT NULL,
            -- The checkpoint's key in Redis, and earlier keys from before the database was moved to this server.
            checkpoint_key         text NOT NULL DEFAULT '',
            former_checkpoint_keys text[] NOT NULL DEFAULT '{}',
            -- Resyncs are numbered. Redis has at least the resyncs up to the first number, and was sent none after the second.
            resyncs_done       bigint NOT NULL DEFAULT 0,
            resyncs_reserved   bigint NOT NULL DEFAULT 0,
            -- Up to this position the mirror was switched off for all orgs.
            after_seq  bigint NOT NULL DEFAULT 0,
            paused     boolean NOT NULL DEFAULT false
        );
    END IF;

    -- Orgs whose stream must be written again from the table before new events are added to it.
    IF to_regclass('tailstream.mirror_rebuilds') IS NULL THEN
        CREATE TABLE tailstream.mirror_rebuilds (
            org_id       text COLLATE "C" NOT NULL,
            request      bigint GENERATED ALWAYS AS IDENTITY,
            reason       text NOT NULL CHECK (reason IN ('backfill', 'widened', 'lost', 'failed', 'erased')),
            requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (org_id, request)
        );
    END IF;
END
$body$;
