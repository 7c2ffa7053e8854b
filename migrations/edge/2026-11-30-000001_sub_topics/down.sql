DROP TABLE sub_topics;
