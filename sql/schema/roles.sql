-- Roles are global to the server and outlive the extension: another database may use them.
DO $roles$
DECLARE
    wanted text;
BEGIN
    IF pg_catalog.getdatabaseencoding() <> 'UTF8' THEN
        RAISE EXCEPTION 'tailstream needs a database with encoding UTF8, this one has %', pg_catalog.getdatabaseencoding()
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'CREATE DATABASE … ENCODING ''UTF8'' TEMPLATE template0';
    END IF;
    FOREACH wanted IN ARRAY ARRAY['tailstream_writer', 'tailstream_reader', 'tailstream_admin'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- CREATE EXTENSION in another database was faster.
            END;
        END IF;
    END LOOP;
    IF NOT (pg_catalog.pg_has_role('tailstream_admin', 'tailstream_writer', 'MEMBER')
            AND pg_catalog.pg_has_role('tailstream_admin', 'tailstream_reader', 'MEMBER')) THEN
        GRANT tailstream_writer, tailstream_reader TO tailstream_admin;
    END IF;
END
$roles$;
