"""Where the numbers of a training go besides its tables: a tracker that the user has installed."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from interp.errors import UsageError

Log = Callable[[Mapping[str, float | int]], None]
TRACKERS = ("trackio", "wandb")


def tracker(name: str, project: str, config: Mapping[str, Any]) -> Log:
    """Starts a run of a tracker and returns what logs to it; only on request, for it may use the network.

    Args:
        name: trackio or wandb.
        project: the name that runs are gathered under.
        config: what is recorded of the run.

    Raises:
        UsageError: for another name, or when the tracker is not installed.
    """
    if name not in TRACKERS:
        raise UsageError(f"unknown tracker {name!r}; choose one of {', '.join(TRACKERS)}.")
    try:
        module = import_module(name)
    except ImportError as error:
        raise UsageError(f"{name} is not installed; `pip install {name}` and run the command again.") from error
    module.init(project=project, config=dict(config))
    log: Log = module.log
    return log
