-- Which Device object of the cloud a row belongs to (its metadata.uid), so that one that was deleted and
-- created again under the same name while this node was away is seen to be another.
-- '' where the cloud did not say (KubeEdge's never does).
ALTER TABLE device ADD COLUMN uid TEXT NOT NULL DEFAULT '';
