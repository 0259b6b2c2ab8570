-- ts_create_tier: a new tier whose orgs' events are kept for `retention`, and in Redis as far as the stream limits go.
CREATE FUNCTION ts_create_tier(name text, retention interval, stream_entries bigint DEFAULT 5000, stream_age interval DEFAULT '1 hour')
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM tailstream.require_unbound();
    PERFORM tailstream.check_tier(name, retention, stream_entries, stream_age);
    INSERT INTO tailstream.tiers (id, name, retention, stream_entries, stream_age)
    VALUES (tailstream.unused_tier_id(), ts_create_tier.name, ts_create_tier.retention, ts_create_tier.stream_entries, ts_create_tier.stream_age);
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'tier "%" exists already', name
        USING ERRCODE = 'duplicate_object', HINT = 'ts_alter_tier() changes a tier.';
END
$body$;

-- An id that no stored data uses. If table tiers was lost, its sequence may start again, and the chunks of a lost tier must not
-- become those of a new one.
CREATE FUNCTION tailstream.unused_tier_id() RETURNS smallint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    taken smallint[] := ARRAY(SELECT c.tier FROM tailstream.chunk_tiers() c
                              UNION SELECT t.id FROM tailstream.tiers t
                              UNION SELECT d.id FROM tailstream.dropped_tiers d
                              UNION SELECT o.tier FROM tailstream.orgs o
                              UNION SELECT p.tier FROM tailstream.purges p);
    unused smallint;
BEGIN
    LOOP
        unused := nextval(pg_get_serial_sequence('tailstream.tiers', 'id'));
        EXIT WHEN unused <> ALL (taken);
    END LOOP;
    RETURN unused;
END
$body$;

-- ts_alter_tier: changes the values that are not NULL. A shorter retention hides events at once; a longer one shows events
-- again that were not purged yet. Stream limits apply from the next entry.
CREATE FUNCTION ts_alter_tier(
    name text, retention interval DEFAULT NULL, stream_entries bigint DEFAULT NULL, stream_age interval DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $body$
DECLARE
    altered tailstream.tiers;
    wider   boolean;
    oldest  timestamptz;
BEGIN
    PERFORM tailstream.require_unbound();
    IF num_nonnulls(retention, stream_entries, stream_age) = 0 THEN
        RAISE EXCEPTION 'nothing to change of tier "%"', coalesce(name, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give retention, stream_entries or stream_age.';
    END IF;
    SELECT * INTO altered FROM tailstream.tiers t WHERE t.id = tailstream.tier_id(ts_alter_tier.name) FOR UPDATE;
    wider := coalesce(stream_entries > altered.stream_entries, false) OR coalesce(stream_age > altered.stream_age, false);
    altered.retention := coalesce(retention, altered.retention);
    altered.stream_entries := coalesce(stream_entries, altered.stream_entries);
    altered.stream_age := coalesce(stream_age, altered.stream_age);
    PERFORM tailstream.check_tier(name, altered.retention, altered.stream_entries, altered.stream_age);
    IF retention > (SELECT t.retention FROM tailstream.tiers t WHERE t.id = altered.id) THEN
        altered.lost_before := greatest(altered.lost_before, tailstream.purged_bound(ARRAY[altered.id]));
        -- Orgs that were on other tiers before have events in the chunks of those tiers.
        UPDATE tailstream.orgs o SET lost_before = moved.until
        FROM (SELECT m.org_id, max(g.until) AS until
              FROM tailstream.orgs m JOIN tailstream.purges g ON g.tier = ANY (m.earlier_tiers)
              WHERE m.tier = altered.id AND g.tier <> altered.id AND g.until > coalesce(m.lost_before, '-infinity')
                AND tailstream.has_positions(m.org_id, g.tier)
              GROUP BY m.org_id) AS moved
        WHERE o.org_id = moved.org_id;
    END IF;
    UPDATE tailstream.tiers t
    SET retention = altered.retention, lost_before = altered.lost_before, stream_entries = altered.stream_entries, stream_age = altered.stream_age
    WHERE t.id = altered.id;
    IF retention IS NOT NULL THEN
        INSERT INTO tailstream.tier_retentions AS r (tier, retention) VALUES (altered.id, altered.retention)
        ON CONFLICT ON CONSTRAINT tier_retentions_pkey DO UPDATE SET retention = excluded.retention;
    END IF;
    IF wider THEN
        -- The stream contains no older events.
        oldest := clock_timestamp() - altered.stream_age;
        PERFORM tailstream.request_rebuild(o.org_id, 'widened')
        FROM tailstream.orgs o
        WHERE o.tier = altered.id AND o.mirrored AND EXISTS (SELECT FROM tailstream.mirror)
          AND EXISTS (SELECT FROM tailstream.positions p WHERE p.org_id = o.org_id AND p.placed_at >= oldest);
    END IF;
END
$body$;

-- ts_drop_tier: removes a tier that no org uses.
CREATE FUNCTION ts_drop_tier(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    dropped smallint := tailstream.tier_id(name);
BEGIN
    PERFORM tailstream.require_unbound();
    IF name = 'standard' THEN
        RAISE EXCEPTION 'tier "standard" cannot be dropped'
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = 'Orgs that register themselves get it.';
    END IF;
    DELETE FROM tailstream.tiers t WHERE t.id = dropped;
    DELETE FROM tailstream.tier_retentions r WHERE r.tier = dropped;
    -- Its chunks may still exist, and the purge must know that it may drop them.
    INSERT INTO tailstream.dropped_tiers (id, name) VALUES (dropped, ts_drop_tier.name)
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, dropped_at = excluded.dropped_at;
EXCEPTION WHEN foreign_key_violation THEN
    RAISE EXCEPTION 'tier "%" is in use', name
        USING ERRCODE = 'dependent_objects_still_exist',
              DETAIL = format('%s orgs have it.', (SELECT count(*) FROM tailstream.orgs o WHERE o.tier = dropped)),
              HINT = 'Give them another tier with ts_set_org_tier() first.';
END
$body$;

-- ts_set_org_tier: registers the org if necessary and assigns the tier, effective at once. If the tier has larger stream limits,
-- the stream is written again.
CREATE FUNCTION ts_set_org_tier(org text, tier text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    wider boolean;
    lost  timestamptz;
BEGIN
    PERFORM tailstream.require_unbound();
    SELECT given.stream_entries > had.stream_entries OR given.stream_age > had.stream_age INTO wider
    FROM tailstream.orgs o
    JOIN tailstream.tiers had ON had.id = o.tier
    JOIN tailstream.tiers given ON given.name = ts_set_org_tier.tier
    WHERE o.org_id = org AND o.mirrored AND EXISTS (SELECT FROM tailstream.mirror);
    -- Its events are in the chunks of the tiers that it had when they were stored.
    SELECT greatest(had.lost_before, CASE WHEN given.retention > had.retention THEN tailstream.purged_bound(ARRAY(
               SELECT t.id FROM tailstream.tiers t
               WHERE t.id = had.id OR t.id = ANY (o.earlier_tiers) AND tailstream.has_positions(org, t.id))) END)
    INTO lost
    FROM tailstream.orgs o
    JOIN tailstream.tiers had ON had.id = o.tier
    JOIN tailstream.tiers given ON given.name = ts_set_org_tier.tier
    WHERE o.org_id = org;
    INSERT INTO tailstream.orgs AS o (org_id, tier)
    VALUES (tailstream.permitted_org(org), tailstream.tier_id(ts_set_org_tier.tier))
    ON CONFLICT (org_id) DO UPDATE SET tier = excluded.tier, tier_changed_at = clock_timestamp(),
                                       lost_before = greatest(o.lost_before, lost),
                                       earlier_tiers = array_append(array_remove(o.earlier_tiers, o.tier), o.tier)
    WHERE o.tier <> excluded.tier;
    IF wider THEN
        PERFORM tailstream.request_rebuild(org, 'widened');
    END IF;
END
$body$;

-- The time before which events in these tiers may have been purged. Blocks the purge until this transaction ends, so that the
-- bound is still right when a longer retention takes effect.
CREATE FUNCTION tailstream.purged_bound(tier_ids smallint[]) RETURNS timestamptz
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $body$
BEGIN
    PERFORM tailstream.lock_purge();
    IF current_setting('transaction_isolation') LIKE 'read %' THEN
        RETURN (SELECT max(g.until) FROM tailstream.purges g WHERE g.tier = ANY (tier_ids));
    END IF;
    -- Under other isolation levels the last purge may be invisible.
    RETURN clock_timestamp() - (SELECT min(t.retention) FROM tailstream.tiers t WHERE t.id = ANY (tier_ids));
END
$body$;

-- Waits until no purge is running, and blocks new ones until this transaction ends.
CREATE FUNCTION tailstream.lock_purge() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'lock_purge_wrapper';

-- ts_org: an org's tier and retention; no row if it is not registered.
CREATE FUNCTION ts_org(org text, OUT org_id text, OUT tier text, OUT retention interval,
                       OUT registered_at timestamptz, OUT tier_changed_at timestamptz) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    SELECT o.org_id, t.name, t.retention, o.registered_at, o.tier_changed_at
    FROM tailstream.orgs o JOIN tailstream.tiers t ON t.id = o.tier
    WHERE o.org_id = tailstream.permitted_org(org)
$body$;

CREATE FUNCTION tailstream.tier_id(name text) RETURNS smallint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    found_id smallint := (SELECT t.id FROM tailstream.tiers t WHERE t.name = tier_id.name);
BEGIN
    IF found_id IS NULL THEN
        RAISE EXCEPTION 'tier "%" does not exist', coalesce(name, 'NULL')
            USING ERRCODE = 'undefined_object',
                  HINT = format('Tiers are %s; ts_create_tier() makes one.',
                                (SELECT string_agg(quote_ident(t.name), ', ' ORDER BY t.id) FROM tailstream.tiers t));
    END IF;
    RETURN found_id;
END
$body$;

-- Whether the interval can be added to the present and subtracted from it. Months, days and hours are added one after the other, and
-- none of these steps may leave the range of timestamps.
CREATE FUNCTION tailstream.is_length(value interval) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT value BETWEEN interval '-36500 days' AND interval '36500 days'
       AND abs(12 * extract(year FROM value) + extract(month FROM value)) <= 1217
       AND abs(extract(day FROM value)) <= 36500
$body$;

CREATE FUNCTION tailstream.check_tier(name text, retention interval, stream_entries bigint, stream_age interval) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    given record;
BEGIN
    IF name IS NULL OR length(name) NOT BETWEEN 1 AND 63 THEN
        RAISE EXCEPTION 'a tier''s name has 1 to 63 characters' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR given IN SELECT * FROM (VALUES ('retention', retention), ('stream_age', stream_age)) AS v(argument, length) LOOP
        IF given.length IS NULL OR given.length <= interval '0' OR NOT tailstream.is_length(given.length)
           OR extract(year FROM given.length) <> 0 OR extract(month FROM given.length) <> 0 THEN
            RAISE EXCEPTION 'tier "%": % % is not usable', name, given.argument, coalesce(given.length::text, 'NULL')
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Give a positive length in days, hours, minutes or seconds, up to 36500 days; months and years differ in length.';
        END IF;
    END LOOP;
    IF stream_entries IS NULL OR stream_entries < 1 THEN
        RAISE EXCEPTION 'tier "%": stream_entries % is not usable', name, coalesce(stream_entries::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give a positive number.';
    END IF;
END
$body$;

GRANT EXECUTE ON FUNCTION ts_org(text) TO tailstream_reader;
GRANT EXECUTE ON FUNCTION
    ts_create_tier(text, interval, bigint, interval),
    ts_alter_tier(text, interval, bigint, interval),
    ts_drop_tier(text),
    ts_set_org_tier(text, text)
TO tailstream_admin;
