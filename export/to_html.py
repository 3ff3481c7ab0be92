"""Export an executed notebook as one page: `python to_html.py NOTEBOOK OUTPUT`.

The page holds all that it shows: figures, styles, the font of its formulas. It runs no script, asks for nothing over
the network, and the same notebook gives the same bytes. OUTPUT appears only if everything could be exported; otherwise
one line names the notebook, the cell and what is wrong with it.
"""

import base64
import copy
import re
from html import escape
from itertools import zip_longest
from pathlib import Path

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
    attributes=nh3.ALLOWED_ATTRIBUTES | {"*": {"class", "id", "style", "title", "lang"}, "details": {"open"}},
    attribute_filter=lambda tag, name, value: value if acceptable(name, value) else None,
    filter_style_properties={"text-align", "color", "background-color", "font-weight", "font-style"},
    url_schemes={"http", "https", "mailto", "data"},
)
MATH = LatexToMathML(fancy_error=False)
MARK = "\ue000\\d+\ue001"  # stands for a formula while the HTML around it is cleaned
NUMBER = re.compile(r"[-−+±<>≈]?\s*(\d[\d,.]*(e[-+]?\d+)?|nan|inf)(\s*±.*)?(\s*%|\s*[A-Za-z]{1,4})?")


class ExportError(Exception):
    """Something in the notebook that must not reach the page."""


class Renderer(IPythonRenderer):
    """Render Markdown and leave a mark for each formula, which takes its place when the rest has been cleaned."""

    def __init__(self, **options):
        super().__init__(escape=False, exclude_anchor_links=True, **options)
        self.formulas = {}

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
        """Convert a formula to MathML and return its mark."""
        try:
            mathml = MATH.convert_with_local_state(tex.strip(), displaystyle=display)
        except LatexError as error:
            raise ExportError(f"the formula {' '.join(tex.split())} can't be converted: {error}") from None
        mark = f"\ue000{len(self.formulas)}\ue001"
        # A lone combining arrow would be drawn to the left of its place.
        self.formulas[mark] = mathml.replace("\u20d7", "\u2192")
        return mark


def markdown_to_html(source, attachments):
    """Return Markdown as clean HTML with MathML."""
    renderer = Renderer(attachments=attachments)
    try:
        html = clean(MarkdownWithMath(renderer=renderer).render(source))
    except InvalidNotebook as error:
        raise ExportError(str(error)) from None

    def place(found):
        if found[0].startswith("<"):
            return found[0]
        text = re.sub(MARK, lambda mark: renderer.formulas.get(mark[0], ""), found[0])
        # A line must not break between a formula and what touches it, such as a comma.
        return text if re.fullmatch(MARK, found[0]) else f'<span class="joined">{text}</span>'

    return re.sub(rf"<[^>]*>|[^\s<]*{MARK}[^\s<]*", place, html)


def clean(html):
    """Return HTML without anything that runs or loads; raises where an image has no alternative text."""
    html = CLEANER.clean(html)
    for image in BeautifulSoup(html, "html.parser").find_all("img"):
        if not image.get("alt", "").strip():
            raise ExportError("an image has no alternative text")
    return html


def figure(output, kind):
    """Return an image output as HTML. Notebooks attach its alternative text as metadata; raises where it's missing."""
    metadata = output.metadata.get(kind, {})
    if not metadata.get("alt", "").strip():
        raise ExportError(f'a figure has no alternative text: display it with metadata={{"{kind}": {{"alt": "…"}}}}')
    data = output.data[kind]
    data = base64.b64encode(data.encode()).decode() if kind == "image/svg+xml" else data.replace("\n", "")
    size = {key: metadata[key] for key in ("width", "height") if key in metadata}
    attributes = {"src": f"data:{kind};base64,{data}", "alt": metadata["alt"]} | size
    return "<figure><img {}></figure>".format(" ".join(f'{k}="{escape(str(v))}"' for k, v in attributes.items()))


def naming_the_cell(function):
    """Turn a function into a template filter whose errors say which cell they come from."""

    @pass_context
    def template_filter(context, *arguments):
        try:
            return function(*arguments)
        except ExportError as error:
            # Counted as in the stored notebook, which has no injected cell.
            cells = [c for c in context["nb"].cells if "injected-parameters" not in c.metadata.get("tags", [])]
            number = next((i for i, cell in enumerate(cells, 1) if cell is context["cell"]), "of parameters")
            raise ExportError(f"cell {number}: {error}") from None

    return template_filter


class PageExporter(HTMLExporter):
    """nbconvert's exporter with our template, clean outputs, and formulas as MathML."""

    def __init__(self, **options):
        config = Config({"NbConvertBase": {"display_data_priority": SHOWN}})
        super().__init__(config=config, template_name="template", extra_template_basedirs=[str(HERE)], **options)

    def default_filters(self):
        """Replace nbconvert's filters for untrusted text by ours."""
        yield from super().default_filters()
        yield "markdown2html", naming_the_cell(markdown_to_html)
        yield "clean_html", naming_the_cell(clean)
        yield "figure", naming_the_cell(figure)

    def from_notebook_node(self, nb, resources=None, **options):
        """Return the page as a string, and nbconvert's resources."""
        font = base64.b64encode((HERE / FONT).read_bytes()).decode()
        style = (HERE / "page.css").read_text(encoding="utf-8").replace(FONT, f"data:font/woff2;base64,{font}")
        for cell in nb.cells:  # the page marks an answer in its own way
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if "mark" not in output.get("metadata", {})]
        smoke = sheets.is_smoke(nb)
        resources = (resources or {}) | {"page_style": style, "smoke": smoke, "answer": sheets.as_answer}
        html, resources = super().from_notebook_node(nb, resources, **options)
        soup = BeautifulSoup(html, "html.parser")
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
        after.insert_after(BeautifulSoup(table, "html.parser"))
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
    page, _ = PageExporter().from_notebook_node(content, {"metadata": {"name": notebook.stem}})
    write_whole(output, lambda path: path.write_text(page, encoding="utf-8"))


if __name__ == "__main__":
    command_line(export, __doc__.splitlines()[0], {ExportError: "{}, {}", OSError: "{}: {}"})
