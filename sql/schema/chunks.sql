-- The tier and the time range of a chunk, from the CHECK constraints that define them. These are the same in all editions and
-- versions of TimescaleDB; its catalogs are not. The constraints are printed and parsed, so format and time zone are pinned.
CREATE FUNCTION tailstream.chunk_range(
    chunk oid, time_column text, OUT tier smallint, OUT range_start timestamptz, OUT range_end timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC'
    SET quote_all_identifiers = off AS $body$
    SELECT max(substring(d.definition FROM '[(]tier >= ''?(-?[0-9]+)')::smallint),
           max(substring(d.definition FROM time_column || ' >= ''([^'']+)''')::timestamptz),
           min(substring(d.definition FROM time_column || ' < ''([^'']+)''')::timestamptz)
    FROM pg_constraint c
    CROSS JOIN LATERAL pg_get_constraintdef(c.oid) AS d(definition)
    WHERE c.conrelid = chunk AND c.contype = 'c' AND c.conname ~ '^constraint_[0-9]+$'
$body$;

-- The chunks of one of our hypertables.
CREATE FUNCTION tailstream.chunks(hypertable regclass, time_column text)
RETURNS TABLE (chunk regclass, tier smallint, range_start timestamptz, range_end timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT i.inhrelid::regclass, r.tier, r.range_start, r.range_end
    FROM pg_inherits i CROSS JOIN LATERAL tailstream.chunk_range(i.inhrelid, time_column) r
    WHERE i.inhparent = hypertable
$body$;

-- The chunks of one of our hypertables that end at a time or earlier. Does not read the others.
CREATE FUNCTION tailstream.chunks_before(hypertable regclass, time_column text, until timestamptz)
RETURNS TABLE (chunk regclass, range_end timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    timescaledb name := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                         WHERE e.extname = 'timescaledb');
BEGIN
    IF isfinite(until) THEN
        RETURN QUERY EXECUTE format('SELECT s.chunk, r.range_end FROM %I.show_chunks($1, older_than => $3) AS s(chunk)
                                     CROSS JOIN LATERAL tailstream.chunk_range(s.chunk, $2) r WHERE r.range_end <= $3', timescaledb)
        USING hypertable, time_column, until;
    END IF;
END
$body$;
