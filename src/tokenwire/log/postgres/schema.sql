-- Tables of schema version 1; {s} is the schema's name.
--
-- What every append changes lies in `head`, a row of some 70 bytes that no index but its key covers,
-- in pages that are half free: the change stays in its page (HOT) and the next one clears it up.
-- Leases change every few seconds and are found by their end, so they have a table of their own.
-- Text is compared by its bytes (COLLATE "C"): no change of a system's collation can touch an index.
CREATE TABLE {s}.version (program text NOT NULL, number integer NOT NULL);
CREATE TABLE {s}.stream (
    sid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    owner text COLLATE "C" NOT NULL,
    created timestamptz NOT NULL,
    closed_at timestamptz,
    thread text COLLATE "C",
    key text COLLATE "C",
    meta bytea NOT NULL
);
CREATE INDEX stream_thread ON {s}.stream (thread, sid) WHERE thread IS NOT NULL;
CREATE INDEX stream_ended ON {s}.stream (closed_at) WHERE closed_at IS NOT NULL AND thread IS NULL;
-- `nonce` tells a log from another one that has its number after a failover lost the first.
CREATE TABLE {s}.head (
    sid bigint PRIMARY KEY, nonce bigint NOT NULL, epoch integer NOT NULL, tail integer NOT NULL,
    commands integer NOT NULL, total bigint NOT NULL, closed text COLLATE "C"
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE {s}.lease (
    sid bigint PRIMARY KEY, epoch integer NOT NULL, claim bigint NOT NULL,
    owner text COLLATE "C" NOT NULL, until timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX lease_until ON {s}.lease (until);
-- `total`: bytes of the log up to and with this record, so that a page knows where to end.
CREATE TABLE {s}.record (
    sid bigint NOT NULL, "offset" integer NOT NULL, total bigint NOT NULL, data bytea NOT NULL,
    PRIMARY KEY (sid, "offset")
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE {s}.command (
    sid bigint NOT NULL, number integer NOT NULL, nonce bigint NOT NULL, data bytea NOT NULL,
    PRIMARY KEY (sid, number)
);
CREATE TABLE {s}.request_key (
    key text COLLATE "C" PRIMARY KEY, sid bigint NOT NULL, hash text COLLATE "C" NOT NULL
);
CREATE TABLE {s}.thread (
    name text COLLATE "C" PRIMARY KEY, logs integer NOT NULL, open integer NOT NULL,
    used timestamptz NOT NULL
);
CREATE INDEX thread_idle ON {s}.thread (used) WHERE open <= 0;
CREATE TABLE {s}.gone (name text COLLATE "C" PRIMARY KEY, at timestamptz NOT NULL);
CREATE INDEX gone_at ON {s}.gone (at);
-- Open logs that were deleted, so that no owner takes it for a failover and puts its log back.
CREATE TABLE {s}.erased (nonce bigint PRIMARY KEY, at timestamptz NOT NULL);
CREATE SEQUENCE {s}.change;
CREATE TABLE {s}.document (
    kind text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, changed bigint NOT NULL,
    data bytea NOT NULL, PRIMARY KEY (kind, name)
);
CREATE INDEX document_changed ON {s}.document (kind, changed);
-- Figures, so that they cost the same however many logs there are. Each connection adds to a row of
-- its own: one row would make all processes wait for each other's commits.
CREATE TABLE {s}.counter (
    slot integer PRIMARY KEY, logs bigint NOT NULL, ended_records bigint NOT NULL,
    ended_bytes bigint NOT NULL, tombstones bigint NOT NULL
) WITH (fillfactor = 20);
CREATE TABLE {s}.probe (slot integer PRIMARY KEY, at timestamptz NOT NULL) WITH (fillfactor = 20);
CREATE VIEW {s}.described AS
    SELECT s.name, h.epoch, coalesce(l.owner, s.owner) AS owner, h.tail, h.closed, s.meta,
        extract(epoch FROM s.created)::float8 AS created, h.total AS bytes,
        coalesce(extract(epoch FROM l.until), 0)::float8 AS lease_until, s.thread, s.sid, h.nonce,
        s.key, (SELECT k.hash FROM {s}.request_key k WHERE k.key = s.key) AS key_hash
    FROM {s}.stream s JOIN {s}.head h USING (sid) LEFT JOIN {s}.lease l USING (sid);
