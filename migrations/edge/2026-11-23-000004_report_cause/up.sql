-- The message that changed the property last, as a UUID: it is named in the report, so that a value can be followed
-- from MQTT to the API. NULL in rows that an older version wrote.
ALTER TABLE pending_report ADD COLUMN cause TEXT;
