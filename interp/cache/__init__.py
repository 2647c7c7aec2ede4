from interp.cache.harvest import Harvest, expected_seconds, harvest_into, plan_harvest, run_harvest
from interp.cache.plan import Capture
from interp.cache.store import ActivationCache

__all__ = ["ActivationCache", "Capture", "Harvest", "expected_seconds", "harvest_into", "plan_harvest", "run_harvest"]
