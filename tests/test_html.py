"""The exported pages, read as text: formulas, figures, structure, and nothing that runs or loads."""

import base64
import os
import re
import subprocess
import sys

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

sys.path.insert(0, str(ROOT / "export"))
import to_html

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
STYLER = """<style type="text/css">
#T_ab_row0_col0 { background-color: yellow; }
</style>
<table id="T_ab"><thead><tr><th class="blank level0" >&nbsp;</th><th id="T_ab_level0_col0" class="col_heading">KL</th>
<th class="col_heading">exact</th></tr></thead><tbody><tr><th class="row_heading" rowspan="2">moons</th>
<td id="T_ab_row0_col0" class="data">-0.01</td><td>True</td></tr><tr><td>2.5e-07</td><td>False</td></tr></tbody></table>
"""


def export(*cells, name="a"):
    """Return the page of a notebook with these cells; a string is a Markdown cell."""
    cells = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    page, _ = to_html.PageExporter().from_notebook_node(new_notebook(cells=cells), {"metadata": {"name": name}})
    return BeautifulSoup(page, "html.parser")


def shown(metadata=None, source="show()", **data):
    """Return a code cell that displays something."""
    data = {kind.replace("_", "/", 1): value for kind, value in data.items()}
    return new_code_cell(source, outputs=[new_output("display_data", data=data, metadata=metadata or {})])


def run(notebook, output):
    command = [sys.executable, ROOT / "export/to_html.py", notebook, output]
    return subprocess.run(command, capture_output=True, text=True)


# ---- Formulas ------------------------------------------------------------------------------------------------------


def test_formulas_of_cells_and_outputs_become_mathml():
    aligned = "$$ \\begin{aligned} a &= b < c \\\\ &= \\lVert d \\rVert^2 \\end{aligned} $$"
    page = export(f"# Sum $x_1$\n\ntext $y$, and\n\n{aligned}", shown(text_markdown="so $z$"), shown(text_latex="$w$"))
    assert len(page.select("math")) == 5
    assert "$" not in page.main.get_text() and "\\" not in page.main.get_text()
    assert len(page.select("math[display=block] mtable mtr")) == 2
    assert page.select_one("math[display=block]").parent["tabindex"] == "0"
    assert page.title.string == "Sum x 1"


def test_dollars_in_code_stay():
    page = export("# A\n\n`$a$` and\n\n```python\nf'$b$'\n```", new_code_cell("'$c$'"))
    assert not page.select("math")
    assert [code.get_text().strip() for code in page.select("code, .highlight")] == ["$a$", "f'$b$'", "'$c$'"]


def test_a_formula_and_the_comma_behind_it_stay_on_one_line():
    page = export("by ($x$), $y$ and $z$-values")
    assert [joined.get_text() for joined in page.select(".joined")] == ["(x),", "z-values"]


def test_parts_that_browsers_draw_badly_are_replaced():
    page = export(r"$\big( x \big)^2 \overline{y} \underline{z} \vec v$")
    assert page.select_one("msup > mrow > mo[minsize]")
    assert (
        page.select_one("mrow.mover-line").get_text() == "y" and page.select_one("mrow.munder-line").get_text() == "z"
    )
    assert not re.search("[\u0332\u20d7]", page.get_text())


@pytest.mark.parametrize("tex", [r"\nosuchcommand x", r"\frac{1}{2", "x^2^3", r"\begin{pmatrix} 1 & 2"])
@pytest.mark.parametrize("display", ["$", "$$"])
def test_a_formula_that_cannot_be_converted_stands_as_its_source_with_a_remark(tex, display):
    injected = new_code_cell("", metadata={"tags": ["injected-parameters"]})
    page = export("# A $x$", injected, shown(text_markdown=f"a {display}{tex}{display} and $y$"))
    assert page.select_one("code.tex").get_text() == tex
    assert len(page.main.select("math")) == 2
    assert remarks(page) == [f"cell 2: the formula {tex} can't be converted"]


def remarks(page):
    """Return the page's remarks without what math-core says of a formula."""
    return [re.sub(" converted: .*", " converted", mark["data-remark"]) for mark in page.select("[data-remark]")]


def test_equations_are_numbered_in_order_and_referred_to_across_cells():
    equation = r"\begin{equation} %s \label{eq:%s} \end{equation}"
    page = export(r"see $\eqref{eq:b}$ and \ref{eq:a}, not `\ref{x}`", equation % ("a", "a"), equation % ("b", "b"))
    assert [a["href"] for a in page.select("math a")] == ["#eq:b", "#eq:a"]
    assert [a.get_text() for a in page.select("math a")] == ["(2)", "(1)"]
    assert page.select_one("[id='eq:b']").get_text() == "(2)"


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"\begin{aligned} a &= b \\[4pt] c &= d \end{aligned}", "a=bc=d"),
        (r"\begin{split} a &= b \\ c &= d \end{split}", "a=bc=d"),
        (r"\begin{equation}\begin{split} a &= b \end{split}\end{equation}", "a=b(1)"),
        (r"\begin{eqnarray} a &=& b \end{eqnarray}", "a=b(1)"),
        (r"\begin{alignat*}{2} a &= b &\; c &= d \end{alignat*}", "a=bc=d"),
        (r"\left(\begin{smallmatrix} a & b \\ c & d \end{smallmatrix}\right)", "(abcd)"),
        (r"\sum_{\substack{i \\ j}} x", "∑ijx"),
        (r"\mbox{if } x", "if x"),
        (r"x \tag{3}", "x(3)"),
    ],
)
def test_what_other_tools_know_is_translated(tex, text):
    page = export(f"$${tex}$$")
    assert not remarks(page)
    assert page.select_one("math").get_text().replace("\u200b", "").replace("\xa0", " ") == text


def test_formulas_survive_tables_lists_and_html():
    page = export(
        "| a | b |\n|---|---|\n| $p(x|y)$ | 1 |",
        "text $a\n- b$ more",
        "<div>$x$ and <code>$y$</code></div>",
        "<details><summary>$z$</summary>\n\n$w$\n\n</details>",
    )
    assert [cell.get_text() for cell in page.select("tbody td")] == ["p(x|y)", "1"]
    assert not page.select("li") and "$" not in page.select_one("div.prose:nth-of-type(2)").get_text()
    assert len(page.main.select("math")) == 5


def test_long_words_take_no_longer_than_others(tmp_path):
    """Quadratic time would be minutes here."""
    page = export("a" * 400_000 + " $x$")
    assert len(page.main.get_text()) > 400_000 and page.select_one("math")


def test_the_font_covers_every_formula_of_the_notebooks():
    from fontTools.ttLib import TTFont  # matplotlib needs it, so it is there

    font = TTFont(ROOT / "export" / to_html.FONT)
    assert font["name"].getDebugName(1) == "STIX Two Math" and "MATH" in font
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
        page = export(*[re.sub(r"!\[", "[", text) for text in texts])
        used = {character for formula in page.select("math") for character in formula.get_text()}
        missing = {c for c in used if ord(c) not in font.getBestCmap()} - set("\u2061\u2063\ufe00")
        assert not missing, (path.name, missing)


# ---- Figures and tables --------------------------------------------------------------------------------------------


def test_figures_keep_their_description_and_size():
    metadata = {"image/png": {"alt": 'A "curve" <b>', "width": 300}}
    image = export(shown(metadata, **{"image_png": PIXEL})).select_one("figure img")
    assert image["alt"] == 'A "curve" <b>' and image["width"] == "300"
    assert image["src"] == f"data:image/png;base64,{PIXEL}"


@pytest.mark.parametrize(
    "cell",
    [
        shown(image_png=PIXEL),
        shown({"image/png": {"alt": " "}}, image_png=PIXEL),
        shown(**{"image_svg+xml": "<svg/>"}),
        shown(text_html=f'<img src="data:image/png;base64,{PIXEL}">'),
        new_markdown_cell(f"![](data:image/png;base64,{PIXEL})"),
    ],
)
def test_an_image_without_a_description_says_so(cell):
    page = export("# A", cell)
    assert page.main.img["alt"] == "no description" and page.main.img["src"].startswith("data:image/")
    assert remarks(page) == ["cell 2: a figure without a description"]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_collections_own_pages_need_no_remark(path):
    executed = nbformat.read(ROOT / "build/smoke" / path.name, as_version=4)  # `make smoke` has made it
    page, _ = to_html.PageExporter().from_notebook_node(executed, {"metadata": {"name": path.stem}})
    assert not remarks(BeautifulSoup(page, "html.parser"))


def test_images_beside_the_notebook_are_embedded_and_others_named(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/my net.png").write_bytes(b"\x89PNG")
    cells = [
        new_markdown_cell("![net](figures/my%20net.png) ![gone](figures/gone.png) ![far](https://example.org/far.png)"),
        shown(text_html="<img src='figures/my net.png' alt='net'>"),
        new_markdown_cell("![shot](attachment:my%20shot.png)", attachments={"my shot.png": {"image/png": PIXEL}}),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "a.ipynb")
    finished = run(tmp_path / "a.ipynb", tmp_path / "a.html")
    assert finished.returncode == 0, finished.stderr
    page = BeautifulSoup((tmp_path / "a.html").read_text(), "html.parser")
    net = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
    assert [(i["alt"], i["src"]) for i in page.select("img")][:2] == [("net", net), ("net", net)]
    assert page.select("img")[2]["alt"] == "shot"
    assert remarks(page) == [
        "cell 1: gone (the image gone.png is not there)",
        "cell 1: far (the image far.png is on the network, where the page asks for nothing)",
    ]


def test_nothing_that_is_shown_vanishes():
    page = export(
        shown(text_html="<svg viewBox='0 0 1 1'><title>a dot</title><circle r='1'/></svg>", text_plain="<HTML>"),
        shown(text_html="<video controls><source src='data:video/mp4;base64,AA'></video>", text_plain="<Video>"),
        shown(text_html="<script>draw()</script>", text_plain="<Plot>"),
        shown(text_html='<div class="sk-top-container">please rerun this cell</div>', text_plain="Ridge()"),
    )
    assert page.main.img["alt"] == "a dot" and page.main.img["src"].startswith("data:image/svg+xml;base64,")
    assert [output.get_text().strip() for output in page.select("pre.output")] == ["<Plot>", "Ridge()"]
    assert remarks(page) == ["cell 2: a video can't be shown in this page"]


def test_a_figure_that_came_as_text_stops_the_export():
    with pytest.raises(to_html.ExportError, match="cell 2: a figure came as text only"):
        export("# A", shown(text_plain="<Figure size 640x480 with 1 Axes>"))
    assert "<Figure of" in export(shown(text_plain="<Figure of speech>")).main.get_text()


def test_a_line_that_was_written_over_shows_its_last_state():
    first, second = new_output("stream", text="step 1\rste"), new_output("stream", text="p 2\rstep 3\nab\b\bcd\n")
    page = export(new_code_cell("fit()", outputs=[first, second]))
    assert page.select_one("pre.output").get_text().strip() == "step 3\ncd"


def test_boxes_raw_latex_and_widgets_without_state():
    notebook = new_notebook(cells=[new_markdown_cell("- [x] done\n- [ ] open")], metadata={"widgets": {"a/b": {}}})
    notebook.cells.append(new_raw_cell(r"\newpage", metadata={"raw_mimetype": "text/latex"}))
    page, _ = to_html.PageExporter().from_notebook_node(notebook, {"metadata": {"name": "a"}})
    text = BeautifulSoup(page, "html.parser").main.get_text()
    assert "☑ done" in " ".join(text.split()) and "☐ open" in " ".join(text.split()) and "newpage" not in text


def test_links_as_jupyterlab_writes_them_lead_to_their_headings():
    page = export("# A\n\n[x](#My-Results) [y](#Nowhere)\n\n## My Results")
    assert page.select_one("p a")["href"] == "#my-results" and page.select_one("#my-results")
    assert remarks(page) == ["the link to #Nowhere leads nowhere"]


def test_styled_tables_survive_and_numbers_are_aligned():
    page = export(shown(text_html=STYLER))
    assert "#T_ab_row0_col0 { background-color: yellow; }" in page.main.style.string
    assert page.select_one("#T_ab_row0_col0").get_text() == "-0.01"
    assert [cell.get_text() for cell in page.select(".number")] == ["KL", "-0.01", "2.5e-07"]
    assert [(th["scope"], th.get_text()) for th in page.select("th")] == [
        ("col", "KL"),
        ("col", "exact"),
        ("row", "moons"),
    ]
    assert page.select_one("div.table")["tabindex"] == "0"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234", True),
        ("+0.5 ± 0.1", True),
        ("95.3%", True),
        ("963 nats", True),
        ("2e-07", True),
        ("nan", True),
        ("28×28×1 → 14×14×16", False),
        ("64 → 784", False),
        ("NaN or infinity", False),
    ],
)
def test_only_numbers_stand_at_the_right(text, number):
    page = export(shown(text_html=f"<table><tr><td>{text}</td></tr></table>"))
    assert bool(page.select("td.number")) == number


def test_missing_values_do_not_turn_a_column_of_numbers_to_the_left():
    page = export(shown(text_html="<table><tr><td>–</td></tr><tr><td>–</td></tr><tr><td>0.5</td></tr></table>"))
    assert [cell.get_text() for cell in page.select("td.number")] == ["–", "–", "0.5"]


def test_a_data_frames_style_does_not_reach_the_page():
    html = (
        '<style scoped> .dataframe thead th { text-align: right; } </style><table class="dataframe"><tr><td>1</table>'
    )
    page = export(shown(text_html=html))
    assert page.main.table and not page.main.style


# ---- Structure -----------------------------------------------------------------------------------------------------


def test_headings_have_unique_anchors_and_a_table_of_contents():
    page = export(
        "# Title\n\n## Data\n\n### More $x$\n\n## Data", shown(text_markdown="## Findings\n\n### Data"), "# Data"
    )
    identifiers = [heading["id"] for heading in page.main.find_all(re.compile("h[1-6]"))]
    assert identifiers == ["title", "data", "more-x", "data-2", "findings", "data-3", "data-4"]
    links = page.select("nav a")
    assert [link["href"] for link in links] == ["#data", "#more-x", "#data-2", "#findings", "#data-3"]
    assert page.select_one("nav > ol > li > ol > li > a[href='#more-x'] math")
    assert page.title.string == "Title" and page.html["lang"] == "en"
    assert page.nav.find_previous("h1") and page.nav.find_next("h2")["id"] == "data"


@pytest.mark.parametrize("tag", ["fold", "question"])
def test_code_is_folded_where_the_cell_asks_for_it(tag):
    fold = new_code_cell("a = 1\nb = 2", metadata={"tags": [tag]}, outputs=[new_output("stream", text="seen\n")])
    page = export(fold, new_code_cell("c = 3"))
    (details,) = page.select("details")
    assert details.summary.get_text() == "Code, 2 lines" and "b = 2" in details.get_text()
    assert "seen" not in details.get_text() and "c = 3" not in details.get_text()
    assert "seen" in page.select_one(".outputs pre").get_text()


def test_there_are_no_prompts_and_long_lines_are_whole():
    cell = new_code_cell(f"x = '{'m' * 113}'", execution_count=3, outputs=[new_output("stream", text="a <b> & c\n")])
    text = export(cell, name="my name").main.get_text()
    assert f"'{'m' * 113}'" in text and "a <b> & c" in text and "[3]" not in text


def test_a_notebook_without_headings_is_named_by_its_file():
    page = export(new_code_cell("1"), name="01_one")
    assert page.title.string == "01_one" and not page.nav


# ---- Nothing runs, nothing loads -----------------------------------------------------------------------------------

HOSTILE = """<script>alert(1)</script><img src="http://example.org/a.png" alt="remote" onerror="alert(2)">
<img src="x" onerror=alert(3) alt="broken"><iframe src="http://example.org"></iframe><svg onload="alert(4)"></svg>
<a href="javascript:alert(5)" onclick="alert(6)">link</a> <a href="da&#10;ta:text/html,x">data</a>
<object data="http://example.org"></object><form action="http://example.org"><input autofocus onfocus="alert(7)"></form>
<meta http-equiv="refresh" content="0;url=http://example.org"><link rel="stylesheet" href="http://example.org/a.css">
<base href="http://example.org"><p style="position: fixed; background: url(http://example.org/b.png)">text</p>
<math><mtext><style><img src=x onerror=alert(8)></style></mtext></math>
<details open><summary>more</summary>kept</details>
"""


@pytest.mark.parametrize(
    "cell", [HOSTILE, shown(text_html=HOSTILE), shown(text_markdown=HOSTILE), new_raw_cell(HOSTILE)]
)
def test_nothing_in_a_notebook_can_run_or_load(cell):
    page = export("# A", cell)
    assert not page.main.select("script, iframe, svg, object, form, input, meta, link, base, style")
    for element in page.find_all(True):
        assert not [name for name in element.attrs if name.startswith("on")], element
        for name in ("src", "href"):
            assert re.match("#|data:,$|data:image/|$", element.get(name, "")), element
    assert "example.org" not in str(page) and "alert" not in str(page)
    assert page.select_one("details[open] summary") and "kept" in page.main.get_text()


def test_a_missing_attachment_is_named():
    with pytest.raises(to_html.ExportError, match="cell 1: missing attachment: a.png"):
        export("![text](attachment:a.png)")


@pytest.mark.parametrize("kind", ["application/javascript", "application/vnd.jupyter.widget-view+json"])
def test_scripts_and_widgets_are_shown_as_text(kind):
    output = new_output("display_data", data={kind: "alert(1)", "text/plain": "<Widget>"})
    page = export(new_code_cell("1", outputs=[output]))
    assert "<Widget>" in page.main.get_text() and "alert" not in str(page)


def test_attributes_cannot_be_broken_out_of():
    hostile = '"><script>alert(1)</script>'
    metadata = {"image/png": {"alt": hostile, "width": hostile}}
    page = export(
        f"## {hostile}", shown(metadata, image_png=hostile), f"```{hostile}\nx\n```\n\n![{hostile}](data:image/png;,)"
    )
    assert not page.select("script")


def test_a_page_is_whole_in_itself():
    page = export("# A\n\n$x$")
    policy = page.select_one('meta[http-equiv="Content-Security-Policy"]')
    assert policy["content"].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:;")
    assert policy.find_previous_sibling("style") is None and policy.find_previous_sibling("link") is None
    addresses = re.findall(r"url\(\s*[\"']?([^)]{0,30})", page.style.string)
    assert addresses and all(address.startswith("data:font/woff2;base64,") for address in addresses)
    assert "@import" not in page.style.string and not page.select("script")


# ---- The command ---------------------------------------------------------------------------------------------------


def test_the_same_notebook_gives_the_same_bytes(tmp_path):
    cells = [new_markdown_cell("# Ä $x$\n\n## B"), shown(text_html=STYLER, source="x = 'ü'")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "a b ü.ipynb")
    pages = []
    for i in range(2):
        environment = os.environ | {"PYTHONHASHSEED": str(i)}
        command = [sys.executable, ROOT / "export/to_html.py", tmp_path / "a b ü.ipynb", tmp_path / f"{i}.html"]
        subprocess.run(command, check=True, env=environment)
        pages.append((tmp_path / f"{i}.html").read_bytes())
    assert pages[0] == pages[1] and len(pages[0]) < 400_000
    assert "Ä" in pages[0].decode("utf-8")
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no JSON", "bad.ipynb, not a notebook: "),
        ("[]", "bad.ipynb, not a notebook: "),
        (
            '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "sold"}]}',
            "bad.ipynb, not a notebook: ",
        ),
        (None, "bad.ipynb: "),
    ],
)
def test_bad_input_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "bad.ipynb").write_text(content)
    finished = run(tmp_path / "bad.ipynb", tmp_path / "out.html")
    assert finished.returncode == 1 and message in finished.stderr
    assert finished.stderr.count("\n") == 1 and "Traceback" not in finished.stderr
    assert not (tmp_path / "out.html").exists()
