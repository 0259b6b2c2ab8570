-- The purge job, and the job that trims pg_cron's run log.
CREATE FUNCTION tailstream.retention_jobs() RETURNS TABLE (job_name text, command text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    VALUES (format('tailstream-retention-%s', current_database()),
            format('SELECT count(*) FROM %I.ts_apply_retention()',
                   (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'tailstream'))),
           (format('tailstream-run-log-%s', current_database()),
            format('DELETE FROM cron.job_run_details WHERE end_time < now() - interval ''1 day'' AND jobid IN '
                   '(SELECT jobid FROM cron.job WHERE jobname IN (%L, %L))',
                   format('tailstream-retention-%s', current_database()), format('tailstream-run-log-%s', current_database())))
$body$;

-- ts_schedule_retention: has pg_cron run ts_apply_retention() (default: every minute). Returns the job's id.
-- A second call changes the schedule. If pg_cron is installed in another database, the error says what to run there.
CREATE FUNCTION ts_schedule_retention(schedule text DEFAULT '* * * * *') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    job    record;
    purge  text;
    job_id bigint;
    home   text := coalesce(current_setting('cron.database_name', true), 'postgres');
BEGIN
    PERFORM tailstream.require_unbound();
    IF schedule IS NULL THEN
        RAISE EXCEPTION 'argument "schedule" is NULL'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'ts_unschedule_retention() ends the schedule.';
    END IF;
    SELECT format('SELECT cron.schedule_in_database(%L, %L, %L, %L);', j.job_name, schedule, j.command, current_database())
    INTO purge FROM tailstream.retention_jobs() j LIMIT 1;
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') THEN
        IF current_setting('cron.database_name', true) IS NULL THEN
            RAISE EXCEPTION 'pg_cron is not loaded'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Add pg_cron to shared_preload_libraries, restart, and CREATE EXTENSION pg_cron; any other scheduler can run SELECT * FROM ts_apply_retention() as well.';
        ELSIF home = current_database() THEN
            RAISE EXCEPTION 'extension pg_cron is not installed'
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Run: CREATE EXTENSION pg_cron;';
        END IF;
        RAISE EXCEPTION 'pg_cron is installed in database "%"', home
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('Run there: %s SELECT cron.schedule(%L, ''17 * * * *'', %L);', purge,
                                (SELECT j.job_name FROM tailstream.retention_jobs() j OFFSET 1),
                                (SELECT j.command FROM tailstream.retention_jobs() j OFFSET 1));
    END IF;
    FOR job IN SELECT j.*, row_number() OVER () AS n FROM tailstream.retention_jobs() j LOOP
        IF job.n = 1 THEN
            job_id := cron.schedule(job.job_name, schedule, job.command);
        ELSE
            PERFORM cron.schedule(job.job_name, '17 * * * *', job.command);
        END IF;
    END LOOP;
    RETURN job_id;
END
$body$;

-- ts_unschedule_retention: removes the jobs of ts_schedule_retention(). Returns whether there were any.
CREATE FUNCTION ts_unschedule_retention() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    ended integer;
BEGIN
    PERFORM tailstream.require_unbound();
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') THEN
        RAISE EXCEPTION 'extension pg_cron is not installed in this database'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('Run in database "%s": SELECT cron.unschedule(jobname) FROM cron.job WHERE jobname IN (%s);',
                                coalesce(current_setting('cron.database_name', true), 'postgres'),
                                (SELECT string_agg(quote_literal(j.job_name), ', ') FROM tailstream.retention_jobs() j));
    END IF;
    SELECT count(cron.unschedule(c.jobid)) INTO ended
    FROM cron.job c JOIN tailstream.retention_jobs() j ON j.job_name = c.jobname;
    RETURN ended > 0;
END
$body$;

GRANT EXECUTE ON FUNCTION ts_schedule_retention(text), ts_unschedule_retention() TO tailstream_admin;
