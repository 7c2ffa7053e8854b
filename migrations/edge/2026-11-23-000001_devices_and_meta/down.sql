DROP TABLE meta;
DROP TABLE device_twin;
DROP TABLE device_attr;
DROP TABLE device;
DROP TABLE counter;
