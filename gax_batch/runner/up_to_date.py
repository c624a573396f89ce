"""Plan a run without a cluster to find out whether it has anything to do."""

import logging
import tempfile
from pathlib import Path

from gax_batch.catalog.snapshots import Catalog
from gax_batch.models.bundle import load_catalog_bundle
from gax_batch.runner.fingerprint import settings_fingerprint
from gax_batch.runner.preparation import plan_run, report_changed_settings, settle_precision
from gax_batch.runner.settings import RunSettings
from gax_batch.runner.webhook import Webhook

logger = logging.getLogger(__name__)


def is_up_to_date(settings: RunSettings) -> bool:
    """Plan a run. If it has nothing to do, log this and post it to the webhook, as the run itself would.

    Args:
        settings: Settings of the run.

    Returns:
        Whether the run has nothing to do.

    Raises:
        UsageError: The run would be refused with the same message.
        TransientError: The store kept failing.
    """
    webhook = Webhook(settings.webhook)
    bundle, catalog = load_catalog_bundle(settings.bundle), Catalog(settings.catalog)
    settings = settle_precision(settings, bundle, catalog)
    fingerprint = settings_fingerprint(settings, bundle)
    report_changed_settings(settings, bundle, catalog, fingerprint)
    with tempfile.TemporaryDirectory(prefix="gax-") as folder:
        plan = plan_run(settings, catalog, fingerprint, Path(folder), keep_index=False)
        if plan.units or plan.removed:
            return False
    report_nothing_to_do(settings.catalog, catalog.version, webhook)
    return True


def report_nothing_to_do(catalog: str, version: int | None, webhook: Webhook) -> None:
    """Log and post that a catalog is up to date.

    Args:
        catalog: URI of the catalog.
        version: Snapshot of the catalog, None if there is none yet.
        webhook: Webhook that receives the message.
    """
    logger.info(f"nothing to do: 0 units; {catalog} is up to date at snapshot {version}")
    text = f"gax run: nothing to do; {catalog} is up to date at snapshot {version}"
    webhook.send({"text": text, "catalog": catalog, "status": "nothing to do", "snapshot": version})
