-- The tables without foreign keys; nothing of their rows changes.

CREATE TABLE device_attr_new (
    id          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    deviceid    TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    description TEXT,
    value       TEXT,
    optional    INTEGER NOT NULL DEFAULT 1,
    attr_type   TEXT,
    metadata    TEXT
);
INSERT INTO device_attr_new SELECT * FROM device_attr;
DELETE FROM sqlite_sequence WHERE name = 'device_attr_new';
INSERT INTO sqlite_sequence (name, seq) SELECT 'device_attr_new', seq FROM sqlite_sequence WHERE name = 'device_attr';
DROP TABLE device_attr;
ALTER TABLE device_attr_new RENAME TO device_attr;
CREATE UNIQUE INDEX device_attr_of_device ON device_attr (deviceid, name);

CREATE TABLE device_twin_new (
    id               INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    deviceid         TEXT    NOT NULL,
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
INSERT INTO device_twin_new SELECT * FROM device_twin;
DELETE FROM sqlite_sequence WHERE name = 'device_twin_new';
INSERT INTO sqlite_sequence (name, seq) SELECT 'device_twin_new', seq FROM sqlite_sequence WHERE name = 'device_twin';
DROP TABLE device_twin;
ALTER TABLE device_twin_new RENAME TO device_twin;
CREATE UNIQUE INDEX device_twin_of_device ON device_twin (deviceid, name);
