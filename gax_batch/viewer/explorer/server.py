"""`gax explore`: the pages of a snapshot, served to this machine alone until Ctrl-C."""

import logging
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import uvicorn

from gax_batch.catalog.snapshots import open_existing
from gax_batch.errors import UsageError
from gax_batch.viewer.explorer.app import make_app
from gax_batch.viewer.explorer.survey import Survey

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"


def explore(uri: str, version: int | None, port: int, sources: str | None = None) -> None:
    """Serve the pages of a snapshot until Ctrl-C.

    Args:
        uri: Folder or URI of the catalog.
        version: Number of the snapshot; the newest if None.
        port: Port to listen on; 0 for a free one.
        sources: Current place of the survey's files; see `gax_batch.open_catalog`.

    Raises:
        UsageError: The snapshot does not exist or is not complete, or the port is taken.
        TransientError: The store kept failing.
    """
    catalog = open_existing(uri, version)
    with listen(port) as listener, tempfile.TemporaryDirectory(prefix="gax-") as folder:
        logger.info(
            f"reading snapshot {catalog.version} of {catalog.uri}: {catalog.galaxy_count():,} galaxies"
        )
        survey = Survey(catalog, Path(folder), sources)
        logger.info(f"explore it at http://{ADDRESS}:{listener.getsockname()[1]}/ (Ctrl-C ends)")
        with suppress(KeyboardInterrupt):
            make_server(survey).run(sockets=[listener])
        survey.pictures.close()


def make_server(survey: Survey) -> uvicorn.Server:
    """A server of the pages, which is given its socket when it is run."""
    config = uvicorn.Config(
        make_app(survey), log_level="warning", access_log=False, lifespan="off", ws="none"
    )
    config.server_header = False
    return uvicorn.Server(config)


def listen(port: int) -> socket.socket:
    """A socket that only this machine reaches.

    Raises:
        UsageError: The port is taken, or not ours to take.
    """
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be listened on ({error.strerror}); choose another --port"
        ) from error
