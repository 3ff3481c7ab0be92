"""The exported pages and JupyterLab in a real browser: `make test-browser`. Needs chromium (apt install chromium)."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nbformat
import pytest
from conftest import MODULES, ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

sys.path.insert(0, str(ROOT / "export"))
import to_html

pytestmark = pytest.mark.browser

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
NAMES = [*sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")), "sample"]
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]

LONG_LINE = "x" * 57 + " = " + "y" * 60
TABLE = "<table><tr>" + "".join(f"<th>column {i}</th>" for i in range(20)) + "</tr></table>"
SAMPLE = [
    new_markdown_cell(
        "# All that a page can hold: $x$\n\n## Formulas\n\n"
        r"$$ \left( \frac{\frac{a}{b}}{\frac{c}{d}} \right) + \big\lVert x \big\rVert^2 + \sqrt{\frac{1}{2}} $$"
        "\n\n$$ " + " + ".join(f"x_{{{i}}}" for i in range(40)) + " $$\n\nand `$code$`, [a link](#formulas)."
    ),
    new_code_cell(LONG_LINE + "  # not cut", metadata={"tags": ["fold"]}),
    new_code_cell(
        f"{LONG_LINE}\ndef f(x: int) -> str:\n    '''Return.'''\n    # why\n"
        "    return f'{x!r}' + str(None) + 1.5e3\n\n@a\nclass B: ...",
        outputs=[
            new_output(
                "stream", text="\x1b[31mred \x1b[32mgreen \x1b[33myellow \x1b[34mblue \x1b[35mm \x1b[36mcyan\x1b[0m\n"
            ),
            new_output("stream", name="stderr", text="warning " + "w" * 200),
            new_output("display_data", data={"text/html": TABLE}),
            new_output("display_data", data={"text/markdown": "### Findings\n\n- *One* $y$.\n\n> Quoted."}),
        ],
    ),
]


@pytest.fixture(scope="session")
def browser():
    """Return Debian's Chromium with a new profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Return a folder with every page."""
    folder = tmp_path_factory.mktemp("pages")
    nbformat.write(new_notebook(cells=SAMPLE), folder / "sample.ipynb")
    for name in NAMES:
        to_html.export(executed(name, folder), folder / f"{name}.html")
    return folder


def executed(name, folder):
    """Return the path of an executed notebook; `make smoke` leaves all but the sample."""
    return folder / "sample.ipynb" if name == "sample" else ROOT / f"build/smoke/{name}.ipynb"


@pytest.fixture(scope="session")
def server(folder):
    """Serve the pages with their own policy as a header; `asked` lists the paths of all requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            file = folder / self.path.strip("/")
            self.send_response(200 if file.is_file() else 404)
            self.send_header("Content-Type", "text/html")
            if file.is_file():
                page = file.read_bytes()
                policy = re.search(rb'content="(default-src [^"]*)"', page)[1].decode()
                self.send_header("Content-Security-Policy", policy)
            self.end_headers()
            self.wfile.write(page if file.is_file() else b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@contextmanager
def visit(browser, address, width=1280, **options):
    """Yield the page at an address; `page.noted` lists its requests, console messages and errors."""
    page = browser.new_page(viewport={"width": width, "height": 800}, **options)
    page.noted = []
    page.on("request", lambda request: request.url.startswith("data:") or page.noted.append(request.url))
    page.on("console", lambda message: page.noted.append(message.text))
    page.on("pageerror", lambda error: page.noted.append(str(error)))
    page.on("dialog", lambda dialog: (page.noted.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    page.wait_for_load_state("networkidle")
    yield page
    page.close()


def is_wider_than_the_window(page):
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_asks_for_nothing_but_itself_and_complains_of_nothing(browser, folder, server, name):
    file = (folder / f"{name}.html").as_uri()
    with visit(browser, file) as page:
        assert page.noted == [file]
        fonts = ["loaded" if page.locator("math").count() else "unloaded"]  # a page without formulas needs no font
        assert page.evaluate("[...document.fonts].map(font => font.status)") == fonts
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert len((folder / f"{name}.html").read_bytes()) < 3_000_000
    server.asked.clear()
    with visit(browser, f"{server.address}/{name}.html") as page:
        assert page.noted == [f"{server.address}/{name}.html"]
        assert page.evaluate("[...document.fonts].map(font => font.status)") == fonts
    assert server.asked == [f"/{name}.html"]


@pytest.mark.parametrize("name", NAMES)
def test_every_formula_is_drawn_and_no_tex_is_left(browser, folder, name):
    notebook = nbformat.read(executed(name, folder), as_version=4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    texts += [
        o.data["text/markdown"]
        for c in notebook.cells
        for o in c.get("outputs", [])
        if "text/markdown" in o.get("data", {})
    ]
    prose = "\n\n".join(re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL) for text in texts)
    formulas = re.findall(r"\$\$.+?\$\$|\$[^$]+\$", prose, flags=re.DOTALL)
    with visit(browser, (folder / f"{name}.html").as_uri()) as page:
        boxes = page.evaluate(
            "[...document.querySelectorAll('.prose math')].map(m => m.getBoundingClientRect().height)"
        )
        assert len(boxes) == len(formulas) and all(height > 4 for height in boxes)
        page.evaluate("document.querySelectorAll('pre, code').forEach(code => code.remove())")
        assert not re.search(r"\$|\\[a-zA-Z(\[]", page.inner_text("body"))


@pytest.mark.parametrize("width", [1440, 360])
@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_accessible(browser, folder, name, width):
    from axe_playwright_python.sync_playwright import Axe

    with visit(browser, (folder / f"{name}.html").as_uri(), width) as page:
        page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
        found = Axe().run(page, options={"runOnly": WCAG}).response
        assert len(found["passes"]) > 10
        assert [(v["id"], v["nodes"][0]["html"][:200], len(v["nodes"])) for v in found["violations"]] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_a_phone_a_desktop_and_paper(browser, folder, name):
    with visit(browser, (folder / f"{name}.html").as_uri(), 360) as page:
        assert not is_wider_than_the_window(page)
        cut = "[...document.querySelectorAll('pre')].filter(pre => pre.scrollWidth > pre.clientWidth).length"
        for width in (360, 1024, 1280, 1344, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert not is_wider_than_the_window(page) and page.evaluate(cut) == 0
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 670, "height": 1000})
        if name != "sample":  # paper can't scroll the sample's endless table
            assert not is_wider_than_the_window(page)
        assert all(code.is_visible() for code in page.locator("details .highlight").all())


@pytest.mark.parametrize("width", [1024, 1280, 1344, 1440])
def test_a_line_of_120_characters_is_not_broken(browser, folder, width):
    assert len(LONG_LINE) == 120
    with visit(browser, (folder / "sample.html").as_uri(), width) as page:
        lines = """() => {
            const range = document.createRange(), code = document.querySelectorAll('.highlight pre')[1];
            range.setStart(code, 0);
            for (const node of code.childNodes) if (range.toString().length < 120) range.setEndAfter(node);
            return [range.toString(), new Set([...range.getClientRects()].map(box => Math.round(box.bottom))).size];
        }"""
        assert page.evaluate(lines) == [LONG_LINE, 1]


def test_brackets_grow_and_what_is_too_wide_scrolls_in_its_own_box(browser, folder):
    with visit(browser, (folder / "sample.html").as_uri(), 360) as page:
        sizes = "operators => operators.map(mo => [mo.textContent, mo.getBoundingClientRect().height])"
        heights = page.eval_on_selector_all(".equation mo", sizes)
        (plus,) = {height for text, height in heights[:8] if text == "+"}
        assert all(height > 2 * plus for text, height in heights if text in "()")
        left, right = (height for text, height in heights if text == "‖")
        assert left == right > plus
        scrolls = "box => box.scrollWidth > box.clientWidth && box.tabIndex === 0"
        assert page.locator(".equation").last.evaluate(scrolls) and page.locator(".table").evaluate(scrolls)


def test_folded_code_opens_by_keyboard(browser, folder):
    with visit(browser, (folder / "sample.html").as_uri()) as page:
        assert not page.locator("details .highlight").is_visible()
        page.locator("summary").focus()
        page.keyboard.press("Enter")
        assert page.locator("details .highlight").is_visible()


HOSTILE = """<script>document.title = 'ran'</script><script src="{0}/a.js"></script>
<link rel="stylesheet" href="{0}/a.css">
<img src="{0}/a.png" alt="remote" onerror="document.title = 'ran'"><iframe src="{0}/frame" title="f"></iframe>
<svg onload="document.title = 'ran'"></svg><style>@import "{0}/b.css"; p {{ background: url({0}/b.png) }}</style>
<video src="{0}/a.mp4" autoplay></video><object data="{0}/a.swf"></object><p style="background: url({0}/c.png)">text</p>
"""


@pytest.mark.parametrize("cleaned", [True, False])
def test_nothing_planted_runs_or_loads(browser, folder, server, cleaned):
    """The cleaning and the policy must each be enough alone."""
    planted = HOSTILE.format(server.address)
    output = new_output("display_data", data={"text/html": planted if cleaned else "<p>here</p>"})
    cells = [new_markdown_cell("# Safe\n\n" + (planted if cleaned else "")), new_code_cell("1", outputs=[output])]
    nbformat.write(new_notebook(cells=cells), folder / "hostile.ipynb")
    to_html.export(folder / "hostile.ipynb", folder / "hostile.html")
    if not cleaned:
        page = (folder / "hostile.html").read_text()
        assert "<p>here</p>" in page
        (folder / "hostile.html").write_text(page.replace("<p>here</p>", planted))
    for address in ((folder / "hostile.html").as_uri(), f"{server.address}/hostile.html"):
        server.asked.clear()
        with visit(browser, address) as page:
            page.wait_for_timeout(300)
            assert page.title() == "Safe"
            assert set(server.asked) <= {"/hostile.html"}
            if cleaned:
                assert page.noted == [address]


# ---- JupyterLab ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path):
    """Run `make lab` on a copy of notebook 01 in smoke; yield its address with the token.

    The user of this copy has a broken kernel of the same name, in every place where kernels are looked for.
    """
    for name in ("Makefile", *MODULES, "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    notebook = (ROOT / "notebooks/01_nice_parabola.ipynb").read_text(encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    smoke = notebook.replace('PROFILE = \\"default\\"', 'PROFILE = \\"smoke\\"')
    assert smoke != notebook
    (tmp_path / "notebooks/01_nice_parabola.ipynb").write_text(smoke, encoding="utf-8")
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".venv/installed").touch()
    kernel = tmp_path / "user/kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text('{"argv": ["false"], "display_name": "broken", "language": "python"}')
    settings = tmp_path / "config/lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"windowingMode": "none"}))  # else cells out of sight are not in the page
    folders = {"CONFIG_DIR": "config", "DATA_DIR": "user", "PATH": "user", "RUNTIME_DIR": "runtime"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "JUPYTER"))}
    environment |= {f"JUPYTER_{name}": str(tmp_path / folder) for name, folder in folders.items()}
    environment |= {"IPYTHONDIR": str(tmp_path / "ipython")}

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = secrets.token_hex()
    options = f"--no-browser --allow-root --ip=127.0.0.1 --port={port} --ServerApp.port_retries=0"
    server = subprocess.Popen(
        ["make", "-C", tmp_path, "lab", f"LAB={options} --IdentityProvider.token={token}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # make and the server form a group of their own, which the signal below goes to
    )
    try:
        log = []
        assert any("is running at" in line for line in iter(server.stderr.readline, "") if not log.append(line)), log
        threading.Thread(target=server.stderr.read, daemon=True).start()  # a full pipe would stop the server
        yield f"http://127.0.0.1:{port}/lab/tree/01_nice_parabola.ipynb?token={token}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # asks the server to end its kernels, too
        server.wait(60)


def test_jupyterlab_runs_a_notebook_with_the_environments_kernel(browser, lab):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(lab)
    # Before there is a kernel the page calls itself idle, too, and Run All would ask which kernel to take.
    connected = "kernels => kernels.some(k => k.execution_state === 'idle' && k.connections > 0)"
    ready = f"() => fetch('/api/kernels').then(answer => answer.json()).then({connected})"
    page.wait_for_function(ready, polling=200, timeout=120_000)
    page.locator(".jp-KernelName", has_text="Python 3 (ipykernel)").wait_for()
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    errors = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]'
    prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].map(p => p.textContent)"
    finished = f"{prompts}.at(-1).match(/\\d/) || document.querySelector('{errors}')"
    page.wait_for_function(finished, timeout=300_000)
    assert page.locator(errors).all_text_contents() == []
    assert all(re.fullmatch(r"\[\d+\]:", prompt) for prompt in page.evaluate(prompts))
    widths = "[...document.querySelectorAll('.jp-OutputArea-output img')].map(image => image.naturalWidth)"
    figures = (ROOT / "notebooks/01_nice_parabola.ipynb").read_text(encoding="utf-8").count("nf.show(")
    assert len(page.evaluate(widths)) == figures and min(page.evaluate(widths)) > 300
    page.close()
