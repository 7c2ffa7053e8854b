-- MQTT topic filters that the cloud has subscribed, subscribed again at each start. Name and column are KubeEdge's.
CREATE TABLE sub_topics (
    topic TEXT NOT NULL PRIMARY KEY
);
