ALTER TABLE pending_report DROP COLUMN cause;
