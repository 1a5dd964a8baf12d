// The card on Airflow's home page: the last run's funnel, gate and win rate, and where the answers stand.
// Airflow brings React. Every text is a child of an element, so React escapes it.
"use strict";
(() => {
  const make = (...given) => globalThis.React.createElement(...given);
  const root = (path) => new URL(path, document.baseURI).href;
  const border = "1px solid var(--chakra-colors-border, rgba(128, 128, 128, .4))";
  const faint = { color: "var(--chakra-colors-fg-muted, inherit)" };
  const OPEN = { corpus: "Corpus", pretrain: "Pretraining", align: "Alignment", evaluate: "Evaluation" };

  const fetched = (address) =>
    fetch(address, { credentials: "same-origin", headers: { accept: "application/json" } }).then((answer) => {
      if (!answer.ok) throw new Error(`${answer.status}`);
      return answer.json();
    });

  const link = (title, address) =>
    make("a", { key: title, href: address, style: { textDecoration: "underline", marginRight: "1em", display: "inline-block" } }, title);

  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  const funnel = (steps) =>
    make(
      "ul",
      { key: "steps", "aria-label": "documents left after each stage", style: { listStyle: "none", margin: ".4em 0", padding: 0 } },
      steps.map((step) =>
        make(
          "li",
          { key: step.stage, style: { display: "grid", gridTemplateColumns: "minmax(0, 9em) minmax(1.5em, 1fr) max-content", gap: ".6em", alignItems: "center" } },
          make("span", { key: "stage", style: { overflowWrap: "anywhere" } }, step.stage),
          make(
            "span",
            { key: "bar", "aria-hidden": true, style: { border, height: ".7em", borderRadius: ".2em", overflow: "hidden" } },
            make("span", { style: { display: "block", height: "100%", width: `${Math.min(100, 100 * step.share)}%`, background: "#2b6cb0" } }),
          ),
          make("span", { key: "kept", style: { textAlign: "right" } }, `${step.kept.toLocaleString("en")} (${percent(step.share)})`),
        ),
      ),
    );

  const part = (dag, run) =>
    make(
      "section",
      { key: dag, "aria-label": OPEN[dag], style: { borderTop: border, padding: ".6em 0" } },
      make(
        "div",
        { key: "head" },
        make("strong", { key: "dag" }, `${OPEN[dag]} `),
        make("span", { key: "run", style: { ...faint, overflowWrap: "anywhere" } }, `${run.run} ${run.state}`),
      ),
      run.error ? make("p", { key: "error", style: faint }, run.error) : null,
      run.steps && run.steps.length ? funnel(run.steps) : null,
      Object.entries(run.stages || {}).map(([stage, said]) => make("p", { key: stage, style: { margin: ".2em 0" } }, `${stage}: ${said.line}`)),
      make("div", { key: "links" }, run.links.map((one) => link(one.title, one.address))),
    );

  const failed = (tasks) =>
    make(
      "section",
      { key: "failed", "aria-label": "Failed tasks", style: { borderTop: border, padding: ".6em 0" } },
      make("strong", { key: "title" }, "Latest failed tasks "),
      tasks.map((task) => {
        const mapped = task.map_index >= 0 ? `/mapped/${task.map_index}` : "";
        const path = `dags/${encodeURIComponent(task.dag_id)}/runs/${encodeURIComponent(task.dag_run_id)}/tasks/${encodeURIComponent(task.task_id)}${mapped}`;
        return link(`Log of ${task.dag_id} ${task.task_id}${mapped ? ` ${task.map_index}` : ""}`, root(path));
      }),
    );

  function Card() {
    const { useEffect, useState } = globalThis.React;
    const [found, setFound] = useState(null);
    const [lost, setLost] = useState([]);
    useEffect(() => {
      let here = true;
      fetched(root("gristmill/card")).then(
        (said) => here && setFound(said),
        (error) => here && setFound({ runs: {}, error: `The figures cannot be read (${error.message}).` }),
      );
      const newest = "api/v2/dags/~/dagRuns/~/taskInstances?state=failed&order_by=-start_date&limit=3";
      fetched(root(newest)).then(
        (said) => here && setLost(said.task_instances),
        () => {},
      );
      return () => {
        here = false;
      };
    }, []);
    if (found === null) return null;
    const runs = Object.entries(found.runs);
    return make(
      "article",
      { "aria-label": "Gristmill", style: { border, borderRadius: ".5em", padding: "1em", margin: "1em 0" } },
      make("h2", { key: "title", style: { fontWeight: 600, fontSize: "1.1em" } }, "Gristmill: the newest runs"),
      found.error ? make("p", { key: "error" }, found.error) : null,
      !found.error && !runs.length ? make("p", { key: "none" }, "No run yet. Trigger the DAG corpus, and its figures appear here.") : null,
      runs.map(([dag, run]) => part(dag, run)),
      lost.length ? failed(lost) : null,
    );
  }

  globalThis.GristmillCard = Card;
})();
