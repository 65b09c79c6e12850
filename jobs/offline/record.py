"""What is written of a job beside its results: so it can go on, and is not taken for another."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from cluster.places import open_storage
from cluster.storage import Changed, NotFound, Storage
from genimg.errors import InputError
from jobs.offline.job import Job

RECORD = "operation.json"  # which job the results are of
SHARD = re.compile(r"shard-\d{5,}-of-\d{5,}\.parquet")
PART = re.compile(r"part-\d{6,}-of-\d{6,}\.jsonl")
FAILURES = "failures.jsonl"  # what failed of a job, and why, a line each
OPEN = {"precision": "auto", "digest": ""}  # of a job: values of what is still to be found out


def claim(job: Job, overwrite: bool) -> Job:
    """The job as it goes on: begun now, or before, where a record says so.

    InputError where another job has left its results there, unless these are to be overwritten. One
    of which nothing came but failures, as of a wrong model or mask, is in nobody's way.
    """
    storage = open_storage(job.output)
    try:
        text = storage.read(RECORD)[0].decode()
    except NotFound:
        text = ""
    before = recorded(text, job) if text and not overwrite else None
    different = differences(before, job) if before else {}
    if different and not fruitless(job):
        key, (theirs, ours) = next(iter(different.items()))
        raise InputError(
            f"{job.output}: there are results of a job with {key}={theirs}, and this one has"
            f" {ours}; name another place, or --overwrite"
        )
    if before and not different:
        storage.delete(FAILURES)  # which are tried again
        job = replace(
            job,
            options=before.options,
            rows=before.rows,
            precision=before.precision,
            digest=before.digest,
            since=before.since,
        )
    else:
        if job.form == "shards":  # of another number of rows, they would be read beside the new
            for key in storage.list(""):
                if SHARD.fullmatch(key):
                    storage.delete(key)
        job = replace(job, options=with_seed(job))
        storage.write(RECORD, job.text().encode())
    written = storage.find(RECORD)
    assert written is not None, "it was just read or written"
    return replace(job, since=job.since or written.modified)


def settled(job: Job, **found: str) -> Job:
    """The job with what is the same for all of it as its record tells, or from now on as found.

    found: of OPEN, by who was the first to know: in which precision a process computes that has
        loaded the model, which version of it a server has
    """
    storage = open_storage(job.output)
    while True:
        data, etag = storage.read(RECORD)
        told = asdict(Job.read(data.decode()))
        known = {key: told[key] for key, open_ in OPEN.items() if told[key] != open_}
        job = replace(job, **found | known)
        if known.keys() >= found.keys():
            return job
        try:
            storage.replace(RECORD, job.text().encode(), etag)
        except Changed:
            continue
        return job


def forget(job: Job) -> None:
    """Leave no record of a job that was refused before it left a result."""
    results = done_before(job) - {RECORD, FAILURES}
    if not results:
        open_storage(job.output).delete(RECORD)


def release(job: Job, failed: Sequence[Sequence[str]]) -> None:
    """All was tried: what failed is listed."""
    write_failures(open_storage(job.output), failed)


def write_failures(storage: Storage, failed: Sequence[Sequence[str]]) -> None:
    """[what, why] of each, a line each; no file where nothing failed."""
    if failed:
        lines = [json.dumps({"file": what, "reason": why}) + "\n" for what, why in failed]
        storage.write(FAILURES, "".join(lines).encode())
    else:
        storage.delete(FAILURES)


def done_before(job: Job) -> set[str]:
    """Keys of results that this job has left already."""
    entries = open_storage(job.output).entries("")
    return {entry.key for entry in entries if entry.modified >= job.since}


def fruitless(job: Job) -> bool:
    """Whether the job that was where this one writes has ended, with nothing but failures."""
    storage = open_storage(job.output)
    keys = {entry.key for entry in storage.entries("")}
    results = keys - {RECORD, FAILURES}
    return FAILURES in keys and all(
        PART.fullmatch(key) and tells_of_failures(storage, key) for key in sorted(results)
    )


def tells_of_failures(storage: Storage, part: str) -> bool:
    """Whether a file of what is told of images tells of none."""
    return all("error" in json.loads(line) for line in storage.read(part)[0].splitlines())


def recorded(text: str, job: Job) -> Job:
    try:
        return Job.read(text)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            f"{job.output}/{RECORD}: no record of a job of genimg; name another place"
        ) from None


def differences(before: Job, job: Job) -> dict[str, tuple[Any, Any]]:
    """{what: (before, now)}; a seed that is to be random goes on as the one that was drawn."""
    theirs, ours = (
        asdict(one) | one.options | one.beside | {"sources": places_of(one)}
        for one in (before, job)
    )
    for key, open_ in (("seed", -1), *OPEN.items()):  # what was found out before counts
        if ours.get(key) == open_:
            ours[key] = theirs.get(key)
    passed_over = ["options", "beside", "since", "output"]
    if job.form != "shards":  # else it does not show in the results
        passed_over.append("rows")
    keys = [key for key in theirs | ours if key not in passed_over]
    found = {key: (theirs.get(key), ours.get(key)) for key in keys}
    return {key: (was, now) for key, (was, now) in found.items() if was != now}


def places_of(job: Job) -> str:
    return " ".join(source.place for source in job.sources)


def with_seed(job: Job) -> dict[str, Any]:
    """The job's options, with a seed drawn where it was to be."""
    first = getattr(job.asked, "first_seed", None)
    return job.options | ({"seed": first()} if first else {})
