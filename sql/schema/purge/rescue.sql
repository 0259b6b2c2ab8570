-- Sets lock_timeout until the calling function ends. It has no SET clause itself, because that would undo the change; its
-- callers pin the search_path. At least one millisecond, because 0 would mean no limit.
CREATE FUNCTION tailstream.set_lock_timeout(lock_timeout interval) RETURNS text
LANGUAGE sql VOLATILE AS $body$
    SELECT set_config('lock_timeout', greatest(1, (1000 * extract(epoch FROM lock_timeout))::integer)::text, true)
$body$;

-- Blocks ts_erase_org() until this transaction ends.
CREATE FUNCTION tailstream.lock_org_for_ingest(org text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'lock_org_for_ingest_wrapper';

-- The orgs with events in the chunk that their present tier still keeps. Probes the index once per org with a longer retention,
-- and never scans the chunk.
CREATE FUNCTION tailstream.orgs_to_rescue(chunk regclass, tier smallint, retention interval)
RETURNS TABLE (org_id text, new_tier smallint, keep_from timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $body$
BEGIN
    IF NOT EXISTS (SELECT FROM tailstream.tiers t WHERE t.retention > orgs_to_rescue.retention) THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format($query$
        SELECT o.org_id, o.tier, clock_timestamp() - t.retention
        FROM tailstream.orgs o
        JOIN tailstream.tiers t ON t.id = o.tier AND t.retention > $2
        CROSS JOIN LATERAL (SELECT FROM %s e
                            WHERE e.org_id = o.org_id AND e.created_at >= clock_timestamp() - t.retention LIMIT 1) kept
        WHERE o.tier <> $1$query$, chunk)
    USING tier, retention;
END
$body$;

-- Copies an org's events of a chunk into another tier, with all columns, including those that users added; at most `most` of
-- them unless that is NULL. Returns the number and the id of one of them.
CREATE FUNCTION tailstream.copy_events(
    chunk regclass, org_id text, new_tier smallint, keep_from timestamptz, most bigint,
    OUT copied bigint, OUT copied_id bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    columns text;
    sources text;
BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum),
           string_agg(CASE attname WHEN 'tier' THEN '$1' ELSE 'e.' || quote_ident(attname) END, ', ' ORDER BY attnum)
    INTO columns, sources
    FROM pg_attribute
    WHERE attrelid = 'tailstream.events'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
    EXECUTE format('WITH copies AS (
                        INSERT INTO tailstream.events (%s)
                        SELECT %s FROM %s e WHERE e.org_id = $2 AND e.created_at >= $3 LIMIT $4 RETURNING id)
                    SELECT count(*), max(id) FROM copies', columns, sources, chunk)
    INTO copied, copied_id USING new_tier, org_id, keep_from, most;
END
$body$;

-- Copies the events of upgraded orgs into their present tier.
CREATE FUNCTION tailstream.rescue_events(chunk regclass, tier smallint, retention interval) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    saved   record;
    copies  record;
    rescued bigint := 0;
BEGIN
    FOR saved IN SELECT * FROM tailstream.orgs_to_rescue(chunk, tier, retention) LOOP
        -- As an ingest call does: ts_erase_org() must not run between the deletion of the old rows and their copies.
        PERFORM tailstream.lock_org_for_ingest(saved.org_id);
        copies := tailstream.copy_events(chunk, saved.org_id, saved.new_tier, saved.keep_from, NULL);
        rescued := rescued + copies.copied;
    END LOOP;
    RETURN rescued;
END
$body$;

-- Creates the missing chunks into which a rescue will copy. Returns whether any was missing; NULL if one could not be created.
-- They must be committed before the old chunk is dropped: otherwise a reader that lists chunks before the commit would find
-- neither.
CREATE FUNCTION tailstream.make_rescue_chunks(
    chunk regclass, tier smallint, retention interval, range_start timestamptz, lock_timeout interval) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 AS $body$
DECLARE
    saved  record;
    copies record;
    made   boolean := false;
BEGIN
    PERFORM tailstream.set_lock_timeout(lock_timeout);
    FOR saved IN
        SELECT DISTINCT ON (o.new_tier) o.* FROM tailstream.orgs_to_rescue(chunk, tier, retention) o
        WHERE NOT EXISTS (SELECT FROM tailstream.chunks('tailstream.events', 'created_at') c
                          WHERE c.tier = o.new_tier AND c.range_start <= make_rescue_chunks.range_start
                            AND make_rescue_chunks.range_start < c.range_end)
    LOOP
        -- Inserting a row creates the chunk; the row is then deleted.
        copies := tailstream.copy_events(chunk, saved.org_id, saved.new_tier, saved.keep_from, 1);
        DELETE FROM tailstream.events e
        WHERE e.org_id = saved.org_id AND e.tier = saved.new_tier AND e.id = copies.copied_id
          AND e.created_at >= saved.keep_from;
        made := made OR copies.copied > 0;
    END LOOP;
    RETURN made;
EXCEPTION
    WHEN lock_not_available OR deadlock_detected OR undefined_table THEN
        RETURN NULL;
    WHEN OTHERS THEN
        RAISE WARNING 'chunk % was not purged: %', chunk, SQLERRM USING ERRCODE = SQLSTATE;
        RETURN NULL;
END
$body$;
