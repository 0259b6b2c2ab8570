-- Who may see what: the binding of a session to one org, and the time before which nothing is shown.

-- The org that the setting tailstream.org binds this session to, NULL if it may see all orgs.
CREATE FUNCTION tailstream.bound_org() RETURNS text
LANGUAGE c STABLE LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'bound_org_wrapper';

-- True, or an error in a session that is bound to an org. IMMUTABLE so that the planner evaluates it
-- and no plan carries it: a change of the setting discards all plans. It has to raise before the planner estimates anything, for an
-- operator of a writer's own would be shown the table's statistics then.
CREATE FUNCTION tailstream.session_unbound() RETURNS boolean
LANGUAGE c IMMUTABLE LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'session_unbound_wrapper';

-- Error 42501 unless this session may touch the org; returns the org.
CREATE FUNCTION tailstream.permitted_org(org text) RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'permitted_org_wrapper';

-- Error 42501 in a session that is bound to an org.
CREATE FUNCTION tailstream.require_unbound() RETURNS void
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'require_unbound_wrapper';

-- The oldest event time that is shown of an org, at the start of this statement.
CREATE FUNCTION tailstream.retention_floor(org_id text) RETURNS timestamptz
LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'retention_floor_wrapper';

-- Whether an event of this time is still shown, with a planner estimate of its own.
CREATE FUNCTION tailstream.is_retained_support(internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'is_retained_support_wrapper';

CREATE FUNCTION tailstream.is_retained(org_id text, created_at timestamptz) RETURNS boolean
LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 1 SUPPORT tailstream.is_retained_support
AS 'MODULE_PATHNAME', 'is_retained_wrapper';

-- The oldest event time that is shown, but an error if a replay that starts at start_time would begin before it.
CREATE FUNCTION tailstream.replay_floor(org_id text, start_time timestamptz) RETURNS timestamptz
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'replay_floor_wrapper';

-- What deletes must see what is committed now: a tier that was changed, an event that was stored.
CREATE FUNCTION tailstream.require_read_committed() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'events cannot be deleted under isolation level %', current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state', HINT = 'Run it in a READ COMMITTED transaction.';
    END IF;
END
$body$;
