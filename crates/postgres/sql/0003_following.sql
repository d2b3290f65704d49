-- Loads that bring along what the found records name, as a function for where no statement may be
-- kept. It still knows nothing about sessions but where a record says whose it is, and where an
-- index lists others.

CREATE FUNCTION load_following(
    in_partition integer, in_kinds text[], in_names text[], in_subjects text[], in_at_least bigint
)
    RETURNS TABLE (
        place bigint, version bigint, format smallint, record text, kind text, name text)
    LANGUAGE plpgsql STABLE
    SET search_path FROM CURRENT
    SET enable_seqscan = off
    SET enable_hashjoin = off
    SET enable_mergejoin = off
    SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    -- One statement on the caller's snapshot: all of it is one state.
    RETURN QUERY
        WITH asked AS MATERIALIZED (
            SELECT k.place, k.kind, r.version, r.format, r.record, r.subject
            FROM unnest(in_kinds, in_names) WITH ORDINALITY AS k (kind, name, place)
            CROSS JOIN LATERAL (
                SELECT o.version, o.format, o.record, o.subject, o.invisible_at FROM records o
                WHERE o.partition = in_partition AND o.kind = k.kind AND o.name = k.name
                OFFSET 0) r
            WHERE r.invisible_at IS NULL OR r.invisible_at > v_now
        ), named AS (
            SELECT f.kind, a.subject AS name
            FROM asked a CROSS JOIN unnest(in_subjects) AS f (kind)
            WHERE a.kind = 'session' AND a.subject IS NOT NULL
            UNION
            SELECT 'session', s.sid
            FROM asked a CROSS JOIN json_array_elements_text(a.record -> 's') AS s (sid)
            WHERE a.kind = 'index' AND json_array_length(a.record -> 's') >= in_at_least
        )
        SELECT a.place, a.version, a.format, a.record::text, NULL::text, NULL::text FROM asked a
        UNION ALL
        SELECT NULL::bigint, r.version, r.format, r.record::text, r.kind, r.name
        FROM named n
        CROSS JOIN LATERAL (
            SELECT o.version, o.format, o.record, o.kind, o.name, o.invisible_at FROM records o
            WHERE o.partition = in_partition AND o.kind = n.kind AND o.name = n.name OFFSET 0) r
        WHERE r.invisible_at IS NULL OR r.invisible_at > v_now;
END
$$;

COMMENT ON FUNCTION load_following(integer, text[], text[], text[], bigint) IS
    'Visible records of one partition with the place of their key in the request, and, without a '
    'place, those that they name: of sessions these records of their subject, of indices their '
    'sessions where they list at least so many (null: none).';
COMMENT ON COLUMN records.subject IS
    'Whose it is; of a session this leads to the records of its subject.';
COMMENT ON COLUMN records.record IS
    'All of the record. This is what Cloakroom reads; the columns before it are for people, but '
    'for the subject of a session.';
