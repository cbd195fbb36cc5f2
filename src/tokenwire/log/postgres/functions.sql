-- What happens to one log is one function call and one transaction. Each statement in a function
-- sees what was committed before it; what must not change meanwhile is locked first, always in the
-- order head, lease, thread.
CREATE FUNCTION {s}.add_up(logs bigint, records bigint, bytes bigint, names bigint)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO {s}.counter AS c VALUES (pg_backend_pid() % 64, $1, $2, $3, $4)
    ON CONFLICT (slot) DO UPDATE SET logs = c.logs + $1, ended_records = c.ended_records + $2,
        ended_bytes = c.ended_bytes + $3, tombstones = c.tombstones + $4
$$;

CREATE FUNCTION {s}.describe(p_name text) RETURNS SETOF {s}.described LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM {s}.described d WHERE d.name = p_name;
END $$;

-- ok: made (or made before by the same call); held: by the key; reused, taken; erased: there was
-- such a log, which somebody deleted.
CREATE FUNCTION {s}.make(
    p_name text, p_owner text, p_meta bytea, p_thread text, p_key text, p_hash text,
    p_lease float8, p_nonce bigint, p_epoch integer
) RETURNS TABLE (status text, log text) LANGUAGE plpgsql AS $$
DECLARE
    v_sid bigint; v_nonce bigint; v_log text; v_hash text;
BEGIN
    IF p_key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(p_key, 8104));
        SELECT s.name, k.hash INTO v_log, v_hash
            FROM {s}.request_key k JOIN {s}.stream s USING (sid) WHERE k.key = p_key;
        IF FOUND THEN
            RETURN QUERY SELECT CASE WHEN v_hash = p_hash THEN 'held' ELSE 'reused' END, v_log;
            RETURN;
        END IF;
    END IF;
    PERFORM FROM {s}.gone g WHERE g.name = p_name;
    IF FOUND THEN
        RETURN QUERY SELECT 'taken', p_name;
        RETURN;
    END IF;
    PERFORM FROM {s}.erased e WHERE e.nonce = p_nonce;
    IF FOUND THEN
        RETURN QUERY SELECT 'erased', p_name;
        RETURN;
    END IF;
    INSERT INTO {s}.stream (name, owner, created, thread, key, meta)
        VALUES (p_name, p_owner, now(), p_thread, p_key, p_meta)
        ON CONFLICT (name) DO NOTHING RETURNING sid INTO v_sid;
    IF v_sid IS NULL THEN
        SELECT h.nonce INTO v_nonce
            FROM {s}.stream s JOIN {s}.head h USING (sid) WHERE s.name = p_name;
        RETURN QUERY SELECT CASE WHEN v_nonce = p_nonce THEN 'ok' ELSE 'taken' END, p_name;
        RETURN;
    END IF;
    INSERT INTO {s}.head VALUES (v_sid, p_nonce, p_epoch, 0, 0, 0, NULL);
    INSERT INTO {s}.lease VALUES
        (v_sid, p_epoch, p_nonce, p_owner, now() + make_interval(secs => p_lease));
    IF p_key IS NOT NULL THEN
        INSERT INTO {s}.request_key VALUES (p_key, v_sid, p_hash);
    END IF;
    IF p_thread IS NOT NULL THEN
        INSERT INTO {s}.thread AS t VALUES (p_thread, 1, 1, now()) ON CONFLICT (name)
            DO UPDATE SET logs = t.logs + 1, open = t.open + 1, used = greatest(t.used, now());
    END IF;
    PERFORM {s}.add_up(1, 0, 0, 0);
    RETURN QUERY SELECT 'ok', p_name;
END $$;

-- The plain case of many logs in one statement: the owner's next records of an open log. Returns
-- those that are in. Locks in the order of the numbers, as that is the order of the arguments.
CREATE FUNCTION {s}.append(
    p_sid bigint[], p_nonce bigint[], p_epoch integer[], p_first integer[], p_count integer[],
    p_bytes bigint[], r_sid bigint[], r_offset integer[], r_total bigint[], r_data bytea[]
) RETURNS SETOF bigint LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    WITH moved AS (
        UPDATE {s}.head h SET tail = h.tail + i.count, total = h.total + i.bytes
        FROM unnest(p_sid, p_nonce, p_epoch, p_first, p_count, p_bytes)
            AS i(sid, nonce, epoch, first, count, bytes)
        WHERE h.sid = i.sid AND h.nonce = i.nonce AND h.epoch = i.epoch AND h.tail = i.first - 1
            AND h.closed IS NULL
        RETURNING h.sid, h.total - i.bytes AS base
    ), stored AS (
        INSERT INTO {s}.record
        SELECT r.sid, r.place, m.base + r.total, r.data
        FROM moved m JOIN unnest(r_sid, r_offset, r_total, r_data) AS r(sid, place, total, data)
            USING (sid)
    )
    SELECT sid FROM moved;
END $$;

-- Any append, judged. `behind`: the epoch is newer than the log's, whose claim a failover lost.
CREATE FUNCTION {s}.append_one(
    p_name text, p_nonce bigint, p_epoch integer, p_first integer, p_data bytea[], p_close text
) RETURNS TABLE (status text, tail integer, epoch integer) LANGUAGE plpgsql AS $$
DECLARE
    h record; v_last integer; v_common integer; v_differs boolean := false; v_new bytea[];
    v_bytes bigint; v_owner text; v_thread text;
BEGIN
    SELECT t.* INTO h FROM {s}.stream s JOIN {s}.head t USING (sid)
        WHERE s.name = p_name FOR UPDATE OF t;
    IF NOT FOUND THEN
        RETURN QUERY SELECT CASE WHEN EXISTS (SELECT FROM {s}.gone g WHERE g.name = p_name)
            THEN 'gone' ELSE 'none' END, 0, 0;
        RETURN;
    END IF;
    IF h.epoch <> p_epoch OR h.nonce <> p_nonce THEN
        RETURN QUERY SELECT CASE WHEN p_epoch > h.epoch THEN 'behind' ELSE 'fenced' END,
            h.tail, h.epoch;
        RETURN;
    END IF;
    v_last := p_first + cardinality(p_data) - 1;
    v_common := least(h.tail, v_last);
    IF v_common >= p_first THEN
        SELECT r.data IS DISTINCT FROM p_data[v_common - p_first + 1] INTO v_differs
            FROM {s}.record r WHERE r.sid = h.sid AND r.offset = v_common;
        v_differs := coalesce(v_differs, true);
    END IF;
    IF h.closed IS NOT NULL THEN
        RETURN QUERY SELECT CASE
            WHEN v_last > h.tail OR p_close <> h.closed THEN 'closed'
            WHEN v_differs THEN 'conflict' ELSE 'duplicate' END, h.tail, h.epoch;
        RETURN;
    END IF;
    IF p_first > h.tail + 1 OR v_differs OR (v_last <= h.tail AND p_close IS NULL) THEN
        RETURN QUERY SELECT CASE
            WHEN p_first > h.tail + 1 THEN 'gap'
            WHEN v_differs THEN 'conflict' ELSE 'duplicate' END, h.tail, h.epoch;
        RETURN;
    END IF;
    v_new := p_data[h.tail - p_first + 2 :];
    INSERT INTO {s}.record
        SELECT h.sid, h.tail + r.number, h.total + sum(length(r.data)) OVER (ORDER BY r.number),
            r.data
        FROM unnest(v_new) WITH ORDINALITY AS r(data, number);
    SELECT coalesce(sum(length(data)), 0) INTO v_bytes FROM unnest(v_new) AS n(data);
    UPDATE {s}.head t SET tail = greatest(h.tail, v_last), total = h.total + v_bytes,
        closed = p_close WHERE t.sid = h.sid;
    IF p_close IS NOT NULL THEN
        DELETE FROM {s}.lease l WHERE l.sid = h.sid RETURNING l.owner INTO v_owner;
        UPDATE {s}.stream s SET closed_at = now(), owner = coalesce(v_owner, s.owner)
            WHERE s.sid = h.sid RETURNING s.thread INTO v_thread;
        UPDATE {s}.thread t SET open = t.open - 1, used = greatest(t.used, now())
            WHERE t.name = v_thread;
        PERFORM {s}.add_up(0, greatest(h.tail, v_last), h.total + v_bytes, 0);
    END IF;
    RETURN QUERY SELECT 'ok', greatest(h.tail, v_last), h.epoch;
END $$;

-- Appends that are not all plain, in their order. Durable ones wait for the disk whatever the
-- server is set to.
CREATE FUNCTION {s}.append_each(
    p_name text[], p_nonce bigint[], p_epoch integer[], p_first integer[], p_count integer[],
    p_close text[], p_data bytea[], p_durable boolean
) RETURNS TABLE (status text, tail integer, epoch integer) LANGUAGE plpgsql AS $$
DECLARE
    v_at integer := 0;
BEGIN
    IF p_durable AND current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    FOR i IN 1 .. cardinality(p_name) LOOP
        RETURN QUERY SELECT * FROM {s}.append_one(
            p_name[i], p_nonce[i], p_epoch[i], p_first[i],
            p_data[v_at + 1 : v_at + p_count[i]], p_close[i]);
        v_at := v_at + p_count[i];
    END LOOP;
END $$;

-- One row: the tail, and the records of a page joined, with their lengths.
CREATE FUNCTION {s}.page(p_name text, p_after integer, p_most integer, p_most_bytes bigint)
RETURNS TABLE (tail integer, closed text, lengths integer[], data bytea) LANGUAGE plpgsql AS $$
DECLARE
    v_sid bigint; v_base bigint := 0;
BEGIN
    SELECT h.sid, h.tail, h.closed INTO v_sid, tail, closed
        FROM {s}.stream s JOIN {s}.head h USING (sid) WHERE s.name = p_name;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_after >= 0 AND p_after < tail THEN
        IF p_after > 0 THEN
            SELECT r.total INTO v_base FROM {s}.record r
                WHERE r.sid = v_sid AND r.offset = p_after;
        END IF;
        SELECT array_agg(length(r.data)), string_agg(r.data, '') INTO lengths, data
        FROM (
            SELECT r.data FROM {s}.record r
            WHERE r.sid = v_sid AND r.offset > p_after AND r.offset <= least(p_after::bigint + p_most, tail)
                AND (r.offset = p_after + 1 OR r.total <= v_base + p_most_bytes)
            ORDER BY r.offset
        ) r;
    END IF;
    RETURN NEXT;
END $$;

CREATE FUNCTION {s}.claim(p_name text, p_owner text, p_lease float8, p_claim bigint)
RETURNS TABLE (epoch integer, tail integer, handed_over boolean) LANGUAGE plpgsql AS $$
DECLARE
    v record;
BEGIN
    SELECT h.sid, h.epoch, h.tail, l.owner, l.claim, l.until INTO v
        FROM {s}.stream s JOIN {s}.head h USING (sid) JOIN {s}.lease l USING (sid)
        WHERE s.name = p_name FOR UPDATE OF h, l;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF v.claim = p_claim THEN -- the answer to this claim was lost
        RETURN QUERY SELECT v.epoch, v.tail, false;
        RETURN;
    END IF;
    IF v.until > now() THEN
        RETURN;
    END IF;
    UPDATE {s}.head h SET epoch = v.epoch + 1 WHERE h.sid = v.sid;
    UPDATE {s}.lease l SET epoch = v.epoch + 1, owner = p_owner, claim = p_claim,
        until = now() + make_interval(secs => p_lease) WHERE l.sid = v.sid;
    RETURN QUERY SELECT v.epoch + 1, v.tail, v.owner = '';
END $$;

-- A claim, or a lease, that a failover lost, put back by who had it: only over an older epoch.
CREATE FUNCTION {s}.reclaim(
    p_name text, p_owner text, p_lease float8, p_nonce bigint, p_epoch integer, p_claim bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_sid bigint;
BEGIN
    UPDATE {s}.head h SET epoch = p_epoch FROM {s}.stream s
        WHERE s.name = p_name AND h.sid = s.sid AND h.nonce = p_nonce AND h.epoch < p_epoch
            AND h.closed IS NULL RETURNING h.sid INTO v_sid;
    UPDATE {s}.lease l SET epoch = p_epoch, owner = p_owner, claim = p_claim,
        until = now() + make_interval(secs => p_lease) WHERE l.sid = v_sid;
    RETURN v_sid IS NOT NULL;
END $$;

CREATE FUNCTION {s}.command(p_name text, p_data bytea, p_nonce bigint) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_sid bigint; v_number integer;
BEGIN
    SELECT h.sid, h.commands INTO v_sid, v_number FROM {s}.stream s JOIN {s}.head h USING (sid)
        WHERE s.name = p_name FOR UPDATE OF h;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM FROM {s}.command c WHERE c.sid = v_sid AND c.nonce = p_nonce;
    IF NOT FOUND THEN
        INSERT INTO {s}.command VALUES (v_sid, v_number + 1, p_nonce, p_data);
        UPDATE {s}.head h SET commands = v_number + 1 WHERE h.sid = v_sid;
    END IF;
    RETURN v_number + 1;
END $$;

CREATE FUNCTION {s}.set_document(p_kind text, p_name text, p_data bytea) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO {s}.document VALUES (p_kind, p_name, nextval('{s}.change'), p_data)
    ON CONFLICT (kind, name) DO UPDATE SET changed = excluded.changed, data = excluded.data
$$;

CREATE FUNCTION {s}.swap_document(p_kind text, p_name text, p_old bytea, p_new bytea)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_current bytea;
BEGIN
    IF p_old IS NULL AND p_new IS NOT NULL THEN
        INSERT INTO {s}.document VALUES (p_kind, p_name, nextval('{s}.change'), p_new)
            ON CONFLICT (kind, name) DO NOTHING;
    ELSIF p_new IS NULL THEN
        DELETE FROM {s}.document d WHERE d.kind = p_kind AND d.name = p_name AND d.data = p_old;
    ELSE
        UPDATE {s}.document d SET changed = nextval('{s}.change'), data = p_new
            WHERE d.kind = p_kind AND d.name = p_name AND d.data = p_old;
    END IF;
    IF FOUND THEN
        RETURN true;
    END IF;
    SELECT d.data INTO v_current FROM {s}.document d WHERE d.kind = p_kind AND d.name = p_name;
    RETURN v_current IS NOT DISTINCT FROM p_new;
END $$;

-- Erase a log, with `p_is_open` an open one too, and all that belongs to it; whether it was there.
CREATE FUNCTION {s}.erase(p_name text, p_is_open boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v record;
BEGIN
    SELECT h.*, s.thread, s.key INTO v FROM {s}.stream s JOIN {s}.head h USING (sid)
        WHERE s.name = p_name FOR UPDATE OF h;
    IF NOT FOUND OR (v.closed IS NULL AND NOT p_is_open) THEN
        RETURN false;
    END IF;
    DELETE FROM {s}.lease l WHERE l.sid = v.sid;
    DELETE FROM {s}.record r WHERE r.sid = v.sid;
    DELETE FROM {s}.command c WHERE c.sid = v.sid;
    DELETE FROM {s}.request_key k WHERE k.key = v.key AND k.sid = v.sid;
    DELETE FROM {s}.stream s WHERE s.sid = v.sid;
    DELETE FROM {s}.head h WHERE h.sid = v.sid;
    DELETE FROM {s}.document d WHERE d.kind = 'of:' || p_name;
    IF v.thread IS NOT NULL THEN
        UPDATE {s}.thread t SET logs = t.logs - 1, open = t.open - (v.closed IS NULL)::integer
            WHERE t.name = v.thread;
        DELETE FROM {s}.thread t WHERE t.name = v.thread AND t.logs <= 0;
    END IF;
    IF v.closed IS NULL THEN
        INSERT INTO {s}.erased VALUES (v.nonce, now()) ON CONFLICT (nonce) DO NOTHING;
        PERFORM {s}.add_up(-1, 0, 0, 0);
    ELSE
        PERFORM {s}.add_up(-1, -v.tail, -v.total, 0);
    END IF;
    RETURN true;
END $$;

CREATE FUNCTION {s}.delete(p_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_erased boolean;
BEGIN
    v_erased := {s}.erase(p_name, true);
    DELETE FROM {s}.gone g WHERE g.name = p_name;
    IF FOUND THEN
        PERFORM {s}.add_up(0, 0, 0, -1);
    END IF;
    RETURN v_erased;
END $$;

-- Of logs without a thread, or of one conversation, those that are still due; their names stay in
-- `gone` for a while. One row per log; a conversation that is used gives none.
CREATE FUNCTION {s}.erase_due(p_names text[], p_thread text, p_retention float8)
RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    v_name text; v_before timestamptz := now() - make_interval(secs => p_retention);
BEGIN
    IF p_thread IS NOT NULL THEN
        PERFORM FROM {s}.thread t WHERE t.name = p_thread AND t.open <= 0 AND t.used < v_before
            FOR UPDATE;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    FOREACH v_name IN ARRAY p_names LOOP
        PERFORM FROM {s}.stream s WHERE s.name = v_name AND s.closed_at IS NOT NULL
            AND s.thread IS NOT DISTINCT FROM p_thread
            AND (p_thread IS NOT NULL OR s.closed_at < v_before);
        IF NOT FOUND THEN
            CONTINUE;
        END IF;
        IF {s}.erase(v_name, false) THEN
            INSERT INTO {s}.gone VALUES (v_name, now()) ON CONFLICT (name) DO NOTHING;
            PERFORM {s}.add_up(0, 0, 0, 1);
            RETURN NEXT v_name;
        END IF;
    END LOOP;
END $$;
