# One server. Build: docker build -t gradserve .     Run: docker run -p 8970:8970 -e GRADSERVE_TOKEN=… gradserve
#
# Two stages: the first builds the wheel and installs it, the second is Python and what was installed, nothing else.

FROM python:3.12-slim AS build

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY service service
RUN python -m venv /opt/gradserve \
 && /opt/gradserve/bin/pip install --no-cache-dir --disable-pip-version-check '.[service]'


FROM python:3.12-slim

# A user of its own, who owns the store's folder and nothing else. The number is fixed for the owners of volumes.
RUN useradd --uid 8970 --user-group --create-home --home-dir /var/lib/gradserve gradserve
ENV PATH=/opt/gradserve/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/gradserve
USER gradserve

COPY --from=build /opt/gradserve /opt/gradserve

# A container listens on all of its addresses; without a token the server refuses to, and says so.
ENV GRADSERVE_HOST=0.0.0.0 \
    GRADSERVE_PORT=8970 \
    GRADSERVE_STORE=sqlite:////var/lib/gradserve/store/gradserve.db \
    GRADSERVE_LOG_FORMAT=json
RUN mkdir /var/lib/gradserve/store
VOLUME /var/lib/gradserve/store
EXPOSE 8970

# Ready, not only alive: a store out of reach makes the container unhealthy. Python, because slim has no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"GRADSERVE_PORT\"]}/readyz', timeout=4)"]

# Exec form: SIGTERM reaches the server, which drains. Give it longer than GRADSERVE_DRAIN_SECONDS to stop (compose does).
STOPSIGNAL SIGTERM
ENTRYPOINT ["gradserve"]
CMD ["serve"]
