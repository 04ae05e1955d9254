# One image, many commands: web, workers, beat, Flower, migrations and the sandbox are told apart by
# docker-compose.yml. The first stage has what building needs, the second only what running needs.
FROM python:3.13.9-slim-bookworm AS build

RUN pip install --no-cache-dir uv==0.13.9
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never

WORKDIR /app
COPY requirements.txt .
RUN uv venv /venv && uv pip install --python /venv/bin/python --require-hashes -r requirements.txt

COPY . .
# Settings insist on these; collecting static files uses none of them.
RUN SECRET_KEY=build DATABASE_URL=postgresql://build/build BROKER_URL=redis://build \
    /venv/bin/python manage.py collectstatic --noinput


FROM python:3.13.9-slim-bookworm

LABEL org.opencontainers.image.title="OrderFlow" \
      org.opencontainers.image.description="Orders worked off in the background, once, with nothing lost." \
      org.opencontainers.image.licenses="MIT"

ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build /app /app

USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD \
    ["python", "-c", "import urllib.request as r; r.urlopen(r.Request('http://127.0.0.1:8000/livez', headers={'Host': 'localhost'}), timeout=2)"]
CMD ["gunicorn", "orderflow.wsgi", "--bind=0.0.0.0:8000", "--worker-class=gthread", "--workers=2", "--threads=4", "--worker-tmp-dir=/dev/shm", "--no-control-socket", "--access-logfile=-"]
