"""Export an executed notebook as one page: `python to_html.py NOTEBOOK OUTPUT`.

The page holds all that it shows: figures, styles, the font of its formulas. It runs no script, asks for nothing over
the network, and the same notebook gives the same bytes. What it can't show is kept as text, and a remark on the page
names the cell. OUTPUT appears only if the rest could be exported; otherwise one line says what is wrong.
"""

import base64
import copy
import mimetypes
import re
from functools import partial
from html import escape
from itertools import zip_longest
from pathlib import Path
from urllib.parse import quote, unquote

import nbformat
import nh3
import sheets
from bs4 import BeautifulSoup
from convert import command_line, write_whole
from jinja2 import pass_context
from math_core import LatexError, LatexToMathML
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
FONT = "fonts/STIXTwoMath-subset.woff2"

# What a page can show, best first. Widgets and JavaScript are not among them: their plain text is shown instead.
SHOWN = ["text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain"]


def acceptable(name, value):
    """Return whether an attribute may stay: images come from the page itself, links don't lead into themselves."""
    data = re.sub(r"[\s\0-\x1f]", "", value).lower().startswith("data:")
    return data if name == "src" else not data


# Untrusted outputs keep their structure and a few harmless styles. Styler's <style> blocks are checked in `finish`.
CLEANER = nh3.Cleaner(
    tags=nh3.ALLOWED_TAGS | {"style", "tfoot"},
    clean_content_tags={"script"},
    attributes=nh3.ALLOWED_ATTRIBUTES
    | {"*": {"class", "id", "style", "title", "lang", "data-remark"}, "details": {"open"}},
    attribute_filter=lambda tag, name, value: value if acceptable(name, value) else None,
    filter_style_properties={"text-align", "color", "background-color", "font-weight", "font-style"},
    url_schemes={"http", "https", "mailto", "data"},
)
MATH = LatexToMathML(fancy_error=False)
# What math-core has no name for, and the form that it has.
TEX = [
    (r"\\\\\*?\s*\[\s*-?[\d.]+\s*[a-z]{2}\s*\]", r"\\\\"),  # \\[4pt]
    (r"\\(begin|end)\{(split|alignedat)\}(?:\{\d+\})?", r"\\\1{aligned}"),
    (r"\\(begin|end)\{(?:eqnarray|alignat)(\*?)\}(?:\{\d+\})?", r"\\\1{align\2}"),
    (r"\\(begin|end)\{smallmatrix\}", r"\\\1{matrix}"),
    (r"\\substack\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r"\\begin{matrix}\1\\end{matrix}"),
    (r"\\[mh]box\b", r"\\text"),
    (r"\\ref\b", r"\\eqref"),
]
MARK = "\ue000\\d+\ue001"  # stands for a formula while the HTML around it is cleaned
NUMBER = re.compile(r"[-−+±<>≈]?\s*(\d[\d,.]*(e[-+]?\d+)?|nan|inf)(\s*±.*)?(\s*%|\s*[A-Za-z]{1,4})?")


class ExportError(Exception):
    """Something in the notebook that must not reach the page."""


class Renderer(IPythonRenderer):
    """Render Markdown and leave a mark for each formula, which takes its place when the page is complete.

    Args:
        formulas: a list of (TeX, display) to add to; a mark is a formula's number in it.
    """

    def __init__(self, formulas, **options):
        super().__init__(escape=False, exclude_anchor_links=True, **options)
        self.formulas = formulas

    def block_math(self, body):
        """Mark a formula between double dollars."""
        return self.formula(body, display=True)

    def inline_math(self, body):
        """Mark a formula between single dollars."""
        return self.formula(body, display=False)

    def latex_environment(self, name, body):
        """Mark an environment that stands without dollars."""
        return self.formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)

    def formula(self, tex, *, display):
        """Check that a formula can be converted and return its mark, or its source with a remark."""
        tex = translated(tex)
        try:
            MATH.convert_all([(tex, display)])
        except LatexError as error:
            source = f'<code class="tex">{escape(tex)}</code>'
            return source + remark(f"the formula {' '.join(tex.split())} can't be converted: {error}")
        self.formulas.append((tex, display))
        return f"\ue000{len(self.formulas) - 1}\ue001"

    def block_html(self, html):
        """Mark the formulas in a block of HTML, which Markdown leaves alone."""
        return re.sub(
            r"<(pre|code|script|style)\b.*?</\1>|<[^>]*>|\$\$(.+?)\$\$|\$(?!\s)([^$\n]+?)(?<!\s)\$",
            lambda m: m[0] if m[0].startswith("<") else self.formula(m[2] or m[3], display=bool(m[2])),
            super().block_html(html),
            flags=re.DOTALL,
        )


def translated(tex):
    """Return TeX with what math-core has no name for put in the form that it has."""
    for pattern, form in TEX:
        tex = re.sub(pattern, form, tex)
    if re.search(r"\\(tag|label)\b", tex) and not re.search(r"\\begin\{(equation|align|gather|multline)\}", tex):
        tex = f"\\begin{{equation}}{tex}\\end{{equation}}"  # only a numbered equation may have a tag or a label
    return tex.strip()


def remark(text):
    """Return a remark for the page; `naming_the_cell` adds the cell, and the build lists it."""
    return f'<span class="remark" data-remark="{escape(text)}">{escape(text)}</span>'


def tidied(source):
    """Return Markdown in which formulas survive what surrounds them; code blocks stay as they are."""
    parts = re.split(r"(^ {0,3}(```+|~~~+).*?^ {0,3}\2[`~]*\s*?$)", source, flags=re.DOTALL | re.MULTILINE)
    for i in range(0, len(parts), 3):
        # A formula over several lines: a line that begins with a minus sign would begin a list.
        parts[i] = re.sub(
            r"(?<![\\$])\$(?![\s$])[^$`]*?[^\s$`\\]\$(?![\w$])",
            lambda m: m[0] if "\n\n" in m[0] else m[0].replace("\n", " "),
            parts[i],
        )
        # A reference may stand in the text, outside any formula.
        parts[i] = re.sub(
            r"\$\$.*?\$\$|\$[^$\n]+\$|`[^`]*`|\\begin\{(\w+\*?)\}.*?\\end\{\1\}|\\(?:eq)?ref\{[^{}]*\}",
            lambda m: f"${m[0]}$" if re.match(r"\\(eq)?ref", m[0]) else m[0],
            parts[i],
            flags=re.DOTALL,
        )
        # A bar within a formula of a table's row would end the table's cell.
        parts[i] = re.sub(
            r"^ {0,3}\|.*$",
            lambda row: re.sub(r"(?<!\\)\$[^$\n]+?(?<!\\)\$", lambda m: re.sub(r"(?<!\\)\|", r"\\vert ", m[0]), row[0]),
            parts[i],
            flags=re.MULTILINE,
        )
    return "".join(part for i, part in enumerate(parts) if i % 3 != 2)


def markdown_to_html(formulas, folders, source, attachments):
    """Return Markdown as clean HTML with a mark for each formula.

    Args:
        formulas: the page's list of formulas, to add to.
        folders: where images that the Markdown names by a path may lie.
    """
    attachments = attachments | {quote(name): data for name, data in attachments.items()}
    renderer = Renderer(formulas, attachments=attachments)
    try:
        html = MarkdownWithMath(renderer=renderer).render(tidied(source))
    except InvalidNotebook as error:
        raise ExportError(str(error)) from None
    html = clean(html, folders)

    def place(found):
        # A line must not break between a formula and what touches it, such as a comma.
        whole = found[0].startswith("<") or re.fullmatch(MARK, found[0])
        return found[0] if whole else f'<span class="joined">{found[0]}</span>'

    return re.sub(rf"<[^>]*>|[^\s<]{{0,40}}{MARK}[^\s<]{{0,40}}", place, html)


def clean(html, folders=()):
    """Return HTML without anything that runs or loads. What it would lose is kept in another form or gets a remark."""
    soup = BeautifulSoup(html, "html.parser")
    for image in soup.find_all("img", src=re.compile("^(?!data:)")):
        embed(image, folders)
    for drawing in soup.find_all("svg"):
        drawing.attrs.setdefault("xmlns", "http://www.w3.org/2000/svg")
        title = drawing.find("title")
        code = base64.b64encode(str(drawing).encode()).decode()
        alt = title.get_text(strip=True) if title else drawing.get("aria-label", "")
        drawing.replace_with(soup.new_tag("img", src=f"data:image/svg+xml;base64,{code}", alt=alt))
    for box in soup.find_all("input", type="checkbox"):
        box.replace_with("☑ " if box.has_attr("checked") else "☐ ")
    for thing in soup.find_all(["video", "audio", "iframe", "object", "embed", "canvas"]):
        words = {"iframe": "another page", "object": "an object", "embed": "an object", "canvas": "a drawing by script"}
        text = f"{words.get(thing.name, f'a {thing.name}'.replace('a au', 'an au'))} can't be shown in this page"
        thing.replace_with(BeautifulSoup(remark(text), "html.parser"))
    for image in soup.find_all("img"):
        if not image.get("alt", "").strip():
            image["alt"] = "no description"
            image.insert_after(BeautifulSoup(remark("a figure without a description"), "html.parser"))
    return CLEANER.clean(str(soup))


def embed(image, folders):
    """Put an image that is named by a path into the page; in place of one that is not there a remark."""
    address = unquote(image["src"])
    remote = re.match(r"[a-z]+:|//", address)
    path = next((folder / address for folder in folders if not remote and (folder / address).is_file()), None)
    if path is None:
        where = "is on the network, where the page asks for nothing" if remote else "is not there"
        text = f"{image.get('alt') or 'no description'} (the image {address.rsplit('/', 1)[-1]} {where})"
        image.replace_with(BeautifulSoup(remark(text), "html.parser"))
    else:
        kind = mimetypes.guess_type(path)[0] or "image/png"
        image["src"] = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def output_html(folders, data):
    """Return an output's HTML, clean; where nothing would be left of it, its plain text."""
    html, text = data["text/html"], data.get("text/plain", "")
    # scikit-learn's drawing of an estimator needs a script.
    cleaned = "" if "sk-top-container" in html else clean(html, folders)
    left = BeautifulSoup(cleaned, "html.parser")
    if left.get_text(strip=True) or left.find(["img", "table", "hr"]):
        return cleaned
    return f'<pre class="output">{escape(text)}</pre>' if text.strip() else ""


def plain_text(text):
    """Return an output's plain text, unless it stands for a figure that was not drawn."""
    if re.fullmatch(r"\s*<Figure size .* with \d+ Axes>\s*", text):
        raise ExportError("a figure came as text only; was it drawn by a backend without pictures (MPLBACKEND)?")
    return text


def figure(output, kind):
    """Return an image output as HTML. Notebooks attach its alternative text as metadata; a remark says where not."""
    metadata = output.metadata.get(kind, {})
    alt = metadata.get("alt", "").strip()
    data = output.data[kind]
    data = base64.b64encode(data.encode()).decode() if kind == "image/svg+xml" else data.replace("\n", "")
    size = {key: metadata[key] for key in ("width", "height") if key in metadata}
    attributes = {"src": f"data:{kind};base64,{data}", "alt": alt or "no description"} | size
    image = "<figure><img {}></figure>".format(" ".join(f'{k}="{escape(str(v))}"' for k, v in attributes.items()))
    return image if alt else image + remark("a figure without a description")


def stream(text):
    """Return a stream as a terminal would show it in the end: a backspace takes back a character."""
    while (shorter := re.sub(r"[^\n\b]\x08", "", text)) != text:
        text = shorter
    return text.replace("\b", "")


def naming_the_cell(function):
    """Turn a function into a template filter whose errors and remarks say which cell they come from."""

    @pass_context
    def template_filter(context, *arguments):
        # Counted as in the stored notebook, which has no injected cell.
        cells = [c for c in context["nb"].cells if "injected-parameters" not in c.metadata.get("tags", [])]
        number = next((i for i, cell in enumerate(cells, 1) if cell is context["cell"]), "of parameters")
        try:
            html = function(*arguments)
        except ExportError as error:
            raise ExportError(f"cell {number}: {error}") from None
        return html.replace(' data-remark="', f' data-remark="cell {number}: ')

    return template_filter


class PageExporter(HTMLExporter):
    """nbconvert's exporter with our template, clean outputs, and formulas as MathML."""

    def __init__(self, **options):
        config = Config({"NbConvertBase": {"display_data_priority": SHOWN}})
        config.CoalesceStreamsPreprocessor.enabled = True  # a line that was written over and over shows its last state
        self.formulas, self.folders = [], []
        super().__init__(config=config, template_name="template", extra_template_basedirs=[str(HERE)], **options)

    def default_filters(self):
        """Replace nbconvert's filters for untrusted text by ours."""
        yield from super().default_filters()
        yield "markdown2html", naming_the_cell(partial(markdown_to_html, self.formulas, self.folders))
        yield "clean_html", naming_the_cell(clean)
        yield "output_html", naming_the_cell(partial(output_html, self.folders))
        yield "plain_text", naming_the_cell(plain_text)
        yield "figure", naming_the_cell(figure)
        yield "stream", stream

    def from_notebook_node(self, nb, resources=None, **options):
        """Return the page as a string, and nbconvert's resources."""
        font = base64.b64encode((HERE / FONT).read_bytes()).decode()
        style = (HERE / "page.css").read_text(encoding="utf-8").replace(FONT, f"data:font/woff2;base64,{font}")
        for cell in nb.cells:  # the page marks an answer in its own way
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if "mark" not in output.get("metadata", {})]
        nb.metadata.pop("widgets", None)  # a page shows no widgets, and what Colab stores of them can lack their state
        self.formulas.clear()
        self.folders[:] = [Path(folder) for folder in (resources or {}).get("folders", [])]
        smoke = sheets.is_smoke(nb)
        resources = (resources or {}) | {"page_style": style, "smoke": smoke, "answer": sheets.as_answer}
        html, resources = super().from_notebook_node(nb, resources, **options)
        mathml = MATH.convert_all(self.formulas)  # all at once: numbers and references go over the whole page
        # A lone combining arrow would be drawn to the left of its place.
        mathml = [formula.replace("\u20d7", "\u2192") for formula in mathml]
        soup = BeautifulSoup(re.sub(MARK, lambda mark: mathml[int(mark[0][1:-1])], html), "html.parser")
        add_glance(soup, sheets.answers(nb), smoke)
        return finish(soup, resources["metadata"]["name"]), resources


def add_glance(soup, answers, smoke):
    """Add below the title's cell the table of the page's questions and answers, and in smoke a banner."""
    title = soup.main.find("h1")
    after = title.find_parent(class_="prose") if title else None
    if answers and after:
        questions = sheets.items()
        rows = [
            f'<tr><th><a href="#answer-{a.item}">{a.item}</a></th>'
            f"<td>{escape(questions[a.item]['question']) if a.item in questions else ''}</td>"
            f'<td><a href="#answer-{a.item}">{escape(a.first_sentence)}</a></td></tr>'
            for a in answers
        ]
        head = "<thead><tr><th>item</th><th>question</th><th>answer</th></tr></thead>"
        table = f'<h2>At a glance</h2><table class="glance">{head}<tbody>{"".join(rows)}</tbody></table>'
        note = (
            "<p>In the code, <code>holds</code> is the condition on this run's numbers under which an answer is true; "
            "where it fails, the page says so. <code>record</code> keeps numbers for a table of results.</p>"
        )
        after.insert_after(BeautifulSoup(table + note, "html.parser"))
    if smoke:
        banner = "A run in the profile <code>smoke</code>, which checks that all cells run: its numbers mean nothing."
        soup.main.insert(0, BeautifulSoup(f'<p class="banner">{banner}</p>', "html.parser"))


def finish(soup, name):
    """Add to the page what depends on all of it: title, anchors, table of contents, aligned tables."""
    first = soup.main.find(re.compile("h[1-6]"))
    soup.title.string = first.get_text(" ", strip=True) if first else name
    contents = add_anchors(soup)
    if contents.contents:
        navigation = soup.new_tag("nav", attrs={"aria-label": "Contents"})
        navigation.append(contents)
        soup.main.find(["h2", "h3"]).insert_before(navigation)
    for style in soup.main.find_all("style"):
        # Styler's rules only speak of their own table; a data frame's plain ones would change the whole page.
        if not style.get_text().strip().startswith("#T_"):
            style.decompose()
    resolve_links(soup)
    for table in soup.main.find_all("table"):
        align(table)
    for operator in soup.main.select(":is(msup, msub, msubsup) > mo[minsize]:first-child"):
        operator.wrap(soup.new_tag("mrow"))  # \big)^2: without a row of its own Chromium would not enlarge it
    for line in soup.main.find_all("mo", string="\u0332"):
        # \overline: Chromium puts stretched lines in the wrong place, so the style sheet draws them.
        line.parent["class"], line.parent.name = f"{line.parent.name}-line", "mrow"
        line.decompose()
    for wide in soup.main.select("table, math[display=block]"):
        # What may scroll by itself must be reachable by keyboard.
        kind, label = ("div", "Table") if wide.name == "table" else ("span", "Equation")
        box = {"class": f"wide {label.lower()}", "role": "group", "aria-label": label, "tabindex": "0"}
        wide.wrap(soup.new_tag(kind, attrs=box))
    return str(soup)


def resolve_links(soup):
    """Lead links within the page to their headings, which JupyterLab names otherwise; a remark says which are dead."""
    ids = {element["id"] for element in soup.select("[id]")}
    for link in soup.main.select("a[href^='#']"):
        target = unquote(link["href"][1:])
        slug = re.sub(r"\W+", "-", target.lower()).strip("-")
        if target in ids or slug in ids:
            link["href"] = f"#{target if target in ids else slug}"
        elif target:
            link.insert_after(BeautifulSoup(remark(f"the link to #{target} leads nowhere"), "html.parser"))


def add_anchors(soup):
    """Give each heading an id and a link to itself; return the sections and subsections as a nested list of links."""
    taken = {element["id"] for element in soup.select("[id]")}
    contents = soup.new_tag("ol")
    for heading in soup.main.find_all(re.compile("h[1-6]")):
        slug = base = re.sub(r"\W+", "-", heading.get_text().lower()).strip("-") or "section"
        copies = 1
        while slug in taken:
            copies += 1
            slug = f"{base}-{copies}"
        taken.add(slug)
        heading["id"] = slug
        if heading.name in ("h2", "h3"):
            parent = contents
            if heading.name == "h3" and contents.contents:
                section = contents.contents[-1]
                parent = section.ol or section.append(soup.new_tag("ol")) or section.ol
            item, link = soup.new_tag("li"), soup.new_tag("a", href=f"#{slug}")
            link.extend([copy.copy(child) for child in heading.contents])
            item.append(link)
            parent.append(item)
        anchor = soup.new_tag("a", href=f"#{slug}", attrs={"class": "anchor", "aria-hidden": "true", "tabindex": "-1"})
        anchor.string = "#"
        heading.append(anchor)
    return contents


def align(table):
    """Mark the columns of numbers, and tell screen readers what each header cell heads."""
    for header in table.find_all("th"):
        if header.get_text(strip=True):
            header["scope"] = "col" if header.find_parent("thead") else "row"
        else:
            header.name = "td"  # an empty header would be announced
    rows = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
    # Counted from the right, a column has the same number also where a row header spans several rows.
    for column in zip_longest(*(reversed(row) for row in rows)):
        cells = [cell for cell in column if cell is not None]
        texts = [cell.get_text(strip=True) for cell in cells if cell.name == "td"]
        texts = [text for text in texts if text and text != "–"]  # the dash of a missing value says nothing
        if texts and sum(bool(NUMBER.fullmatch(text)) for text in texts) > len(texts) / 2:
            for cell in cells:
                cell["class"] = [*cell.get("class", []), "number"]


def export(notebook, output):
    """Write the page of `notebook` to `output`, whole or not at all."""
    with notebook.open(encoding="utf-8") as file:
        try:
            content = nbformat.read(file, as_version=4)
            nbformat.validate(content)
        except (ValueError, AttributeError, nbformat.ValidationError) as error:
            raise ExportError(f"not a notebook: {str(error).splitlines()[0]}") from None
    folders = [notebook.parent, HERE.parent / "notebooks"]  # where a path to an image may begin
    resources = {"metadata": {"name": notebook.stem}, "folders": folders}
    page, _ = PageExporter().from_notebook_node(content, resources)
    write_whole(output, lambda path: path.write_text(page, encoding="utf-8"))


if __name__ == "__main__":
    command_line(export, __doc__.splitlines()[0], {ExportError: "{}, {}", OSError: "{}: {}"})
