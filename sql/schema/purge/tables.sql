CREATE FUNCTION tailstream.create_purge_tables() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    -- The end of the last dropped chunk of each tier.
    IF to_regclass('tailstream.purges') IS NULL THEN
        CREATE TABLE tailstream.purges (
            tier  smallint PRIMARY KEY,
            until timestamptz NOT NULL
        );
    END IF;
END
$body$;
