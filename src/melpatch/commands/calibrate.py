"""Learn on validation clips how far to trust a classifier, after its training."""

from melpatch.workflows.calibrate import CalibrateConfig as Config
from melpatch.workflows.calibrate import calibrate_run


def run(config: Config) -> None:
    """Leave the temperature, thresholds and novelty in the run folder, for ``melpatch predict``."""
    calibrate_run(config)
