-- What is stored. Names are unqualified: the migration runs with the schema as its search path.
--
-- Text that identifies something is compared byte by byte (collation "C"), so that neither the
-- database's locale nor an upgrade of its libraries can change an order or damage an index.

CREATE TABLE schema_version (
    version integer PRIMARY KEY,
    readable_from integer NOT NULL,
    release text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE schema_version IS 'One row per step that brought this schema up to date.';
COMMENT ON COLUMN schema_version.version IS 'Version that the step led to; the greatest counts.';
COMMENT ON COLUMN schema_version.readable_from IS
    'Oldest version whose release still works on this one.';
COMMENT ON COLUMN schema_version.release IS 'Release of Cloakroom that took the step.';
COMMENT ON COLUMN schema_version.applied_at IS 'When it was taken.';

CREATE TABLE partitions (
    partition integer PRIMARY KEY,
    last_tick bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

COMMENT ON TABLE partitions IS
    'One row per partition. A commit locks its row first, so commits of a partition queue here.';
COMMENT ON COLUMN partitions.partition IS 'Number of the partition, from 0.';
COMMENT ON COLUMN partitions.last_tick IS
    'Last tick drawn: milliseconds since 1970 in the upper 48 bits, a count in the lower 16.';

CREATE TABLE records (
    partition integer NOT NULL,
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    review_at timestamptz,
    invisible_at timestamptz,
    subject text COLLATE "C",
    title text,
    state text,
    reason text,
    epoch bigint,
    created_at timestamptz,
    last_seen_at timestamptz,
    ended_at timestamptz,
    expires_at timestamptz,
    client_ip inet,
    format smallint NOT NULL,
    record json NOT NULL,
    PRIMARY KEY (partition, kind, name)
) WITH (
    -- Room for the next version beside the last: what a touch changes is in no index, so that a
    -- touch is a heap-only update.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);

CREATE INDEX records_review ON records (partition, review_at) WHERE review_at IS NOT NULL;

COMMENT ON TABLE records IS
    'All records. Read them through the views sessions, subjects, users and so on; never write.';
COMMENT ON COLUMN records.partition IS 'Partition that the record lives in.';
COMMENT ON COLUMN records.kind IS 'What it is: session, data, subject, index, user and so on.';
COMMENT ON COLUMN records.name IS 'Its name within its kind: a sid, a subject, a keyed hash.';
COMMENT ON COLUMN records.version IS 'Tick of the commit that wrote it.';
COMMENT ON COLUMN records.review_at IS 'When the sweeper looks at it next.';
COMMENT ON COLUMN records.invisible_at IS 'From this instant on it counts as absent.';
COMMENT ON COLUMN records.subject IS 'Whose it is.';
COMMENT ON COLUMN records.title IS 'What people call it: an identifier, the name of an API key.';
COMMENT ON COLUMN records.state IS 'Where it is in its life.';
COMMENT ON COLUMN records.reason IS 'Why it ended.';
COMMENT ON COLUMN records.epoch IS 'Epoch of a subject or partition; of a session, at opening.';
COMMENT ON COLUMN records.created_at IS 'When it was made.';
COMMENT ON COLUMN records.last_seen_at IS 'When it was last used, roughly.';
COMMENT ON COLUMN records.ended_at IS 'When it ended, or was disabled.';
COMMENT ON COLUMN records.expires_at IS 'When it ends by itself at the latest.';
COMMENT ON COLUMN records.client_ip IS 'Address it was opened from.';
COMMENT ON COLUMN records.format IS 'Format of the record.';
COMMENT ON COLUMN records.record IS
    'All of the record. This is what Cloakroom reads; the columns before it are for people.';

CREATE TABLE feed (
    partition integer NOT NULL,
    tick bigint NOT NULL,
    place integer NOT NULL,
    kind text NOT NULL,
    sid text COLLATE "C",
    subject text COLLATE "C",
    format smallint NOT NULL,
    entry json NOT NULL,
    PRIMARY KEY (partition, tick, place)
);

COMMENT ON TABLE feed IS
    'What followers must know, in the order of the commits. Kept for minutes; without content.';
COMMENT ON COLUMN feed.partition IS 'Partition of the commit.';
COMMENT ON COLUMN feed.tick IS 'Tick of the commit; tick_time(tick) is its time.';
COMMENT ON COLUMN feed.place IS 'Place among the entries of the commit.';
COMMENT ON COLUMN feed.kind IS 'What changed.';
COMMENT ON COLUMN feed.sid IS 'Session that it is about.';
COMMENT ON COLUMN feed.subject IS 'Subject that it is about.';
COMMENT ON COLUMN feed.format IS 'Format of the entry.';
COMMENT ON COLUMN feed.entry IS 'All of the entry.';

CREATE TABLE audit (
    partition integer NOT NULL,
    tick bigint NOT NULL,
    place integer NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    sid text COLLATE "C",
    subject text COLLATE "C",
    format smallint NOT NULL,
    entry json NOT NULL,
    PRIMARY KEY (partition, tick, place)
);

COMMENT ON TABLE audit IS 'Audit events, in the order of the commits. Kept for events.keep.';
COMMENT ON COLUMN audit.partition IS 'Partition of the commit.';
COMMENT ON COLUMN audit.tick IS 'Tick of the commit; tick_time(tick) is its time.';
COMMENT ON COLUMN audit.place IS 'Place among the events of the commit.';
COMMENT ON COLUMN audit.kind IS 'What happened, for example session.ended.';
COMMENT ON COLUMN audit.at IS 'When it happened.';
COMMENT ON COLUMN audit.sid IS 'Session that it happened to.';
COMMENT ON COLUMN audit.subject IS 'Subject that it happened to.';
COMMENT ON COLUMN audit.format IS 'Format of the event.';
COMMENT ON COLUMN audit.entry IS 'All of the event.';

CREATE FUNCTION tick_time(tick bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT to_timestamp((tick >> 16) / 1000.0) $$;

COMMENT ON FUNCTION tick_time(bigint) IS 'The time of a tick, to the millisecond.';
