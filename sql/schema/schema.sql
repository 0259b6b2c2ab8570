-- The tables hold users' data, so they belong to the user and not to the extension: DROP EXTENSION
-- leaves them, CREATE EXTENSION finds them again, and pg_dump dumps them like any other table.
-- While TimescaleDB restores a dump, nothing is created here, because the dump contains it.

DO $schema$
DECLARE
    owner oid := (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'tailstream');
BEGIN
    IF owner IS NULL THEN
        CREATE SCHEMA tailstream;
        ALTER EXTENSION tailstream DROP SCHEMA tailstream;
    ELSIF owner <> current_user::regrole AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE oid = owner) THEN
        -- The owner of the schema could have created objects in it that would run with the extension's privileges.
        RAISE EXCEPTION 'schema "tailstream" exists and belongs to %', owner::regrole
            USING ERRCODE = 'insufficient_privilege', HINT = 'Drop or rename it, or give it to a superuser.';
    END IF;
END
$schema$;
