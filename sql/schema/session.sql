-- Access: the binding of a session to one org, and the time before which events are hidden.

-- The org that the setting tailstream.org binds this session to, NULL if it may see all orgs.
CREATE FUNCTION tailstream.bound_org() RETURNS text
LANGUAGE c STABLE LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'bound_org_wrapper';

-- True, or an error in a session that is bound to an org. IMMUTABLE so that the planner evaluates it and no plan contains it;
-- a change of the setting discards all plans. The error must be raised before the planner makes estimates, because a
-- user-defined operator would be called with values of the table's statistics then.
CREATE FUNCTION tailstream.session_unbound() RETURNS boolean
LANGUAGE c IMMUTABLE LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'session_unbound_wrapper';

-- Returns the org; error 42501 if this session has no access to it.
CREATE FUNCTION tailstream.permitted_org(org text) RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'permitted_org_wrapper';

-- Error 42501 in a session that is bound to an org.
CREATE FUNCTION tailstream.require_unbound() RETURNS void
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'require_unbound_wrapper';

-- The retention cutoff of an org at the start of this statement: older events are hidden.
CREATE FUNCTION tailstream.retention_floor(org_id text) RETURNS timestamptz
LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'retention_floor_wrapper';

-- Whether an event of this time is not older than the retention cutoff. Has a support function for the planner's estimate.
CREATE FUNCTION tailstream.is_retained_support(internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'is_retained_support_wrapper';

CREATE FUNCTION tailstream.is_retained(org_id text, created_at timestamptz) RETURNS boolean
LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE COST 1 SUPPORT tailstream.is_retained_support
AS 'MODULE_PATHNAME', 'is_retained_wrapper';

-- The retention cutoff; error if start_time is before it.
CREATE FUNCTION tailstream.replay_floor(org_id text, start_time timestamptz) RETURNS timestamptz
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'replay_floor_wrapper';

-- A function that deletes must see everything that is committed: a changed tier, a stored event.
CREATE FUNCTION tailstream.require_read_committed() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'events cannot be deleted under isolation level %', current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state', HINT = 'Run it in a READ COMMITTED transaction.';
    END IF;
END
$body$;

GRANT EXECUTE ON FUNCTION tailstream.bound_org(), tailstream.session_unbound() TO tailstream_writer, tailstream_reader;
GRANT EXECUTE ON FUNCTION
    tailstream.permitted_org(text),
    tailstream.retention_floor(text),
    tailstream.is_retained(text, timestamptz),
    tailstream.replay_floor(text, timestamptz)
TO tailstream_reader;
