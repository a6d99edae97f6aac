"""The OpenAPI description as one HTML page without scripts or outside resources."""

from __future__ import annotations

from html import escape
from typing import Any

__all__ = ["api_page"]

_EXAMPLES = """# one picture
curl --data-binary @photo.jpg 'http://localhost:8765/v1/screen?name=photo.jpg'
# several files, records as they come
curl -F file=@a.jpg -F file=@clip.mp4 'http://localhost:8765/v1/screen?format=jsonl&fps=2'
# with a token
curl -H "Authorization: Bearer $TOKEN" --data-binary @photo.jpg 'http://localhost:8765/v1/screen'"""


def api_page(description: dict[str, Any]) -> str:
    """Return the page.

    Args:
        description: of the API, as `FastAPI.openapi` gives it.
    """
    info = description["info"]
    operations = [
        _operation(method, path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(info["title"])} API</title>
<link rel="stylesheet" href="style.css">
</head>
<body class="document">
<header><h1>{escape(info["title"])} {escape(info["version"])}: API</h1></header>
<main>
<p>{escape(info["description"])}</p>
<p><a href="./">The page</a> · <a href="openapi.json">openapi.json</a>, the same for programs</p>
<pre tabindex="0" aria-label="Examples for curl">{escape(_EXAMPLES)}</pre>
{"".join(operations)}
</main>
</body>
</html>
"""


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f'<section class="operation"><h2><code>{escape(method.upper())} {escape(path)}</code></h2>']
    parts += [f"<p>{escape(text)}</p>" for text in operation.get("description", "").split("\n\n") if text]
    if parameters := operation.get("parameters", []):
        rows = ((p["name"], p.get("description", "")) for p in parameters)
        parts.append(_table("Query parameter", rows))
    if body := operation.get("requestBody"):
        kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in body["content"])
        parts.append(f"<p>Body: {escape(body.get('description', ''))} {kinds}</p>")
    parts.append(_table("Status", ((s, r.get("description", "")) for s, r in operation["responses"].items())))
    return "".join([*parts, "</section>\n"])


def _table(head: str, rows: Any) -> str:
    cells = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{escape(text)}</td></tr>' for name, text in rows
    )
    return f'<table><thead><tr><th scope="col">{head}</th><th scope="col">Meaning</th></tr></thead>{cells}</table>'
