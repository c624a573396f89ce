"""Access the parts of the Kubernetes API that RayJobs need. Only this module imports the official client."""

import json
import os
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

import urllib3
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from gax_batch.errors import GaxError, TransientError, UsageError

Object = dict[str, Any]
"""A Kubernetes object as JSON values."""

SURVEY_LABEL = "gax-batch/survey"

_REQUEST_SECONDS = (10, 60)
_RAY: dict[str, str] = {"group": "ray.io", "version": "v1", "plural": "rayjobs"}
_CLUSTERS: dict[str, str] = _RAY | {"plural": "rayclusters"}
_JOBS: dict[str, str] = {"group": "batch", "version": "v1", "plural": "jobs"}

Result = TypeVar("Result")


class NotFoundError(GaxError):
    """The API does not have an object of this name."""


class ExistsError(GaxError):
    """The API already has an object of this name."""


class ApiUnavailableError(TransientError):
    """The Kubernetes API does not answer. A run that was submitted continues.

    The exit code is that of a temporary failure in `sysexits.h`, so that the pod failure policy of a Job can
    distinguish it from the exit codes of a run.
    """

    exit_code: ClassVar[int] = 75


class InvalidError(UsageError):
    """The API refused an object.

    Attributes:
        causes: Pairs of the path of a field and its problem.
    """

    def __init__(self, message: str, causes: list[tuple[str, str]]) -> None:
        super().__init__(message)
        self.causes = causes


class Cluster:
    """Reads, creates and deletes the RayJobs of one namespace."""

    def __init__(self, api: "client.ApiClient", namespace: str) -> None:
        self.namespace = namespace
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)

    def get_job(self, name: str) -> Object | None:
        """Return a RayJob, or None if it does not exist."""
        return self._get(_RAY, name)

    def get_kubernetes_job(self, name: str) -> Object | None:
        """Return a Job of Kubernetes itself, or None if it does not exist."""
        return self._get(_JOBS, name)

    def get_ray_cluster(self, name: str) -> Object | None:
        """Return a RayCluster, or None if it does not exist."""
        return self._get(_CLUSTERS, name)

    def list_jobs(self, survey: str) -> list[Object]:
        """Return the RayJobs with the label of a survey."""
        found = self._request(
            self._custom.list_namespaced_custom_object, **_RAY, label_selector=f"{SURVEY_LABEL}={survey}"
        )
        return list(cast("Object", found)["items"])

    def create_job(self, job: Object, *, dry_run: bool = False) -> None:
        """Create a RayJob. Unknown fields are refused.

        Args:
            job: The RayJob.
            dry_run: Whether the API only validates the RayJob.

        Raises:
            ExistsError: A RayJob of this name exists.
            InvalidError: The RayJob violates the schema of its kind.
        """
        more = {"dry_run": "All"} if dry_run else {}
        self._request(
            self._custom.create_namespaced_custom_object, **_RAY, body=job, field_validation="Strict", **more
        )

    def delete_job(self, name: str) -> None:
        """Delete a RayJob with its cluster. It is not an error if it does not exist."""
        try:
            self._request(
                self._custom.delete_namespaced_custom_object,
                **_RAY,
                name=name,
                propagation_policy="Background",
            )
        except NotFoundError:
            return

    def log_tail(self, job: str, lines: int) -> list[str]:
        """Return the last lines of the pod that submitted a job, which are the output of the run."""
        pods = self._request(self._core.list_namespaced_pod, label_selector=f"job-name={job}").items
        named = [pod.metadata for pod in pods if pod.metadata is not None]
        if not named:
            return []
        newest = max(named, key=lambda metadata: str(metadata.creation_timestamp))
        # The client would convert text that looks like JSON to the notation of Python.
        response = self._request(
            self._core.read_namespaced_pod_log,
            name=newest.name,
            tail_lines=lines,
            _preload_content=False,
        )
        return cast("urllib3.HTTPResponse", response).data.decode("utf-8", "replace").splitlines()

    def has(self, kind: str, name: str) -> bool | None:
        """Return whether a ConfigMap, ServiceAccount or Secret exists; None if it may not be read."""
        read = {
            "ConfigMap": self._core.read_namespaced_config_map,
            "ServiceAccount": self._core.read_namespaced_service_account,
            "Secret": self._core.read_namespaced_secret,
        }[kind]
        try:
            self._request(read, name=name)
        except NotFoundError:
            return False
        except UsageError:
            return None
        return True

    def _get(self, kind: dict[str, str], name: str) -> Object | None:
        try:
            return cast("Object", self._request(self._custom.get_namespaced_custom_object, **kind, name=name))
        except NotFoundError:
            return None

    def _request(self, call: Callable[..., Result], **arguments: Any) -> Result:
        try:
            return call(namespace=self.namespace, _request_timeout=_REQUEST_SECONDS, **arguments)
        except client.ApiException as error:
            raise _translate(error, self.namespace) from None
        except urllib3.exceptions.HTTPError as error:
            raise ApiUnavailableError(f"the Kubernetes API does not answer: {error}") from error


def connect(namespace: str, context: str | None = None) -> Cluster:
    """Connect to the cluster of this pod or, outside a pod, of the kubeconfig file.

    Args:
        namespace: Namespace of the RayJobs.
        context: Context of the kubeconfig file; None for the current one.

    Returns:
        The connection.

    Raises:
        UsageError: There is neither a pod nor a kubeconfig file.
    """
    settings = client.Configuration()
    # The client's `config` is not typed, unlike its `client`.
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST") and context is None:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        else:
            # The client reads the variable only once, when it is imported.
            places = os.environ.get("KUBECONFIG")
            config.load_kube_config(  # type: ignore[no-untyped-call]
                places, context=context, client_configuration=settings
            )
    except (ConfigException, OSError) as error:
        raise UsageError(f"no Kubernetes cluster: {error}; set KUBECONFIG, or run in a pod") from None
    # `gax submit` has its own retries, which last longer.
    settings.retries = False
    return Cluster(client.ApiClient(settings), namespace)


def _translate(error: "client.ApiException", namespace: str) -> GaxError:
    try:
        status = json.loads(error.body or "{}")
    except ValueError:
        status = {}
    message = " ".join(str(status.get("message") or error.reason).split())
    match error.status:
        case 401 | 403:
            return UsageError(
                f"the Kubernetes API refuses the request: {message}; bind the role gax-submit in {namespace}"
            )
        case 404:
            return NotFoundError(message)
        case 409:
            return ExistsError(message)
        case 400 | 422:
            causes = (status.get("details") or {}).get("causes") or []
            pairs = [(str(cause.get("field", "")), str(cause.get("message", ""))) for cause in causes]
            return InvalidError(f"the Kubernetes API refuses the job: {message}", pairs)
        case _:
            return ApiUnavailableError(f"the Kubernetes API answers {error.status}: {message}")
