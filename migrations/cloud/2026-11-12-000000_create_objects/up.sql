-- Every object of the embedded Kubernetes API, one row each.
CREATE TABLE object (
    id               INTEGER NOT NULL PRIMARY KEY,
    kind             TEXT    NOT NULL,  -- plural name, such as `pods`; unique over all groups served
    namespace        TEXT    NOT NULL,  -- empty for kinds without a namespace
    name             TEXT    NOT NULL,
    uid              TEXT    NOT NULL UNIQUE,
    resource_version BIGINT  NOT NULL,  -- the revision of the last write to this object
    body             TEXT    NOT NULL,  -- the object as JSON, exactly as it is answered
    UNIQUE (kind, namespace, name)
);

-- metadata.ownerReferences, so that dependents are found without reading every object.
CREATE TABLE owner (
    uid    TEXT   NOT NULL,  -- of the owner, which may no longer exist
    object BIGINT NOT NULL REFERENCES object (id) ON DELETE CASCADE,
    PRIMARY KEY (uid, object)
) WITHOUT ROWID;
CREATE INDEX owner_object ON owner (object);

-- The one counter that every write advances: the API's resourceVersion.
CREATE TABLE revision (
    id    INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    value BIGINT  NOT NULL
);
INSERT INTO revision (id, value) VALUES (1, 1);
