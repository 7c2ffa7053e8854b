//! What leaves a process: MQTT topics and payloads, the cloud link's envelope.
