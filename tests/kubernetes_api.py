"""A server that speaks the Kubernetes API and keeps RayJobs, as the API server and KubeRay do.

The operator's part is a list of statuses: each question for a running job brings it to the next one.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
SUCCEEDED = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def failed(message: str, reason: str = "AppFailed") -> dict[str, str]:
    return {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": reason, "message": message}


class KubernetesApi:
    """The state behind the server; tests set it and look at it."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.course: list[dict[str, str]] = [{"jobDeploymentStatus": "Initializing"}, RUNNING, SUCCEEDED]
        self.logs: dict[str, str] = {}
        self.objects = {("serviceaccounts", "gax-batch"), ("configmaps", "gax-survey")}
        self.hidden: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], int | None] = lambda method, path: None
        self.validate: Callable[[dict[str, Any]], list[tuple[str, str]]] = lambda job: []

    def add(self, name: str, status: dict[str, str], *, survey: str = "gax", **spec: Any) -> None:
        self.jobs[name] = {
            "metadata": {
                "name": name,
                "labels": {"gax-batch/survey": survey, "gax-batch/night": name.rpartition("-")[0]},
                "creationTimestamp": f"2026-11-{len(self.jobs) + 1:02d}T00:00:00Z",
            },
            "spec": spec,
            "status": status,
        }

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path in self.requests if method != "GET" and "dryRun" not in path]

    def answer(self, method: str, url: str, body: Any) -> tuple[int, Any]:
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        parts = path.strip("/").split("/")
        # Of /apis/ray.io/v1/namespaces/N/rayjobs/NAME and of /api/v1/namespaces/N/pods/NAME/log.
        _, kind, *name = parts[parts.index("namespaces") + 1 :]
        if kind == "rayjobs":
            return self._rayjobs(method, name[0] if name else None, query, body)
        if kind in self.hidden:
            return 403, status(403, f'{kind} "{name[0]}" is forbidden')
        if kind == "pods" and name:
            lines = self.logs[name[0]].splitlines()[-int(query["tailLines"][0]) :]
            return 200, "\n".join(lines) + "\n"
        if kind == "pods":
            wanted = query["labelSelector"][0].removeprefix("job-name=")
            found = [pod for pod in self.logs if pod.startswith(wanted)]
            return 200, {"items": [{"metadata": {"name": pod}} for pod in found]}
        return (200, {}) if (kind, name[0]) in self.objects else (404, status(404, f"{name[0]} not found"))

    def _rayjobs(self, method: str, name: str | None, query: Any, body: Any) -> tuple[int, Any]:
        if method == "POST":
            assert query["fieldValidation"] == ["Strict"]
            causes = self.validate(body)
            if causes:
                details = {"causes": [{"field": field, "message": text} for field, text in causes]}
                return 422, status(422, "RayJob is invalid") | {"details": details}
            if body["metadata"]["name"] in self.jobs:
                return 409, status(409, "already exists")
            if "dryRun" not in query:
                created = body["metadata"] | {"creationTimestamp": "2026-11-30T00:00:00Z"}
                self.jobs[created["name"]] = body | {"metadata": created, "course": list(self.course)}
            return 201, body
        if name is None:
            survey = query["labelSelector"][0].split("=")[1]
            return 200, {
                "items": [
                    job
                    for job in self.jobs.values()
                    if job["metadata"]["labels"]["gax-batch/survey"] == survey
                ]
            }
        job = self.jobs.get(name)
        if job is None:
            return 404, status(404, f"rayjobs {name} not found")
        if method == "DELETE":
            del self.jobs[name]
        elif job.get("course"):
            job["status"] = job["course"].pop(0)
        return 200, job


def status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "message": message}


@contextmanager
def serve(api: KubernetesApi, kubeconfig: Path) -> Iterator[None]:
    """Answer on a free port of this machine, which the kubeconfig file names."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            api.requests.append((self.command, self.path))
            fault = api.fault(self.command, self.path)
            if fault == 0:
                self.connection.close()
                return
            code, answer = (
                (fault, status(fault, "out")) if fault else api.answer(self.command, self.path, body)
            )
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = handle_any

        def handle(self) -> None:
            # A connection that the test cut is no news.
            try:
                super().handle()
            except (OSError, ValueError):
                return

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    cluster = {"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "contexts": [context],
                "users": [{"name": "test", "user": {}}],
                "current-context": "test",
            }
        ),
        encoding="utf-8",
    )
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
