-- The two calls that every request makes, as functions: their plans are kept by the server's
-- process, so they cost no planning even where no statement may be kept from one transaction to
-- the next. They know nothing about sessions.
--
-- Their settings keep the plans on the indices, and have each made once: a plan may be made while a
-- table is nearly empty and is used long after it has grown. For the same reason records are looked
-- up in subqueries (OFFSET 0): joined, they could be found by the partition alone, and be compared
-- one by one with what is asked for.

CREATE FUNCTION load_records(in_partition integer, in_kinds text[], in_names text[])
    RETURNS TABLE (place bigint, version bigint, format smallint, record text)
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
        SELECT k.place, r.version, r.format, r.record::text
        FROM unnest(in_kinds, in_names) WITH ORDINALITY AS k (kind, name, place)
        CROSS JOIN LATERAL (
            SELECT o.version, o.format, o.record, o.invisible_at FROM records o
            WHERE o.partition = in_partition AND o.kind = k.kind AND o.name = k.name OFFSET 0) r
        WHERE r.invisible_at IS NULL OR r.invisible_at > v_now;
END
$$;

COMMENT ON FUNCTION load_records(integer, text[], text[]) IS
    'Visible records of one partition, with the place of their key in the request.';

-- Arguments, each array in one order: what is expected (first of what is only read, then of what
-- is written), what is written, what is logged.
CREATE FUNCTION commit_batch(
    in_partition integer, in_wait_ms integer,
    in_kinds text[], in_names text[], in_expected bigint[],
    in_put boolean[], in_write_kinds text[], in_write_names text[],
    in_keep boolean[], in_review_at timestamptz[], in_invisible_at timestamptz[],
    in_subjects text[], in_titles text[], in_states text[], in_reasons text[], in_epochs bigint[],
    in_created_at timestamptz[], in_last_seen_at timestamptz[], in_ended_at timestamptz[],
    in_expires_at timestamptz[], in_client_ips inet[], in_format smallint, in_records text[],
    in_feed_kinds text[], in_feed_sids text[], in_feed_subjects text[], in_feed_entries text[],
    in_audit_kinds text[], in_audit_at timestamptz[], in_audit_sids text[],
    in_audit_subjects text[], in_audit_entries text[]
)
    RETURNS TABLE (tick bigint, conflict bigint, is_durable boolean)
    LANGUAGE plpgsql VOLATILE
    SET search_path FROM CURRENT
    SET enable_seqscan = off
    SET enable_hashjoin = off
    SET enable_mergejoin = off
    SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_tick bigint;
    v_now timestamptz;
    v_conflict bigint;
BEGIN
    -- A commit that would wait past its caller's patience is given up before it changes anything.
    PERFORM set_config('lock_timeout', in_wait_ms::text, true);

    -- The partition's row is locked until the transaction is over and visible: whoever draws the
    -- next tick sees all that was written under this one.
    UPDATE partitions SET last_tick = greatest(
            (extract(epoch FROM date_trunc('milliseconds', clock_timestamp())) * 1000)::bigint
                << 16,
            last_tick + 1)
        WHERE partition = in_partition
        RETURNING last_tick INTO v_tick;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_now := clock_timestamp();

    SELECT e.place INTO v_conflict
        FROM unnest(in_kinds, in_names, in_expected)
            WITH ORDINALITY AS e (kind, name, expected, place)
        LEFT JOIN LATERAL (
            SELECT o.version, o.invisible_at FROM records o
            WHERE o.partition = in_partition AND o.kind = e.kind AND o.name = e.name OFFSET 0) r
            ON r.invisible_at IS NULL OR r.invisible_at > v_now
        WHERE coalesce(r.version, 0) <> e.expected
        ORDER BY e.place LIMIT 1;
    IF FOUND THEN
        RETURN QUERY SELECT NULL::bigint, v_conflict, NULL::boolean;
        RETURN;
    END IF;

    IF false = ANY (in_put) THEN
        -- Nobody moves them meanwhile: the partition is locked.
        DELETE FROM records WHERE ctid = ANY (ARRAY(
            SELECT r.ctid
            FROM unnest(in_put, in_write_kinds, in_write_names) AS w (is_put, kind, name)
            CROSS JOIN LATERAL (
                SELECT o.ctid FROM records o
                WHERE o.partition = in_partition AND o.kind = w.kind AND o.name = w.name
                OFFSET 0) r
            WHERE NOT w.is_put));
    END IF;

    IF true = ANY (in_put) THEN
        -- A filing is kept of what is visible: what has expired is a new record's predecessor no
        -- more than what never was.
        INSERT INTO records AS r (
            partition, kind, name, version, review_at, invisible_at, subject, title, state,
            reason, epoch, created_at, last_seen_at, ended_at, expires_at, client_ip, format,
            record)
        SELECT in_partition, w.kind, w.name, v_tick,
            CASE WHEN w.keep THEN (
                SELECT o.review_at FROM records o
                WHERE o.partition = in_partition AND o.kind = w.kind AND o.name = w.name
                    AND (o.invisible_at IS NULL OR o.invisible_at > v_now))
            ELSE w.review_at END,
            w.invisible_at, w.subject, w.title, w.state, w.reason, w.epoch, w.created_at,
            w.last_seen_at, w.ended_at, w.expires_at, w.client_ip, in_format, w.record::json
        FROM unnest(
            in_put, in_write_kinds, in_write_names, in_keep, in_review_at, in_invisible_at,
            in_subjects, in_titles, in_states, in_reasons, in_epochs, in_created_at,
            in_last_seen_at, in_ended_at, in_expires_at, in_client_ips, in_records
        ) AS w (
            is_put, kind, name, keep, review_at, invisible_at, subject, title, state, reason,
            epoch, created_at, last_seen_at, ended_at, expires_at, client_ip, record)
        WHERE w.is_put
        ON CONFLICT (partition, kind, name) DO UPDATE SET
            version = excluded.version, review_at = excluded.review_at,
            invisible_at = excluded.invisible_at, subject = excluded.subject,
            title = excluded.title, state = excluded.state, reason = excluded.reason,
            epoch = excluded.epoch, created_at = excluded.created_at,
            last_seen_at = excluded.last_seen_at, ended_at = excluded.ended_at,
            expires_at = excluded.expires_at, client_ip = excluded.client_ip,
            format = excluded.format, record = excluded.record;
    END IF;

    IF cardinality(in_feed_entries) > 0 THEN
        INSERT INTO feed (partition, tick, place, kind, sid, subject, format, entry)
        SELECT in_partition, v_tick, l.place - 1, l.kind, l.sid, l.subject, in_format,
            l.entry::json
        FROM unnest(in_feed_kinds, in_feed_sids, in_feed_subjects, in_feed_entries)
            WITH ORDINALITY AS l (kind, sid, subject, entry, place);
    END IF;

    IF cardinality(in_audit_entries) > 0 THEN
        INSERT INTO audit (partition, tick, place, kind, at, sid, subject, format, entry)
        SELECT in_partition, v_tick, l.place - 1, l.kind, l.at, l.sid, l.subject, in_format,
            l.entry::json
        FROM unnest(
            in_audit_kinds, in_audit_at, in_audit_sids, in_audit_subjects, in_audit_entries)
            WITH ORDINALITY AS l (kind, at, sid, subject, entry, place);
    END IF;

    RETURN QUERY SELECT v_tick, NULL::bigint,
        current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off';
END
$$;

COMMENT ON FUNCTION commit_batch IS
    'Applies a batch to one partition where every version is the expected one. No row: there is '
    'no such partition. A conflict is the place of the first version that has moved.';

-- For people.

CREATE VIEW sessions AS
    SELECT name AS sid, subject, state, reason, created_at, last_seen_at, ended_at, expires_at,
        client_ip, epoch AS subject_epoch, partition, version, tick_time(version) AS changed_at,
        review_at
    FROM records WHERE kind = 'session';
COMMENT ON VIEW sessions IS
    'Sessions. A live one is refused all the same once it is idle too long, its subject''s epoch '
    'is above its own, or expires_at has come.';
COMMENT ON COLUMN sessions.sid IS 'Id of the session; it proves nothing.';
COMMENT ON COLUMN sessions.subject IS 'Whose it is; none before a sign-in.';
COMMENT ON COLUMN sessions.state IS 'live or ended.';
COMMENT ON COLUMN sessions.reason IS 'Why it ended.';
COMMENT ON COLUMN sessions.created_at IS 'When it was opened.';
COMMENT ON COLUMN sessions.last_seen_at IS 'When it was last used, to within a minute.';
COMMENT ON COLUMN sessions.ended_at IS 'When it ended.';
COMMENT ON COLUMN sessions.expires_at IS 'Its absolute end.';
COMMENT ON COLUMN sessions.client_ip IS 'Address it was opened from.';
COMMENT ON COLUMN sessions.subject_epoch IS 'The subject''s epoch when it was opened.';
COMMENT ON COLUMN sessions.partition IS 'Partition it lives in.';
COMMENT ON COLUMN sessions.version IS 'Tick of its last change.';
COMMENT ON COLUMN sessions.changed_at IS 'Time of its last change.';
COMMENT ON COLUMN sessions.review_at IS 'When the sweeper looks at it next.';

CREATE VIEW session_data AS
    SELECT name AS sid, octet_length(record::text) AS bytes, partition, version,
        tick_time(version) AS changed_at, record
    FROM records WHERE kind = 'data';
COMMENT ON VIEW session_data IS 'What applications keep in their sessions.';
COMMENT ON COLUMN session_data.sid IS 'Session that it belongs to.';
COMMENT ON COLUMN session_data.bytes IS 'Size as stored.';
COMMENT ON COLUMN session_data.record IS 'The data, in the member d.';

CREATE VIEW subjects AS
    SELECT name AS subject, state, epoch, ended_at AS disabled_at, partition, version,
        tick_time(version) AS changed_at
    FROM records WHERE kind = 'subject';
COMMENT ON VIEW subjects IS 'Subjects of sessions: epoch and state.';
COMMENT ON COLUMN subjects.subject IS 'The subject.';
COMMENT ON COLUMN subjects.state IS 'enabled or disabled.';
COMMENT ON COLUMN subjects.epoch IS 'Counts sign-outs everywhere; sessions of a lower one are over.';
COMMENT ON COLUMN subjects.disabled_at IS 'Since when it can''t sign in.';

CREATE VIEW users AS
    SELECT name AS id, title AS identifier, created_at, partition, version,
        tick_time(version) AS changed_at
    FROM records WHERE kind = 'user';
COMMENT ON VIEW users IS 'The directory. Password hashes are in records only.';
COMMENT ON COLUMN users.id IS 'Id of the user: the subject of the user''s sessions.';
COMMENT ON COLUMN users.identifier IS 'What the user types to sign in.';
COMMENT ON COLUMN users.created_at IS 'When the user was created.';

CREATE VIEW signing_keys AS
    SELECT name AS kid, title AS algorithm, state, created_at, ended_at AS retired_at,
        expires_at AS removed_at, version
    FROM records WHERE kind = 'signing_key';
COMMENT ON VIEW signing_keys IS 'Keys that sign access tokens; private parts are sealed.';
COMMENT ON COLUMN signing_keys.state IS 'next, active, retired or revoked.';

CREATE VIEW api_keys AS
    SELECT name AS id, title AS name, created_at, last_seen_at AS last_used_at, expires_at, version
    FROM records WHERE kind = 'api_key';
COMMENT ON VIEW api_keys IS 'Keys of backends. Of their secrets only hashes are stored.';
COMMENT ON COLUMN api_keys.last_used_at IS 'When it was last used, roughly.';

CREATE VIEW denied_tokens AS
    SELECT name AS jti, expires_at, partition, version FROM records WHERE kind = 'denied_token';
COMMENT ON VIEW denied_tokens IS 'Access tokens that were denied before their end.';
