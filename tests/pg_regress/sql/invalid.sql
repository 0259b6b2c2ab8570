-- A batch with an invalid event is refused as a whole, with the event, the field and the value.
\set SHOW_CONTEXT never
CREATE FUNCTION refusal(event text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text; hint text;
BEGIN
    PERFORM ts_ingest_ndjson('invalid', event);
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n  ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END $$;
\pset format unaligned
\pset tuples_only on
SELECT event || E'\n  ' || refusal(event) FROM unnest(ARRAY[
    '{"status":"abc"}', '{"status":"200"}', '{"status":200.5}', '{"status":2147483648}', '{"path":7}', '{"rt":"x"}', '{"rt":3e6}',
    '{"bytes":9223372036854775808}', '{"ip":"10.0.0.256"}', '{"ts":"yesterday"}', '{"ts":"2024-02-30T00:00:00Z"}', '{"ts":"0000-01-01T00:00:00Z"}',
    '{"ts":1e300}', '{"ts":true}', '{"a":1,"a":2}', '{"status":1,"status":2}', '{"a":{"b":1,"b":2}}', '{"a":"\u0000"}', '{"a":"\ud800"}',
    '{"a":1e200000}', '{"a":NaN}', '[{}]', '7', '{', '{}x', '{"a":01}', E'{}\n{"status":"second"}']) event;
SELECT refusal(format('{"a":%s%s}', repeat('[', 200), repeat(']', 200)));
SELECT ts_ingest('invalid', '[{},{"host":"good"},{"status":-1e99}]');
SELECT count(*) FROM tailstream.events WHERE org_id = 'invalid';
DROP FUNCTION refusal;
