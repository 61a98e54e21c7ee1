"""The drawings of the explanation: `make reference` writes them into docs/images, without a program that draws."""

import html

#: Pixels between two actors, and between two steps.
ACROSS, DOWN = 230, 34
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1b1f29; } .who { font-weight: 600; } .small { fill: #596073; }
line, path { stroke: #596073; fill: none; } .back { stroke-dasharray: 5 4; } .box { fill: #fff; stroke: #8a92a6; }
.page { fill: #f4f5f7; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9f0; } .small { fill: #a9b1c4; } line, path { stroke: #a9b1c4; } .box { fill: #1b1f29; stroke: #6b7388; }
  .page { fill: #11151c; }
}
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 8 4 0 8"/></marker></defs>"""

CLIENT, WEB, REDIS, WORKER = "client", "web process", "Redis", "worker process"
ACTORS = (CLIENT, WEB, REDIS, WORKER)
#: A chain: who, to whom, what; without the second it is what one does.
CHAIN = (
    (CLIENT, WEB, "GET /reports/2025"),
    (WEB, REDIS, "the request, as a call"),
    (REDIS, WORKER, "the call"),
    (WORKER, "", "runs the app's handler, once"),
    (WEB, "", "waits, up to 150 s"),
    (WEB, CLIENT, "303 result URL, hop 1"),
    (CLIENT, WEB, "GET result URL"),
    (WEB, "", "waits on the same call"),
    (WEB, CLIENT, "303 result URL, hop 2"),
    (CLIENT, WEB, "GET result URL"),
    (WORKER, REDIS, "the response"),
    (REDIS, WEB, "wakes who waits"),
    (WEB, CLIENT, "200, the app's response"),
)
SLOW_POST = (
    (CLIENT, WEB, "POST /ocr, 1 MiB"),
    (WEB, REDIS, "4 chunks, then the call"),
    (REDIS, WORKER, "the call"),
    (WORKER, REDIS, "takes attempt 1, reads the body"),
    (WEB, "", "waits 150 s"),
    (WEB, CLIENT, "303 result URL, hop 1"),
    (CLIENT, WEB, "GET result URL"),
    (WEB, REDIS, "joins the call"),
    (WORKER, REDIS, "the response, the outcome"),
    (REDIS, WEB, "wakes who waits"),
    (WEB, CLIENT, "200, the app's response"),
)
#: The packages of each half from the top down.
WEB_HALF = (
    (
        ("serving", "commands, servers, gunicorn"),
        ("integrations", "the ways in"),
    ),
    (("front", "the stages of a request"), ("functions", "calls that are spawned")),
    (("pages", "what people see"), ("watching", "one listener, one housekeeper")),
    (("http", "environs, URLs, answers; no Redis"),),
    (("store", "all that touches Redis"),),
    (("the ground", "errors, settings, target, current, ..."),),
)
WORKER_HALF = (
    (("entry", "the way in of RQ's own worker"), ("pool", "the parent that supervises")),
    (("worker", "one worker process"),),
    (("attempt", "one run of a call"),),
    (("apps", "what a target offers"),),
    (("process", "shared memory, interrupts, forks"),),
)


def sequence(steps, title):
    """Return who tells whom what, from the top down, as SVG."""
    place = {actor: 80 + ACROSS * number for number, actor in enumerate(ACTORS)}
    bottom = 70 + DOWN * len(steps)
    rows = []
    for actor, x in place.items():
        rows.append(f'<line x1="{x}" y1="44" x2="{x}" y2="{bottom}"/>')
        rows.append(label(x, 30, actor, "who"))
    for number, (one, other, text) in enumerate(steps):
        y = 76 + DOWN * number
        if not other:
            rows.append(box(place[one], y - 18, 212, 24))
            rows.append(label(place[one], y - 1, text, "small"))
            continue
        step = 8 if place[other] > place[one] else -8
        back = ' class="back"' if step < 0 else ""
        ends = f'x1="{place[one]}" x2="{place[other] - step / 4:g}"'
        rows.append(f'<line {ends} y1="{y}" y2="{y}" marker-end="url(#head)"{back}/>')
        rows.append(label((place[one] + place[other]) / 2, y - 6, text))
    return svg(place[ACTORS[-1]] + 110, bottom + 10, rows, title)


def layers(title):
    """Return the packages of both halves, each row above what it may import, as SVG."""
    rows = [label(255, 24, "wsgi_timeout: the web half, and what both share", "who")]
    rows.append(label(760, 24, "wsgi_timeout_jobs: the worker half", "who"))
    for left, width, half in ((10, 490, WEB_HALF), (515, 490, WORKER_HALF)):
        for number, row in enumerate(half):
            each = width / len(row)
            for place, (name, what) in enumerate(row):
                x, y = left + each * (place + 0.5), 40 + 62 * number
                rows += [
                    box(x, y, each - 10, 46),
                    label(x, y + 19, name, "who"),
                    label(x, y + 37, what, "small"),
                ]
    bottom = 40 + 62 * len(WEB_HALF)
    rows.append(f'<path d="M760 {bottom - 62}V{bottom - 38}H503" marker-end="url(#head)"/>')
    rows.append(label(760, bottom - 20, "imports what both share", "small"))
    rows.append(label(255, bottom + 12, "an import goes down only", "small"))
    return svg(1015, bottom + 26, rows, title)


def box(x, y, width, height):
    return f'<rect class="box" x="{x - width / 2:g}" y="{y:g}" width="{width:g}" height="{height}" rx="6"/>'


def label(x, y, text, kind=""):
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle" class="{kind}">{html.escape(text)}</text>'


def svg(width, height, rows, title):
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    # A page may be light while the reader's system is dark: the drawing has a ground of its own.
    body = "\n".join([f'<rect class="page" width="{width:g}" height="{height:g}" rx="8"/>', *rows])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<title>{title}</title>\n{STYLE}\n{body}\n</svg>\n'
    )


DRAWINGS = {
    "chain.svg": lambda: sequence(CHAIN, "A chain of two redirects"),
    "slow-post.svg": lambda: sequence(SLOW_POST, "A slow POST of 1 MiB"),
    "packages.svg": lambda: layers("The packages of both halves"),
}
