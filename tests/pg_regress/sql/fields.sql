-- What becomes of each field and alias, and what ts_event gives back.
\set SHOW_CONTEXT never
CREATE FUNCTION stored(event text) RETURNS TABLE (columns jsonb, event_again json) LANGUAGE plpgsql AS $$
DECLARE batch bigint := (SELECT batch_id FROM ts_ingest('fields', event::json));
BEGIN
    RETURN QUERY SELECT jsonb_strip_nulls(to_jsonb(e) - '{id,org_id,tier,created_at}'::text[]), (ts_event(e)::jsonb - 'created_at')::json
    FROM tailstream.events e WHERE e.id = batch << 16;
END $$;
\pset format unaligned
SELECT * FROM stored('{}');
SELECT * FROM stored('{"host":"web-01","method":"POST","path":"/x","status":201,"response_time":12,"response_size":99,"user_agent":"UA","referrer":"/r","ip_address":"10.0.0.1"}');
-- As Tailstream's shippers send them
SELECT * FROM stored('{"host":"web-01","path":"/api/users","method":"GET","status":200,"rt":0.245,"bytes":1024,"src":"192.168.1.100","ip":"192.168.1.1","user_agent":"x"}');
SELECT * FROM stored('{"rt":0.2455}');
SELECT * FROM stored('{"rt":1e-9,"response_size":5e3,"status":404.0}');
SELECT * FROM stored('{"rt":1,"response_time":7,"bytes":1,"response_size":2,"ip":"::1","ip_address":"::2"}');
SELECT * FROM stored('{"ip":"10.1.2.3/8"}');
SELECT * FROM stored('{"ip":"2001:DB8::0:1/64"}');
-- What has no column
SELECT * FROM stored('{"a":1.10,"b":[true,null],"c":{"d":"e"}}');
SELECT * FROM stored('{"metadata":{"a":1,"b":2},"a":3}');
SELECT * FROM stored('{"metadata":{"path":"/inside","status":1},"path":"/outside"}');
SELECT * FROM stored('{"metadata":"text"}');
SELECT * FROM stored('{"metadata":{}}');
SELECT * FROM stored('{"host":null,"status":null,"x":null}');
SELECT * FROM stored('{"path":"\u00fc\ud83e\udd80\n"}');
-- Times; an event without one is of now.
CREATE FUNCTION time_of(value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE batch bigint := (SELECT batch_id FROM ts_ingest('old', format('{"ts":%s}', value)::json));
BEGIN
    RETURN (SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') FROM tailstream.events WHERE id = batch << 16);
END $$;
SELECT ts_create_tier('century', '36500 days'), ts_set_org_tier('old', 'century');
SELECT value, time_of(value) FROM unnest(ARRAY['"2024-03-15T10:30:45.123456+00:00"', '"2024-03-15T10:30:45Z"', '"2024-03-15T12:30:45.5+02:00"',
    '"2024-03-15 10:30:45"', '"2024-03-15 10:30:45.000001"', '1710498645', '1710498645.123456', '1710498645123', '1710498645123.456']) value;
DROP FUNCTION stored, time_of;
SELECT ts_erase_org('old') IS NOT NULL AS erased, ts_drop_tier('century');
