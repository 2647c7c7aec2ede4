"""What the commands show while they run: progress on standard error, and a stop that loses nothing."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from interp.errors import Interrupted

out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def notify(line: str) -> None:
    """Says in one line what is happening."""
    err.print(Text(visible(line)))


def visible(text: str) -> str:
    """Text without terminal control characters; user text must not move the cursor or set a title."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


@contextmanager
def progress(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left; the yielded function is told (done, total)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(label, total=None, count="", rate="")

        def update(done: int, total: int) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            count = f"{done:,}/{total:,} {unit}"
            bar.update(task, completed=done, total=total, count=count, rate=f"{speed:,.1f} {unit}/s" if speed else "")

        yield update


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Yields a function that turns True at Ctrl-C or SIGTERM; a second signal ends the program at once.

    A flag is used because an exception can strike between any two instructions; work stops between shards, answers or
    steps instead.
    """
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        notify("Stopping after the work in hand, which is kept; once more to stop at once.")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: bool(received)
    except Interrupted as stop:
        stop.exit_code = 128 + received[0] if received else Interrupted.exit_code
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show(frame: pd.DataFrame) -> None:
    """Prints a small frame as a table on standard output."""
    table = Table(*map(str, frame.columns))
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(visible(str(cell))) for cell in row))
    out.print(table)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
