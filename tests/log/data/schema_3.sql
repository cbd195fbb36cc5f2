PRAGMA auto_vacuum=INCREMENTAL;
PRAGMA application_id=1953459063;
PRAGMA user_version=3;
PRAGMA journal_mode=WAL;
BEGIN TRANSACTION;
CREATE TABLE command (
    sid INTEGER NOT NULL, number INTEGER NOT NULL, checksum INTEGER NOT NULL,
    data BLOB NOT NULL, PRIMARY KEY (sid, number)
) WITHOUT ROWID;
INSERT INTO "command" VALUES(2,1,733210067,X'636F6D6D616E64');
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "counter" VALUES('ended_bytes',8);
INSERT INTO "counter" VALUES('ended_records',3);
INSERT INTO "counter" VALUES('logs',3);
INSERT INTO "counter" VALUES('tombstones',1);
CREATE TABLE document (
    kind TEXT NOT NULL, name TEXT NOT NULL, changed INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
INSERT INTO "document" VALUES('kind','name',1,X'64617461');
CREATE TABLE gone (name TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
INSERT INTO "gone" VALUES('old',1796041806.0);
CREATE TABLE record (
    sid INTEGER NOT NULL, offset INTEGER NOT NULL, total INTEGER NOT NULL,
    checksum INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (sid, offset)
) WITHOUT ROWID;
INSERT INTO "record" VALUES(1,1,3,1495410610,X'6F6E65');
INSERT INTO "record" VALUES(1,2,3,2853113479,X'');
INSERT INTO "record" VALUES(1,3,8,1033798869,X'7468726565');
INSERT INTO "record" VALUES(2,1,5,4094380752,X'6669727374');
CREATE TABLE request_key (
    key TEXT PRIMARY KEY, sid INTEGER NOT NULL, hash TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "request_key" VALUES('k',1,'h');
CREATE TABLE stream (
    sid INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch INTEGER NOT NULL,
    owner TEXT NOT NULL, lease_until REAL NOT NULL, closed TEXT, closed_at REAL,
    created REAL NOT NULL, thread TEXT, meta BLOB NOT NULL, meta_check INTEGER NOT NULL
);
INSERT INTO "stream" VALUES(1,'ended',1,'me',1796041821.0,'complete',1796041806.0,1796041806.0,'t',X'6D657461',3622966325);
INSERT INTO "stream" VALUES(2,'open',1,'me',1796041806.0,NULL,NULL,1796041806.0,'t',X'',0);
INSERT INTO "stream" VALUES(3,'empty',1,'me',1796041806.0,NULL,NULL,1796041806.0,NULL,X'',0);
CREATE TABLE thread (
    name TEXT PRIMARY KEY, logs INTEGER NOT NULL, open INTEGER NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "thread" VALUES('t',2,1,1796041806.0);
CREATE TABLE wake (
    id INTEGER PRIMARY KEY AUTOINCREMENT, writer TEXT NOT NULL, hashes BLOB NOT NULL
);
INSERT INTO "wake" VALUES(1,'40f4f539ce45bab9',X'4FD68251');
INSERT INTO "wake" VALUES(2,'40f4f539ce45bab9',X'4FD68251');
INSERT INTO "wake" VALUES(3,'40f4f539ce45bab9',X'A48370A4');
INSERT INTO "wake" VALUES(4,'40f4f539ce45bab9',X'A48370A4');
INSERT INTO "wake" VALUES(5,'40f4f539ce45bab9',X'A48370A4');
INSERT INTO "wake" VALUES(6,'40f4f539ce45bab9',X'C43DC768');
INSERT INTO "wake" VALUES(7,'40f4f539ce45bab9',X'E5D45D3F');
INSERT INTO "wake" VALUES(8,'40f4f539ce45bab9',X'E5D45D3F');
INSERT INTO "wake" VALUES(9,'40f4f539ce45bab9',X'E5D45D3F');
CREATE INDEX stream_thread ON stream(thread, sid) WHERE thread IS NOT NULL;
CREATE INDEX stream_open ON stream(lease_until) WHERE closed IS NULL;
CREATE INDEX request_key_stream ON request_key(sid);
CREATE INDEX gone_at ON gone(at);
CREATE INDEX document_changed ON document(kind, changed);
CREATE INDEX thread_idle ON thread(used) WHERE open <= 0;
CREATE INDEX stream_ended ON stream(closed_at) WHERE closed IS NOT NULL AND thread IS NULL;
CREATE TRIGGER thread_joined AFTER INSERT ON stream WHEN new.thread IS NOT NULL BEGIN
    INSERT INTO thread VALUES (new.thread, 1, 1, new.created) ON CONFLICT (name)
    DO UPDATE SET logs = logs + 1, open = open + 1, used = max(used, excluded.used); END;
CREATE TRIGGER thread_ended AFTER UPDATE OF closed ON stream
    WHEN old.closed IS NULL AND new.closed IS NOT NULL AND new.thread IS NOT NULL BEGIN
    UPDATE thread SET open = open - 1, used = max(used, new.closed_at) WHERE name = new.thread; END;
CREATE TRIGGER thread_left AFTER DELETE ON stream WHEN old.thread IS NOT NULL BEGIN
    UPDATE thread SET logs = logs - 1, open = open - (old.closed IS NULL) WHERE name = old.thread;
    DELETE FROM thread WHERE name = old.thread AND logs <= 0; END;
COMMIT;
