CREATE FUNCTION tailstream.create_replay_tables() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    -- The key that seals replay tokens. One row. Knowing it allows one to make tokens, but tokens give no access rights.
    IF to_regclass('tailstream.token_key') IS NULL THEN
        CREATE TABLE tailstream.token_key (
            only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            key      bytea NOT NULL DEFAULT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
        );
        INSERT INTO tailstream.token_key DEFAULT VALUES;
    END IF;
END
$body$;
