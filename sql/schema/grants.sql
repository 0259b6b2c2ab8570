-- PUBLIC gets nothing. Each file grants the privileges on its own functions and views to the roles.
DO $revoke$
DECLARE
    member regprocedure;
BEGIN
    FOR member IN
        SELECT d.objid::regprocedure
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
        WHERE e.extname = 'tailstream' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
          AND d.classid = 'pg_catalog.pg_proc'::regclass AND d.deptype = 'e'
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', member);
    END LOOP;
END
$revoke$;

-- TimescaleDB lets any role drop any chunk with this function. Owners keep drop_chunks().
REVOKE EXECUTE ON FUNCTION _timescaledb_functions.drop_chunk(regclass) FROM PUBLIC;

GRANT USAGE ON SCHEMA tailstream TO tailstream_writer, tailstream_reader, tailstream_admin;
