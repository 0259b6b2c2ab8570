# PostgreSQL 17 with TimescaleDB, pg_cron and Tailstream, from the packages of Debian 13.
#
# UNTESTED: no container engine was at hand when this was written. The start script was run by itself,
# outside a container; the image was never built.
#
#   docker build -t tailstream .
#   docker run -e POSTGRES_PASSWORD=secret -p 5432:5432 -v tailstream:/var/lib/postgresql/data tailstream
#   psql -h localhost -U postgres tailstream
#
# With a Redis that can be reached as redis, add arguments for the server to the second line:
#   … tailstream -c tailstream.redis_url=redis://redis:6379

FROM rust:1.95-trixie AS builder
RUN apt-get update \
    && apt-get install -y --no-install-recommends postgresql-server-dev-17 libclang-dev \
    && rm -rf /var/lib/apt/lists/*
RUN cargo install cargo-pgrx --version 0.18.1 --locked \
    && cargo pgrx init --pg17 /usr/lib/postgresql/17/bin/pg_config
WORKDIR /src
COPY . .
# The image's own toolchain is the one; the file would have rustup fetch another with more components.
RUN rm rust-toolchain.toml \
    && cargo pgrx package --pg-config /usr/lib/postgresql/17/bin/pg_config --out-dir /out

FROM debian:trixie-slim
RUN mkdir -p /etc/postgresql-common \
    && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates postgresql-17 postgresql-17-timescaledb postgresql-17-cron \
    && rm -rf /var/lib/apt/lists/*
COPY --from=builder /out/ /
ENV PATH=/usr/lib/postgresql/17/bin:$PATH PGDATA=/var/lib/postgresql/data/main
RUN install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data \
    && install -d -o postgres -g postgres -m 755 /var/run/postgresql
COPY --chmod=755 <<'SCRIPT' /usr/local/bin/start-tailstream
#!/bin/sh
# Makes the database on the first start, then becomes the server.
set -eu
if [ ! -d "$PGDATA" ]; then
    : "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD for the first start}"
    # It gets its name last, so that a first start that is interrupted begins anew.
    new=$PGDATA.new
    rm -rf "$new"
    password=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" > "$password"
    initdb -D "$new" -U postgres --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=trust --auth-host=scram-sha-256 --pwfile="$password"
    rm "$password"
    echo 'host all all all scram-sha-256' >> "$new/pg_hba.conf"
    cat >> "$new/postgresql.conf" <<CONF
listen_addresses = '*'
shared_preload_libraries = 'timescaledb,tailstream,pg_cron'
max_worker_processes = 24
tailstream.databases = 'tailstream'
cron.database_name = 'tailstream'
cron.host = '/var/run/postgresql'
timescaledb.telemetry_level = off
CONF
    pg_ctl -D "$new" -w -o "-c listen_addresses=''" start
    createdb -U postgres tailstream
    psql -U postgres -d tailstream -v ON_ERROR_STOP=1 -c 'CREATE EXTENSION tailstream CASCADE' \
        -c 'CREATE EXTENSION pg_cron' -c 'SELECT ts_schedule_retention()'
    pg_ctl -D "$new" -w stop
    mv "$new" "$PGDATA"
fi
exec postgres "$@"
SCRIPT
USER postgres
VOLUME /var/lib/postgresql/data
EXPOSE 5432
# A fast shutdown instead of one that waits for clients.
STOPSIGNAL SIGINT
ENTRYPOINT ["start-tailstream"]
