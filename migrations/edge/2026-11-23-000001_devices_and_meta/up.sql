-- The four tables that KubeEdge's tools and tests read, by position: names and order of the
-- first columns are KubeEdge's and must not change. Columns of our own come after them.
-- Unset text is '' (as KubeEdge's ORM writes it); NULL only in tombstones of deleted twins.

-- One number per purpose that only ever grows, also across deletions.
CREATE TABLE counter (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('incarnation', 0);

CREATE TABLE device (
    id          VARCHAR(64) NOT NULL PRIMARY KEY,
    name        TEXT,
    description TEXT,
    state       TEXT,                        -- online, offline, unknown, ok, unhealthy, or ''
    last_online TEXT,
    incarnation BIGINT NOT NULL DEFAULT 0    -- which creation of this id it is; never used twice
);

CREATE TABLE device_attr (
    id          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    deviceid    TEXT    NOT NULL,            -- device.id
    name        TEXT    NOT NULL,
    description TEXT,
    value       TEXT,
    optional    INTEGER NOT NULL DEFAULT 1,
    attr_type   TEXT,
    metadata    TEXT
);
CREATE UNIQUE INDEX device_attr_of_device ON device_attr (deviceid, name);

CREATE TABLE device_twin (
    id               INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    deviceid         TEXT    NOT NULL,       -- device.id
    name             TEXT    NOT NULL,
    description      TEXT,
    expected         TEXT,
    actual           TEXT,
    expected_meta    TEXT,                   -- {"timestamp":<ms>}
    actual_meta      TEXT,
    expected_version TEXT,                   -- {"cloud":<n>,"edge":<n>}
    actual_version   TEXT,
    optional         INTEGER NOT NULL DEFAULT 1,
    attr_type        TEXT,                   -- string, int, float, boolean, deleted (tombstone)
    metadata         TEXT
);
CREATE UNIQUE INDEX device_twin_of_device ON device_twin (deviceid, name);

CREATE TABLE meta (
    key              VARCHAR(256) NOT NULL PRIMARY KEY, -- resource string, e.g. default/pod/web
    type             VARCHAR(32)  NOT NULL,
    value            TEXT,                   -- the object as received, JSON
    uid              TEXT,                   -- metadata.uid, NULL if the object has none
    resource_version TEXT,                   -- compared for equality only
    stored_at        BIGINT NOT NULL DEFAULT 0 -- Unix ms
);
CREATE INDEX meta_of_type ON meta (type);
