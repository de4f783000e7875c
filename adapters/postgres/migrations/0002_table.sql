-- The values of pgstore's tables. A stamp is '' where a key is written without one; COLLATE "C"
-- compares it byte by byte, as ackwise.Stamp does.

CREATE SEQUENCE ackwise_version;

CREATE TABLE ackwise_table (
	name    text COLLATE "C" NOT NULL,
	key     bytea NOT NULL,
	data    bytea NOT NULL,
	version bigint NOT NULL,
	stamp   text COLLATE "C" NOT NULL,
	deleted boolean NOT NULL,
	written timestamptz NOT NULL,
	PRIMARY KEY (name, key)
);
CREATE INDEX ackwise_table_deleted ON ackwise_table (name, written) WHERE deleted;

INSERT INTO ackwise_migrations (version, name) VALUES (2, 'table');
