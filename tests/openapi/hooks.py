"""What a schema cannot say of a call that is good, and what must not be done to the people whom the calls are made by."""

import datetime
import itertools
import json
import os

import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode

PASSWORD = "correct-horse-battery"
KEPT_USERS = os.environ["KEPT_USERS"].split(",")
VICTIMS = os.environ["VICTIMS"].split(",")
KEYS = itertools.count()

# Memories and records lie at most five minutes ahead.
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))
PAST = st.datetimes(datetime.datetime(2, 1, 1), NOW.replace(tzinfo=None) - datetime.timedelta(days=1), timezones=ZONES)
schemathesis.openapi.format("date-time", PAST.map(datetime.datetime.isoformat))
# Either end of a span of ten years at most; that one does not lie after the other is told in words.
DAYS = st.dates(NOW.date() - datetime.timedelta(days=2000), NOW.date())
schemathesis.openapi.format("date", DAYS.map(datetime.date.isoformat))

LINES = ("application/x-ndjson", "application/jsonl")


@schemathesis.serializer(*LINES)
def lines(context, value):
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.hook
def before_call(context, case, kwargs):
    of_case = case.operation.definition.raw.get("operationId", "")
    spare(case)
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    # A key is used for one write, and each of these is another.
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f"{next(KEYS)}{case.headers['Idempotency-Key']}"[:255]
    # A cursor is what a page before gave.
    if isinstance(case.query, dict):
        case.query.pop("cursor", None)
        if of_case == "getTotals":
            for name in ("from", "to"):
                # Ten years at most, up to today.
                if "T" in str(case.query.get(name, "")):
                    case.query[name] = (NOW - datetime.timedelta(days=len(case.query[name]))).isoformat()
            if "from" in case.query and "to" in case.query:
                case.query["from"], case.query["to"] = sorted([case.query["from"], case.query["to"]])
    body = case.body
    if not isinstance(body, dict):
        return
    if of_case in ("recordUsage", "recordBatch"):
        for record in body.get("entries") or [body]:
            # At most 35 days back.
            if record.get("timestamp"):
                record["timestamp"] = (NOW - datetime.timedelta(hours=len(record["timestamp"]))).isoformat()
    if of_case == "changePassword" and body.get("currentPassword") == PASSWORD:
        body["newPassword"] = PASSWORD
    for holder in [body, *(body.get("memories") or [])]:
        # Not all of them 0, also as 32 bits hold them.
        if isinstance(holder, dict) and holder.get("embedding") and all(abs(number) < 1e-15 for number in holder["embedding"]):
            holder["embedding"][0] = 1


def spare(case):
    """Nobody who makes calls is erased, disabled or given another password."""
    user = (case.path_parameters or {}).get("id")
    if case.method != "GET" and case.path.startswith("/api/admin/users/{id}") and user in KEPT_USERS:
        case.path_parameters["id"] = VICTIMS[0] if case.method == "DELETE" else VICTIMS[1]
