-- Pages, tokens and durable cursors. No workers here, so all of it is by event time.
\set SHOW_CONTEXT never
SELECT date_trunc('minute', now()) AS minute \gset
SELECT accepted FROM ts_ingest('pages', (
    SELECT json_agg(json_build_object('created_at', timestamptz :'minute' - make_interval(mins => 10 - n),
                                      'path', CASE n % 2 WHEN 0 THEN '/api/' ELSE '/' END || n, 'method', 'GET',
                                      'status', CASE n % 3 WHEN 0 THEN 500 + n ELSE 200 END, 'host', 'web-' || n % 2, 'plan', n % 2))
    FROM generate_series(1, 6) n));
\pset null '(null)'
-- A page, and the next one behind its last row.
SELECT path, status, kind, gap_from, length(cursor) AS length FROM ts_replay_page('pages', NULL, NULL, page_size => 2);
SELECT cursor AS second FROM ts_replay_page('pages', NULL, NULL, page_size => 2) LIMIT 1 OFFSET 1 \gset
SELECT path FROM ts_replay_page('pages', NULL, NULL, :'second', page_size => 2);
SELECT path FROM ts_replay_page('pages', NULL, NULL, page_size => 2, direction => 'backward');
SELECT cursor AS last FROM ts_replay_page('pages', NULL, NULL, page_size => 2, direction => 'backward') LIMIT 1 OFFSET 1 \gset
SELECT path FROM ts_replay_page('pages', NULL, NULL, :'last', direction => 'backward');
SELECT ts_event(p) ->> 'path' AS path FROM ts_replay_page('pages', NULL, NULL, :'second', page_size => 1) p;
-- Filters.
SELECT path, status FROM ts_replay_page('pages', NULL, NULL, filter => '{"status": "5xx"}');
SELECT path FROM ts_replay_page('pages', NULL, NULL, filter => '{"status": [503, "2xx"], "path": "/api/", "metadata": {"plan": 0}}');
SELECT path FROM ts_replay_page('pages', NULL, NULL, filter => '{"method": ["PUT", "GET"], "host": "web-1"}');
-- What is refused.
SELECT path FROM ts_replay_page('pages', NULL, NULL, :'second', direction => 'backward');
SELECT path FROM ts_replay_page('pages', NULL, NULL, :'last');
SELECT path FROM ts_replay_page('others', NULL, NULL, :'second');
SELECT path FROM ts_replay_page('pages', NULL, NULL, 'x' || :'second');
SELECT path FROM ts_replay_page('pages', NULL, NULL, reverse(:'second'));
SELECT path FROM ts_replay_page('pages', NULL, NULL, '');
SELECT path FROM ts_replay_page(NULL, NULL, NULL);
SELECT path FROM ts_replay_page('pages', NULL, NULL, page_size => 0);
SELECT path FROM ts_replay_page('pages', NULL, NULL, page_size => NULL);
SELECT path FROM ts_replay_page('pages', NULL, NULL, direction => 'up');
SELECT path FROM ts_replay_page('pages', NULL, NULL, filter => '{"stat": 1}');
SELECT path FROM ts_replay_page('pages', NULL, NULL, filter => '{"status": "6x"}');
SELECT path FROM ts_replay_page('pages', NULL, NULL, filter => '[1]');
-- Durable cursors.
SELECT ts_cursor_create('reader', 'pages', order_by => 'event_time', filter => '{"status": "2xx"}');
SELECT ts_cursor_create('reader', 'pages', order_by => 'event_time');
SELECT ts_cursor_create('late', 'pages', start => timestamptz :'minute' - interval '5 minutes', order_by => 'event_time');
SELECT ts_cursor_create('token', 'pages', start => :'second', order_by => 'event_time');
SELECT path FROM ts_cursor_fetch('late');
SELECT path FROM ts_cursor_fetch('token', 1);
SELECT path FROM ts_cursor_fetch('reader', 2);
SELECT cursor AS fetched FROM ts_cursor_fetch('reader', 2) WHERE path = '/api/2' \gset
SELECT ts_cursor_ack('reader', :'fetched');
SELECT ts_cursor_ack('reader', :'fetched');
SELECT path FROM ts_cursor_fetch('reader', 1, auto_ack => true);
SELECT path FROM ts_cursor_fetch('reader', 1, auto_ack => true);
SELECT path FROM ts_cursor_fetch('reader', 1, auto_ack => true);
SELECT name, org_id, order_by, filter, lag_events FROM tailstream.cursors ORDER BY name;
SELECT ts_cursor_seek('reader', timestamptz :'minute' - interval '6 minutes');
SELECT path FROM ts_cursor_fetch('reader', 1);
SELECT ts_cursor_ack('reader', :'fetched');
SELECT ts_cursor_ack('late', :'second');
SELECT ts_cursor_ack('late', :'fetched');
SELECT ts_cursor_create('reader', 'others', order_by => 'event_time');
SELECT ts_cursor_fetch('reader');
SELECT path FROM ts_cursor_fetch('reader', org => 'others');
SELECT ts_cursor_drop('reader', 'others');
SELECT ts_cursor_drop('reader');
SELECT ts_cursor_drop('reader');
SELECT ts_cursor_create('', 'pages');
SELECT ts_cursor_create('c', 'pages', order_by => 'id');
SELECT ts_cursor_create('c', 'pages');
SELECT ts_cursor_create('c', 'pages', start => 'yesterday-ish', order_by => 'event_time');
SELECT path FROM ts_cursor_fetch('late', timeout => '1 second');
SELECT * FROM ts_replay_live('pages');
-- Schedules: two seconds for each minute, one at the most.
SELECT path, play_at FROM ts_replay_schedule('pages', NULL, NULL, speed => 30, max_gap => '1 minute');
SELECT path, play_at FROM ts_replay_schedule('pages', NULL, NULL, speed => 30, max_gap => '1 s') LIMIT 3;
SELECT cursor AS third FROM ts_replay_schedule('pages', NULL, NULL, speed => 30, max_gap => '1 s') LIMIT 1 OFFSET 2 \gset
SELECT path, play_at FROM ts_replay_schedule('pages', NULL, NULL, speed => 30, max_gap => '1 s', after => :'third');
SELECT path FROM ts_replay_schedule('pages', NULL, NULL, speed => 0);
SELECT path FROM ts_replay_schedule('pages', NULL, NULL, max_gap => '-1 s');
SELECT path FROM ts_replay_schedule('pages', NULL, NULL, max_rate => 0);
SELECT events FROM ts_erase_org('pages');
SELECT count(*) FROM tailstream.cursors;
