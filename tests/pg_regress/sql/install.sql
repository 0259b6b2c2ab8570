-- The extension in a new database. All further tests use it.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION tailstream CASCADE;
CREATE EXTENSION IF NOT EXISTS pg_cron;
RESET client_min_messages;
SELECT e.extname, e.extversion, e.extnamespace::regnamespace AS schema, obj_description(e.oid, 'pg_extension') AS description
FROM pg_extension e WHERE e.extname = 'tailstream';
SELECT ts_version() = extversion AS same_version FROM pg_extension WHERE extname = 'tailstream';
-- What users call, with arguments and results.
SELECT p.oid::regprocedure AS function, pg_get_function_result(p.oid) AS result
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid
WHERE e.extname = 'tailstream' AND p.proname LIKE 'ts\_%' ORDER BY 1::text COLLATE "C";
\d tailstream.log_events
SELECT hypertable_name, num_dimensions FROM timescaledb_information.hypertables WHERE hypertable_schema = 'tailstream' ORDER BY 1;
SELECT hypertable_name, column_name, time_interval, integer_interval FROM timescaledb_information.dimensions
WHERE hypertable_schema = 'tailstream' ORDER BY 1, 2;
SELECT name, setting, unit, context, min_val, max_val, enumvals FROM pg_settings WHERE name LIKE 'tailstream.%' ORDER BY 1;
