-- ts_replay: the range, the retention, the plan.
\set SHOW_CONTEXT never
SELECT accepted FROM ts_ingest('replay', (SELECT json_agg(json_build_object('path', '/' || n, 'created_at', now() - n * interval '1 minute'))
                                          FROM generate_series(0, 9) n));
SELECT path FROM ts_replay('replay', now() - interval '5 minutes 30 seconds', now() - interval '2 minutes 30 seconds') ORDER BY created_at, id;
SELECT path FROM ts_replay('replay', now() - interval '1 hour', now()) WHERE path > '/5' ORDER BY created_at DESC LIMIT 2;
SELECT count(*) FROM ts_replay('nobody', now() - interval '1 hour', now());
-- Too early
SET timezone = 'UTC';
SET datestyle = 'ISO';
DO $$
DECLARE hint text;
BEGIN
    PERFORM * FROM ts_replay('replay', now() - interval '4 hours', now());
EXCEPTION WHEN datetime_field_overflow THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RAISE NOTICE '%', regexp_replace(SQLERRM, '\d{4}-\S+ [\d:.]+\+00', '<time>');
    RAISE NOTICE '%', regexp_replace(hint, '\d{4}-\S+ [\d:.]+\+00', '<time>');
END $$;
SELECT * FROM ts_replay('', now(), now());
SELECT count(*) FROM ts_replay(NULL, now() - interval '1 hour', now());
