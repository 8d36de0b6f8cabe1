"""Start a command twice on one output: the second process says so, or both results are right."""

from benchmarks.faults.jobs import Job
from benchmarks.faults.kills import Found
from benchmarks.faults.processes import ended, finish, start

REFUSED = "another process"


def run_together(job: Job, delay: float, *, older: bool = False) -> Found:
    """Start the second process `delay` seconds after the first one."""
    found, where = Found(number=1), f"{job.name}, twice, {delay:.2f} s apart"
    job.begin(older=older)
    second_log = job.log.with_suffix(".second.log")
    first = start(job.words, job.log)
    status = ended(first, delay)
    second = start(job.words, second_log)
    statuses = {job.log: finish(first) if status is None else status, second_log: finish(second)}
    for log, status in statuses.items():
        text = log.read_text(errors="replace")
        if "Traceback" in text or (status and REFUSED not in text):
            found.unclear.append(f"{where}: status {status}: {text[-400:]}")
    if all(statuses.values()):
        found.wrong_results.append(f"{where}: both failed")
    found.wrong_results += [f"{where}: {difference}" for difference in job.differences()]
    found.leftovers += [f"{where}: {path}" for path in job.leftovers()]
    return found
