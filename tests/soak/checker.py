"""Reads the histories of clients and handlers, and says which promises were broken.

A client writes for each of its calls

    sent       with `kind` and `target`; it is about to send the request
    left       it closed its connection before it was told a result URL
    refused    503 before anything was accepted
    unknown    the connection broke before an answer: nobody can say whether the call was accepted
    accepted   it got a result URL, or a function's id
    shared     somebody else asked for the result too, and left
    answer     the last answer: `status`, whether its body was `right`: the call's own, and whole; and whether
               it came so `late` that the grace may have been over of what others were given
    gone       its client gave up waiting: too late, or the result URL was not known
    again      what a reload of its result URL gave after the answer; `late` if the grace may have been over

and a handler `start` and `end`.
"""

from collections import Counter, defaultdict

#: Kinds whose handler must not start twice.
UNSAFE = {"write", "upload", "function", "drip", "leave-write"}
#: Kinds whose answer comes in a stream; a slow one is read drop by drop.
DOWNLOADS = {"download", "slow"}
#: Starts of a handler that may run again: the first one, and one for a lost worker.
MOST_STARTS = 2
#: How a call may end: with the handler's answer, lost with its worker, cancelled, or broken off.
OUTCOMES = {200, 502, 410, "broken"}
#: A download over the buffer whose first reader went with its web process.
TRIMMED = 409


def check(clients, handlers):
    """Return what is wrong, one sentence for each, sorted; an empty list is a pass."""
    calls, starts, ends = defaultdict(list), Counter(), Counter()
    targets = defaultdict(set)
    for line in clients:
        calls[line["number"]].append(line)
    for line in handlers:
        (starts if line["what"] == "start" else ends)[line["number"]] += 1
        targets[line["number"]].add(line.get("target"))
    wrong = []
    for number, story in calls.items():
        wrong += (f"{number}: {text}" for text in _wrong(story, starts[number], ends[number]))
        if targets[number] - {story[0].get("target")}:
            wrong.append(f"{number}: another target's handler ran: {sorted(targets[number])}")
    wrong += (
        f"{number}: a handler started that no client asked for" for number in starts.keys() - calls.keys()
    )
    return sorted(wrong)


def _wrong(story, starts, ends):
    kind = story[0]["kind"]
    told = Counter(line["what"] for line in story)
    answers = [line for line in story if line["what"] == "answer"]
    if told["gone"]:
        yield f"{kind}, accepted, and its outcome was never told: {story[-1].get('why')}"
    if len(answers) + told["refused"] + told["unknown"] + told["gone"] + told["left"] != 1:
        yield f"{kind}, {len(answers)} outcomes: {[line['what'] for line in story]}"
    yield from _wrong_answers(kind, story, told, ends)
    if told["refused"] and starts:
        yield f"{kind}, refused, and its handler started"
    most = 1 if kind in UNSAFE else MOST_STARTS
    if starts > most:
        yield f"{kind}, started {starts} times, {most} at most"


def _wrong_answers(kind, story, told, ends):
    for answer in (line for line in story if line["what"] == "answer"):
        if answer["status"] not in OUTCOMES and (kind in DOWNLOADS, answer["status"]) != (True, TRIMMED):
            yield f"{kind}, answered with {answer['status']}"
        if answer["status"] == 200 and not answer["right"]:
            yield f"{kind}, the answer holds other bytes than its own"
        # A download's last bytes are out before its handler's end, which a fault may then prevent.
        if answer["status"] == 200 and not ends and kind not in DOWNLOADS:
            yield f"{kind}, answered with 200, and no handler came to its end"
        if answer["status"] == 410 and not told["cancelled"] and not (told["shared"] and answer.get("late")):
            yield f"{kind}, told to be cancelled or delivered, and was neither"
    for again in (line for line in story if line["what"] == "again"):
        if again["status"] == 200 and not again["right"]:
            yield f"{kind}, its reload holds other bytes than its own"
        if again["status"] != 200 and not (again["status"] == 410 and again["late"]):
            yield f"{kind}, answered with 200, and its reload with {again['status']}"


def summary(clients):
    """Return how many calls ended how, by kind: `{(kind, outcome): count}`."""
    kinds = {line["number"]: line["kind"] for line in clients if line["what"] == "sent"}
    counted = Counter()
    for line in clients:
        if line["what"] in {"answer", "refused", "unknown", "gone", "left"}:
            counted[kinds[line["number"]], line.get("status", line["what"])] += 1
        if line["what"] == "again":
            counted[kinds[line["number"]], f"again {line['status']}"] += 1
    return counted
