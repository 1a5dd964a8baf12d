"""The cockpit: pages on runs, inside Airflow's UI or served alone. They read manifests and Parquet through `reports`.

How to add a page: one file, its template, and its name in `PAGES` of `reports/cockpit/app.py`.

    # reports/cockpit/pages/words.py
    page = Page("words", "Words")                   # its address begins with /words; its label in the navigation

    class Wanted(Asked):                            # what may stand behind the `?`; anything else is refused
        language: str = Field(default="", max_length=20)
        shown: int = Field(default=20, ge=1, le=100)

    @page.get("/{dag_id}/{run_id}")                 # /words/corpus/manual__2026?language=en
    def show(ask: Ask, dag_id: Name, run_id: Name, wanted: Annotated[Wanted, InQuery()]) -> Answer:
        run = ask.run(dag_id, run_id)               # a contract.plan.Run; 404 if there is none
        return ask.show("words.html", run=run.recipe.name, rows=reports.words.rows(run, wanted.shown))

    @page.get("/{dag_id}/{run_id}/rows")            # an answer as JSON, for a slider or a page that follows a live run:
    def rows(ask: Ask, ...) -> Answer:              # return a dict. NaN becomes null, dates become text
        return {"rows": ...}

    @page.post("/{dag_id}/{run_id}/note", "note")   # a write, named in the audit log. Its path must hold {dag_id}
    def note(ask: Ask, dag_id: Name, run_id: Name, form: Annotated[Note, InForm()]) -> Answer:
        ...                                         # class Note(Asked)
        return ask.go("words", dag_id, run_id)       # back to the page

    {# reports/cockpit/templates/words.html #}
    {% extends "base.html" %}{% from "parts.html" import chart %}
    {% block content %}
    <h1>Words of {{ run }}</h1>
    {{ chart(figure, "Words of each language: 12 in English, ...") }}
    <form method="post" action="{{ link('words', dag_id, run_id, 'note') }}">...</form>
    {% endblock %}
    {% block scripts %}<script src="{{ static('words.js') }}" defer></script>{% endblock %}

What the frame does, so that no page has to:

- Nobody without a session gets an answer. A path with {dag_id} is answered only to those who may read that DAG's runs,
  a POST only to those who may edit it (or, if the page says so, vote), from a page of this origin, and after it is in
  the audit log.
- A page is a plain function. It runs in one of the frame's own few threads, never in the server's; after LIMIT_S
  seconds its reader is told so. A GristmillError becomes a page with its sentence. `Refused(404, "...")` answers alike.
- `ask.run` is the only way to a store. A page never takes a path, a URI or a fingerprint from its reader.
- Everything that a template prints is escaped, and control characters are made visible. Never use `|safe`.
- Scripts and styles are files in static/; inline ones are refused by the browser. Data for a script goes into
  `data-...` attributes: `data-rows="{{ rows|json }}"`.
- A chart is Plotly's JSON as a dict, `{"data": [...], "layout": {...}}`, with a sentence or a table that says the same.
  static/charts.js draws it in the colours of the theme; `gristmill.draw(element, figure)` draws another in its place.
- `link('page', ...)` is the address of a page of ours, `airflow(dag_id, run_id, task_id, map_index)` that of Airflow's
  page or "" without Airflow: `<a href="{{ airflow(...) }}" data-airflow>` works inside Airflow's frame and outside it.
- Tests use the fixture `visit` of tests/reports/cockpit/conftest.py.
"""
