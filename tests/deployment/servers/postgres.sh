#!/bin/sh
# As the image of PostgreSQL does it: make the cluster once, and run what lies in /docker-entrypoint-initdb.d.
set -eu
data=/var/lib/postgresql/data
if [ ! -e "$data" ]; then
    initdb -D "$data" -U postgres --pwfile "$POSTGRES_PASSWORD_FILE" --auth-local trust --auth-host scram-sha-256
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    pg_ctl -D "$data" -w -o "-c listen_addresses=" start
    for script in /docker-entrypoint-initdb.d/*.sh; do sh "$script"; done
    pg_ctl -D "$data" -w stop
fi
exec postgres -D "$data" -c "listen_addresses=*"
