-- Finds stored data without a tier or an org: a dump may have been restored partly, or a row deleted by hand.

-- The tier of each chunk of events. Much cheaper than tailstream.chunks() if there are many.
CREATE FUNCTION tailstream.chunk_tiers() RETURNS TABLE (chunk regclass, tier smallint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $body$
    SELECT i.inhrelid::regclass, substring(d.definition FROM '[(]tier >= ''?(-?[0-9]+)')::smallint
    FROM pg_inherits i
    JOIN pg_constraint c ON c.conrelid = i.inhrelid AND c.contype = 'c' AND c.conname ~ '^constraint_[0-9]+$'
    CROSS JOIN LATERAL pg_get_constraintdef(c.oid) AS d(definition)
    WHERE i.inhparent = 'tailstream.events'::regclass AND d.definition LIKE '%(tier >= %'
$body$;

-- A message that lists the unknown tiers of chunks of events; NULL if there are none.
CREATE FUNCTION tailstream.unknown_tiers() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT 'chunks belong to tiers that do not exist, and are not purged: '
           || string_agg(format('tier %s (%s chunks)', u.tier, u.chunks), ', ' ORDER BY u.tier)
    FROM (SELECT c.tier, count(*) AS chunks FROM tailstream.chunk_tiers() c
          WHERE NOT EXISTS (SELECT FROM tailstream.tiers t WHERE t.id = c.tier)
            AND NOT EXISTS (SELECT FROM tailstream.dropped_tiers d WHERE d.id = c.tier)
          GROUP BY c.tier) u
$body$;

-- A message that lists the tiers with a shorter retention than was set for them; NULL if there are none. A dump was restored
-- into existing tables, or the table was changed by hand.
CREATE FUNCTION tailstream.shortened_tiers() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT 'tiers keep less than was set for them, and are not purged: '
           || string_agg(format('%s (%s, and %s was set)', quote_ident(t.name), t.retention, r.retention), ', ' ORDER BY t.id)
    FROM tailstream.tiers t JOIN tailstream.tier_retentions r ON r.tier = t.id AND r.retention > t.retention
$body$;

-- Orgs with rows in a chunk of events or positions that are missing in table orgs. Checks a limited number of orgs. Goes from
-- org to org through the index, so it does not scan the chunk. Skips a chunk that is being dropped.
CREATE FUNCTION tailstream.unregistered_orgs(chunk regclass, most integer) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_sort = off
    SET lock_timeout = '100ms' AS $body$
BEGIN
    RETURN QUERY EXECUTE format($query$
        WITH RECURSIVE found(org_id, n) AS (
            (SELECT e.org_id, 1 FROM %1$s e ORDER BY e.org_id LIMIT 1)
            UNION ALL
            SELECT (SELECT e.org_id FROM %1$s e WHERE e.org_id > f.org_id ORDER BY e.org_id LIMIT 1), f.n + 1
            FROM found f WHERE f.org_id IS NOT NULL AND f.n < $1)
        SELECT f.org_id FROM found f
        -- Positions of an erased org have an empty org_id.
        WHERE f.org_id <> '' AND NOT EXISTS (SELECT FROM tailstream.orgs o WHERE o.org_id = f.org_id)$query$, chunk)
    USING most;
EXCEPTION WHEN lock_not_available OR undefined_table OR syntax_error THEN
    -- The name of a chunk that no longer exists is its oid.
    RETURN;
END
$body$;

-- Up to 100 orgs that have events and are not registered. Checks all chunks, or only the first and the last one created for
-- each tier: a restore that fails loses all orgs, not some. Skips compressed chunks.
CREATE FUNCTION tailstream.lost_orgs(thorough boolean) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    looked regclass;
    lost   text[] := '{}';
BEGIN
    FOR looked IN
        SELECT c.chunk
        FROM (SELECT f.chunk, row_number() OVER (PARTITION BY f.tier ORDER BY f.chunk::oid) AS from_first,
                     row_number() OVER (PARTITION BY f.tier ORDER BY f.chunk::oid DESC) AS from_last
              FROM tailstream.chunk_tiers() f WHERE pg_relation_size(f.chunk) > 0) c
        WHERE thorough OR 1 IN (c.from_first, c.from_last)
        UNION ALL
        SELECT i.inhrelid::regclass FROM pg_inherits i WHERE thorough AND i.inhparent = to_regclass('tailstream.positions')
    LOOP
        lost := ARRAY(SELECT unnest(lost) UNION SELECT tailstream.unregistered_orgs(looked, CASE WHEN thorough THEN 10000 ELSE 300 END)
                      ORDER BY 1 LIMIT 100);
        EXIT WHEN cardinality(lost) >= 100;
    END LOOP;
    RETURN lost;
END
$body$;

-- One row with a message and a hint for each kind of missing registration; no row if nothing is missing.
CREATE FUNCTION tailstream.missing_registrations(thorough boolean) RETURNS TABLE (component text, status text, message text, advice text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    lost text[];
BEGIN
    component := 'tiers';
    status := 'error';
    message := tailstream.unknown_tiers();
    advice := 'Insert each into tailstream.tiers again with its id, name and retention, or into tailstream.dropped_tiers to have it purged.';
    IF message IS NOT NULL THEN
        RETURN NEXT;
    END IF;
    message := tailstream.shortened_tiers();
    advice := 'Call ts_alter_tier() for each with the retention that it is to have.';
    IF message IS NOT NULL THEN
        RETURN NEXT;
    END IF;
    IF NOT EXISTS (SELECT FROM tailstream.tiers t WHERE t.name = 'standard') THEN
        message := 'tier "standard" does not exist, which orgs get that register themselves';
        advice := 'Insert it into tailstream.tiers again, with its id if that is missing too.';
        RETURN NEXT;
    END IF;
    IF to_regclass('tailstream.orgs') IS NULL THEN
        component := 'orgs';
        message := 'table tailstream.orgs does not exist';
        advice := 'Restore it; SELECT tailstream.attach_storage() makes an empty one.';
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT format('orgs have a tier that does not exist: %s', string_agg(o.org_id, ', ' ORDER BY o.org_id)) INTO message
    FROM (SELECT * FROM tailstream.orgs o WHERE NOT EXISTS (SELECT FROM tailstream.tiers t WHERE t.id = o.tier) ORDER BY o.org_id LIMIT 5) o
    HAVING count(*) > 0;
    IF message IS NOT NULL THEN
        advice := 'Insert the tier into tailstream.tiers again with its id, or give each org another one with ts_set_org_tier().';
        component := 'orgs';
        RETURN NEXT;
    END IF;
    lost := tailstream.lost_orgs(thorough);
    IF cardinality(lost) > 0 THEN
        component := 'orgs';
        status := 'warning';
        message := format('orgs have events and are not registered: %s%s', array_to_string(lost[1:5], ', '),
                          CASE WHEN cardinality(lost) > 5 THEN format(' and %s%s more', cardinality(lost) - 5,
                                                                      CASE WHEN cardinality(lost) >= 100 THEN ' or' ELSE '' END) ELSE '' END);
        advice := 'They show no more than tier standard keeps. Restore tailstream.orgs from the dump, or call ts_set_org_tier() for each.';
        RETURN NEXT;
    END IF;
END
$body$;
