-- ts_health: one row a component.
\set SHOW_CONTEXT never
SELECT component, status FROM ts_health();
SELECT ts_schedule_retention() > 0 AS scheduled;
SELECT component, status, detail FROM ts_health() WHERE component = 'retention job';
SELECT jobname, schedule, command FROM cron.job ORDER BY jobname;
SELECT ts_unschedule_retention();
SELECT ts_unschedule_retention();
SELECT component, status, detail FROM ts_health() WHERE component IN ('retention job', 'roles', 'drop_chunk');
