"""The conditions of the daemon that people should know, in the same words wherever they are shown."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

from dcnumd.errors import printable
from dcnumd.reasons import Reason
from dcnumd.report import wording
from dcnumd.status import Blocked, Cluster, Ended, Fault, Snapshot, Unacknowledged
from dcnumd.words import distinct_names, duration

LONG_WAIT_SECONDS = 3600.0
"""Waiting time of a complete measurement after which people are told [s]."""

Name = Literal[
    "daemon.stopping",
    "ledger.unwritable",
    "worker.failed",
    "executor.unreachable",
    "daemon.starting",
    "executor.no_workers",
    "executor.fallback",
    "worker.excluded",
    "watch.unreachable",
    "disk.low",
    "output.blocked",
    "report.blocked",
    "daemon.paused",
    "failures",
    "queue.late",
    "pipeline.held",
]
"""Names of conditions, the most urgent first; where a log event announces the condition, it has the same name."""
NAMES: tuple[Name, ...] = get_args(Name)

STOPPERS: frozenset[Name] = frozenset(NAMES) - {
    "executor.fallback",
    "worker.excluded",
    "disk.low",
    "output.blocked",
    "report.blocked",
    "failures",
    "queue.late",
}
"""Conditions in which measurements wait that have no reason of their own in the ledger."""

FAULTS: dict[Fault, Reason] = {
    "ledger.unwritable": Reason(
        "The ledger cannot be written, so nothing is processed",
        "Ask the engineer to free space in the state folder, or to make it writable; processing then continues by "
        "itself.",
        "ledger",
        "yes",
    ),
    "worker.failed": Reason(
        "The process that does the work cannot be started, so nothing is processed",
        "Ask the engineer; the log says what is wrong. It is started again until that succeeds.",
        "computer",
        "yes",
    ),
    "executor.unreachable": Reason(
        "The computers that process measurements cannot be reached",
        "Ask the engineer to check the network and the scheduler; processing continues by itself once they can.",
        "computer",
        "yes",
    ),
}
"""Cause and cure of faults for which nothing is processed."""
FALLBACK_CURE = "Ask the engineer to check the network, the scheduler and the workers."
"""What to do while this computer processes what others should."""
EXCLUDED_CURE = "Ask the engineer to check it; it is tried again by itself."
"""What to do about a computer that cannot process measurements."""


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """One condition of the daemon."""

    name: Name
    light: Literal["green", "yellow", "red", "grey"]
    title: str
    text: str
    """Cause and cure, as sentences."""
    folders: tuple[str, ...] = ()
    """The folders to which it applies; empty if it applies to all measurements."""
    detailed: str = ""
    """Name, cause, exact error and cure as one line; empty if `text` says all."""

    @property
    def failing(self) -> bool:
        """Whether the daemon cannot work, or measurements wait for a folder."""
        return self.light in {"red", "grey"} or self.name in {"disk.low", "output.blocked"}

    @property
    def line(self) -> str:
        """The condition as one line that begins with its name."""
        return self.detailed or f"{self.name}: {self.text}"

    def concerns(self, path: str) -> bool:
        """Return whether a measurement that is not done waits because of this condition."""
        parents = pathlib.PurePath(path).parents
        here = not self.folders or any(pathlib.PurePath(folder) in parents for folder in self.folders)
        return here and self.name in STOPPERS


def conditions_of(snapshot: Snapshot, names: Mapping[str, str] | None = None) -> tuple[Condition, ...]:
    """Return the conditions in a state of the daemon, the most urgent first.

    Parameters
    ----------
    snapshot
        State of the daemon.
    names
        The name to show for the path of each measurement; by default the shortest that distinguish them.
    """
    names = names_of(snapshot) if names is None else names
    found = [*_of_daemon(snapshot, names), *_of_folders(snapshot), *_of_work(snapshot, names)]
    return tuple(sorted(found, key=lambda one: NAMES.index(one.name)))


def names_of(snapshot: Snapshot) -> dict[str, str]:
    """Return the names of all measurements in a state of the daemon by path, with what distinguishes them."""
    latest = snapshot.unacknowledged.latest
    shown = (
        *snapshot.recording,
        *snapshot.waiting,
        *((snapshot.running,) if snapshot.running else ()),
        *snapshot.also_running,
        *snapshot.done,
        *snapshot.failed,
        *((latest,) if latest else ()),
    )
    return {path: printable(name) for path, name in distinct_names(one.path for one in shown).items()}


def of_blocked(blocked: Sequence[Blocked], folders: int | None = None) -> Iterator[Condition]:
    """Yield a condition for each folder that takes no results; red if all `folders` are such, if that is known."""
    for one in blocked:
        cause = wording.cause_of(one.reason)
        text = f"{printable(one.folder)}: {cause.what}, {wording.who_waits(one.waiting)}. {cause.cure}"
        light: Literal["red", "yellow"] = "red" if folders is not None and len(blocked) >= folders else "yellow"
        line = wording.told_of_blocked(one.problem, one.reason, one.error, one.waiting)
        yield Condition(one.problem, light, "No place for results", text, (one.folder,), line)


def of_blocked_reports(blocked: Iterable[Blocked], results: Sequence[Blocked]) -> Iterator[Condition]:
    """Yield a condition for each folder that takes no reports, unless one for `results` says so of a folder above."""
    for one in blocked:
        path = pathlib.PurePath(one.folder)
        if any(path.is_relative_to(other.folder) for other in results):
            continue
        waits, error = wording.who_waits(one.waiting, "report"), printable(one.error).rstrip(".")
        cure = wording.cause_of(one.reason).cure
        text = f"{printable(one.folder)}: no reports can be written, {waits}. {error}. {cure}"
        yield Condition("report.blocked", "yellow", "No place for reports", text, (one.folder,))


def of_news(news: Unacknowledged, name: str) -> Iterator[Condition]:
    """Yield the condition for failures and red lights that nobody has acknowledged."""
    if news.latest is not None:
        text = f"{printable(name)}: {_what_happened(news.latest)}"
        yield Condition("failures", "yellow", wording.news_in_words(news.failed, news.red), text)


def _what_happened(latest: Ended) -> str:
    if latest.state != "failed":
        return f"{wording.warning_words(latest.warnings)}. Look at its report."
    cause = wording.cause_of(latest.reason)
    return f"{cause.what}. {cause.cure}"


def _of_daemon(snapshot: Snapshot, names: Mapping[str, str]) -> Iterator[Condition]:
    if snapshot.stopping:
        text = "dcnumd was asked to end. What waits is processed after the next start."
        yield Condition("daemon.stopping", "grey", "Stopping", text)
        return
    for fault in snapshot.faults:
        cause = FAULTS[fault]
        yield Condition(fault, "red", "Out of order", f"{cause.what}. {cause.cure}")
    if not snapshot.ready and not snapshot.faults:
        text = "This takes some seconds, and a minute the first time."
        yield Condition("daemon.starting", "grey", "Starting", text)
    if snapshot.cluster is not None:
        yield from _of_cluster(snapshot.cluster, ready=snapshot.ready)
    if snapshot.paused:
        finished = f"{names[snapshot.running.path]} is finished first. " if snapshot.running else ""
        text = f"{finished}No measurement is started until somebody resumes."
        yield Condition("daemon.paused", "yellow", "Paused", text)


def _of_cluster(cluster: Cluster, *, ready: bool) -> Iterator[Condition]:
    if ready and cluster.connected and not cluster.useful and not cluster.fallback:
        others = f" {cluster.refused:,} cannot be used because their versions differ." if cluster.refused else ""
        text = f"No other computer is ready to process measurements, so they wait.{others} Ask the engineer."
        yield Condition("executor.no_workers", "yellow", "No computer to process", text)
    if cluster.fallback:
        alone = "No other computer is ready to process measurements"
        why = alone if cluster.connected else FAULTS["executor.unreachable"].what
        text = f"{why}, so this computer processes them. {FALLBACK_CURE}"
        yield Condition("executor.fallback", "yellow", "Processed on this computer", text)
    for one in cluster.excluded:
        cause, name = wording.cause_of(one.reason), printable(one.worker)
        text = f"{name} could not do what other computers can, so these process the measurements. {cause.what}."
        yield Condition("worker.excluded", "yellow", "A computer is not used", f"{text} {EXCLUDED_CURE}")


def _of_folders(snapshot: Snapshot) -> Iterator[Condition]:
    folders = snapshot.folders
    if lost := tuple(folder.path for folder in folders if not folder.reachable):
        named = ", ".join(map(printable, lost))
        text = f"{named} cannot be reached. Connect the share or disk; processing then continues by itself."
        light: Literal["red", "yellow"] = "red" if len(lost) == len(folders) else "yellow"
        yield Condition("watch.unreachable", light, "A folder is missing", text, lost)
    yield from of_blocked(snapshot.blocked, len(snapshot.outputs))
    yield from of_blocked_reports(snapshot.blocked_reports, snapshot.blocked)


def _of_work(snapshot: Snapshot, names: Mapping[str, str]) -> Iterator[Condition]:
    news, running = snapshot.unacknowledged, snapshot.running
    yield from of_news(news, names[news.latest.path] if news.latest else "")
    # A measurement whose turn it is has left the queue, but has not been started while something is recorded.
    queued, unreported = snapshot.counts.get("queued", 0) > 0, any(one.report_wanted for one in snapshot.done)
    held = snapshot.held_for_recording and (running is not None or queued or unreported)
    if snapshot.oldest_wait_seconds > LONG_WAIT_SECONDS and not held:
        text = (
            f"{snapshot.queue:,} wait, the first for {duration(snapshot.oldest_wait_seconds)}. "
            "This computer does not keep up with the recordings; it catches up when less is recorded."
        )
        yield Condition("queue.late", "yellow", "Measurements wait long", text)
    if held:
        text = "The processing stands still until the recording has ended."
        yield Condition("pipeline.held", "green", "Recording", text)


def concerning(found: Iterable[Condition], path: str) -> list[Condition]:
    """Return the conditions for which a measurement that is not done waits."""
    return [one for one in found if one.concerns(path)]


def concerning_report(found: Iterable[Condition], path: pathlib.PurePath) -> list[Condition]:
    """Return the conditions for which a report waits that is to be written to a path."""
    folder = str(path.parent)
    return [
        one for one in found if one.name == "pipeline.held" or (one.name == "report.blocked" and folder in one.folders)
    ]
