"""A catalog's pages, served in this process."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waiting import wait_for

from gax_batch.catalog.snapshots import open_existing
from gax_batch.viewer.explorer.server import ADDRESS, listen, make_server
from gax_batch.viewer.explorer.survey import Survey

START_SECONDS = 30


@contextmanager
def serving(catalog: str, version: int | None = None) -> Iterator[str]:
    """The address of the pages of a snapshot, while the block lasts."""
    with tempfile.TemporaryDirectory() as folder, listen(0) as listener:
        survey = Survey(open_existing(catalog, version), Path(folder))
        server = make_server(survey)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_for(lambda: server.started, "the server", START_SECONDS)
            yield f"http://{ADDRESS}:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()
            survey.pictures.close()
