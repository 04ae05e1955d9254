#!/bin/sh
# Two roles, neither a superuser: one owns the tables and migrates, the other reads and writes them.
# The image of PostgreSQL runs this once, when the cluster is created.
set -eu
secrets=${SECRETS:-/run/secrets}
owner=$(cat "$secrets/owner_password")
application=$(cat "$secrets/application_password")
psql -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    -v owner="$owner" -v application="$application" <<'SQL'
CREATE ROLE orderflow_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'owner';
CREATE ROLE orderflow_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'application';
CREATE DATABASE orderflow OWNER orderflow_owner;
REVOKE ALL ON DATABASE orderflow FROM PUBLIC;
GRANT CONNECT ON DATABASE orderflow TO orderflow_app;
\connect orderflow
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO orderflow_owner;
GRANT USAGE ON SCHEMA public TO orderflow_app;
ALTER DEFAULT PRIVILEGES FOR ROLE orderflow_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO orderflow_app;
-- setval numbers orders anew after a restore.
ALTER DEFAULT PRIVILEGES FOR ROLE orderflow_owner IN SCHEMA public
    GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO orderflow_app;
SQL
