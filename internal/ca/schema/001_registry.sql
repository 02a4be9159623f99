-- Plain SQL that PostgreSQL takes as well: instants are milliseconds since 1970 (0 = never).
CREATE TABLE identities (
    id              VARCHAR(255) PRIMARY KEY,
    secret          TEXT NOT NULL,             -- argon2id hash; empty: no password, cannot enroll over HTTP
    type            VARCHAR(64) NOT NULL,
    affiliation     VARCHAR(512) NOT NULL,     -- empty: the root
    attributes      TEXT NOT NULL,             -- JSON list of {name, value, ecert}
    enrolled        BIGINT NOT NULL DEFAULT 0, -- successful enrollments with the secret
    max_enrollments BIGINT NOT NULL,           -- -1: no limit
    failed_logins   BIGINT NOT NULL DEFAULT 0, -- wrong secrets in a row
    revoked         BIGINT NOT NULL DEFAULT 0, -- instant of revocation
    created         BIGINT NOT NULL
);
CREATE INDEX identities_affiliation ON identities (affiliation);

CREATE TABLE affiliations (
    name VARCHAR(512) PRIMARY KEY
);

CREATE TABLE certificates (
    aki        VARCHAR(64) NOT NULL,           -- lower case hex without leading zeros, as clients send it
    serial     VARCHAR(64) NOT NULL,           -- likewise
    id         VARCHAR(255) NOT NULL,          -- enrollment ID; stays when the identity is removed
    profile    VARCHAR(16) NOT NULL,
    issued     BIGINT NOT NULL,
    expires    BIGINT NOT NULL,
    revoked    BIGINT NOT NULL DEFAULT 0,
    reason     BIGINT NOT NULL DEFAULT 0,      -- RFC 5280 CRLReason
    pem        TEXT NOT NULL,
    PRIMARY KEY (aki, serial)
);
CREATE INDEX certificates_id ON certificates (id);
CREATE INDEX certificates_revoked ON certificates (revoked);
