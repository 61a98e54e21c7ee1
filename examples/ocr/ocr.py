"""A document OCR web app: upload a receipt, watch the progress, read its text, total and date.

The page is a Flask app; reading is a function that is spawned, so that an upload is answered at once.
It needs Debian's `tesseract-ocr` and `pip install pytesseract pillow`. Serve it with

    wsgi-timeout serve ocr.py:stub
"""

import io
import re
import statistics

from wsgi_timeout import FunctionCall, Stub, progress, wsgi_app

stub = Stub("ocr")

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
{% if refresh %}<meta http-equiv="refresh" content="1">{% endif %}
<title>Receipts</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
  progress { width: 100% } pre { background: #8882; padding: 1rem; white-space: pre-wrap }
  dt { font-weight: 600 }
</style>
<h1>Receipts</h1>
{{ body }}
<p><a href="{{ url_for('index') }}">Another receipt</a></p>
"""

STEPS = ("Straightening", "Reading", "Looking for total and date")


@stub.function()
@wsgi_app()
def web():
    """Return the web app: it is imported in workers only."""
    from flask import Flask, abort, redirect, render_template_string, request, url_for
    from markupsafe import Markup

    from wsgi_timeout.errors import CallFailed, OutputExpiredError, RemoteError

    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 20 * 2**20

    def page(template, *, refresh=False, **values):
        body = Markup(render_template_string(template, **values))
        return render_template_string(PAGE, body=body, refresh=refresh)

    @app.get("/")
    def index():
        return page("""<form action="{{ url_for('upload') }}" method="post" enctype="multipart/form-data">
          <input type="file" name="image" id="image" accept="image/*" required>
          <button id="send">Read it</button></form>""")

    @app.post("/receipts")
    def upload():
        image = request.files["image"].read()
        if not image:
            abort(400, "the file is empty")
        call = read_receipt.spawn(image)
        return redirect(url_for("receipt", call_id=call.object_id), code=303)

    @app.get("/receipts/<call_id>")
    def receipt(call_id):
        call = FunctionCall.from_id(call_id)
        try:
            found = call.get(timeout=0)
        except TimeoutError:
            done = call.status()["progress"] or {"done": 0, "total": len(STEPS), "message": "Waiting"}
            return page(
                """<p id="step">{{ done.message }} …</p>
                <progress value="{{ done.done }}" max="{{ done.total }}"></progress>""",
                refresh=True,
                done=done,
            )
        except OutputExpiredError:
            abort(404, "there is no such receipt, or it is not kept any more")
        except (CallFailed, RemoteError, OSError, ValueError) as error:
            return page("<p>This image could not be read: {{ error }}</p>", error=error), 422
        return page(
            """<dl><dt>Total</dt><dd id="total">{{ total or "not found" }}</dd>
            <dt>Date</dt><dd id="date">{{ date or "not found" }}</dd></dl>
            <pre id="text">{{ text }}</pre>""",
            **found,
        )

    return app


@stub.function(timeout=120, retries=1)
def read_receipt(image):
    """Return `{"text", "total", "date"}` of a receipt; `image` is a file of any format that Pillow reads."""
    import pytesseract
    from PIL import Image

    progress(0, len(STEPS), STEPS[0])
    straight = straightened(Image.open(io.BytesIO(image)))
    progress(1, len(STEPS), STEPS[1])
    text = pytesseract.image_to_string(straight, config="--psm 6").strip()
    progress(2, len(STEPS), STEPS[2])
    return {"text": text, **facts(text)}


def straightened(image):
    """Return the image in black and white, without noise, with its lines horizontal."""
    from PIL import Image, ImageFilter, ImageOps

    gray = ImageOps.autocontrast(ImageOps.exif_transpose(image).convert("L")).filter(
        ImageFilter.MedianFilter(3)
    )
    small = gray.copy()
    small.thumbnail((500, 500))
    angle = max((step / 2 for step in range(-30, 31)), key=lambda degrees: contrast_of_rows(small, degrees))
    turned = gray.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=255)
    return turned.resize((turned.width * 2, turned.height * 2), Image.Resampling.LANCZOS)


def contrast_of_rows(image, degrees):
    """Return how much rows of pixels differ: most where lines of text lie along them."""
    from PIL import Image

    turned = image.rotate(degrees, Image.Resampling.BILINEAR, expand=False, fillcolor=255)
    rows = turned.resize((1, turned.height), Image.Resampling.BOX)
    return statistics.pvariance(rows.tobytes())


def facts(text):
    """Return the total and the date that stand in a receipt's text, None for what does not."""
    total = None
    for line in text.splitlines():
        amounts = re.findall(r"\d+[.,]\d{2}\b", line)
        if (
            amounts
            and re.search(r"\btotal\b", line, re.IGNORECASE)
            and not re.search(r"sub", line, re.IGNORECASE)
        ):
            total = amounts[-1].replace(",", ".")
    date = re.search(r"\b(\d{4}-\d{2}-\d{2}|\d{1,2}[./]\d{1,2}[./]\d{4})\b", text)
    return {"total": total, "date": date[1] if date else None}
