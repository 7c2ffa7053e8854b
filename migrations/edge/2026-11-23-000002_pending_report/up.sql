-- What the cloud must still hear, written in the transaction of the change itself.
-- A row says *that* a property has to be reported; its value is read when the report is sent,
-- so that after a week offline there is at most one row for each property.
CREATE TABLE pending_report (
    seq         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, -- grows with each change, never used twice
    deviceid    TEXT    NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    incarnation BIGINT  NOT NULL,            -- device.incarnation at the time of the change
    property    TEXT    NOT NULL,            -- device_twin.name; '' is the state of the device
    queued_at   BIGINT  NOT NULL             -- Unix ms
);
CREATE UNIQUE INDEX pending_report_of_property ON pending_report (deviceid, property);
