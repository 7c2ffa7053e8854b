DROP TABLE pending_report;
