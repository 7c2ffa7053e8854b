DROP TABLE revision;
DROP TABLE owner;
DROP TABLE object;
