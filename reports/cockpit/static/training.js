// The curves of a training task: drawn when they come into view, and followed while the task runs.
"use strict";
const training = (() => {
  const RETHIN = 20; // answers, after which all curves are asked for again, thinned by the server
  const place = document.getElementById("charts");
  const at = (id) => document.getElementById(id);
  const own = { name: "", address: "", curves: {}, marks: [], charts: [], attempt: "", number: -1, far: "" };
  const others = [];
  const figures = new Map(); // title of a chart -> its element
  let answers = 0;

  // Exponential moving average with the start's bias taken out, as TensorBoard's scalar charts smooth
  // (tensorboard/components/vz_line_chart2/line-chart.ts, resmoothDataset).
  const smoothed = (values, weight) => {
    let last = 0;
    return values.map((value, index) => {
      last = last * weight + (1 - weight) * value;
      return last / (1 - weight ** (index + 1));
    });
  };

  const EXACT = /^(lr|tokens|memory_bytes|kl_coef|epochs[/].*)$/; // without noise, so never smoothed
  const FEWEST = 10; // points that are smoothed

  // As the server writes it: three significant digits, or a whole number from 1000 on.
  const short = (value) =>
    Math.abs(Number(value.toPrecision(3))) < 1000
      ? value.toLocaleString("en", { maximumSignificantDigits: 3 })
      : Math.round(value).toLocaleString("en");

  // Puts an answer into what is known of a run: in place of it, or behind it.
  const take = (run, answer) => {
    if (answer.whole) Object.assign(run, { curves: {}, marks: [] });
    for (const [name, [steps, values]] of Object.entries(answer.curves)) {
      const known = (run.curves[name] ||= [[], []]);
      run.curves[name] = [known[0].concat(steps), known[1].concat(values)];
    }
    run.marks = run.marks.concat(answer.marks);
    const known = new Map(run.charts.map((chart) => [chart.title, chart]));
    for (const chart of answer.charts) {
      const names = new Set([...(known.get(chart.title)?.names || []), ...chart.names]);
      known.set(chart.title, { ...chart, names: [...names] });
    }
    Object.assign(run, { charts: [...known.values()], attempt: answer.attempt, number: answer.number });
  };

  const COLOURS = { resumed: "ours", skipped: "gone", spike: "theirs" };
  const lines = (chart) =>
    own.marks
      .filter((mark) => mark.kind === "resumed" || /loss|grad_norm/.test(chart.names.join()))
      .map((mark) => ({
        type: "line", x0: mark.step, x1: mark.step, yref: "paper", y0: 0, y1: 1,
        line: { color: gristmill.colour(COLOURS[mark.kind]), width: 1, dash: mark.kind === "resumed" ? "dash" : "dot" },
      }));

  const traces = (chart) => {
    const weight = Number(at("smoothing").value);
    const palette = ["ours", "gone", "good", "theirs", "faint"].map(gristmill.colour);
    const found = [];
    for (const run of [own, ...others]) {
      for (const name of chart.names) {
        const [steps, values] = run.curves[name] || [[], []];
        if (!steps.length) continue;
        const label = others.length ? `${name} · ${run.name}` : name;
        const colour = palette[found.filter((one) => one.showlegend).length % palette.length];
        const line = { color: colour, width: 1.6, dash: run === own ? "solid" : "dot" };
        const mode = steps.length < 3 ? "lines+markers" : "lines";
        const shared = { type: "scatter", mode, x: steps, line };
        const noisy = weight && steps.length >= FEWEST && !EXACT.test(name);
        if (noisy) found.push({ ...shared, y: values, opacity: 0.25, showlegend: false, hoverinfo: "skip" });
        found.push({ ...shared, y: noisy ? smoothed(values, weight) : values, name: label, showlegend: true });
      }
    }
    // A name may hold what Plotly would take for markup.
    for (const one of found) if (one.name) one.name = one.name.replace(/&/g, "&amp;").replace(/</g, "&lt;").slice(0, 80);
    return found;
  };

  const figure = (chart) => {
    const data = traces(chart);
    const type = at("logarithmic").checked ? "log" : "linear";
    const layout = {
      xaxis: { title: { text: "step" }, rangemode: "tozero" },
      yaxis: { type, title: { text: chart.unit }, exponentformat: /bytes|tokens/.test(chart.unit) ? "SI" : "e", minexponent: 5 },
      shapes: lines(chart), showlegend: data.filter((one) => one.showlegend).length > 1, height: 260, hovermode: "x",
    };
    return { data, layout };
  };

  const sentence = (chart) =>
    chart.names
      .filter((name) => own.curves[name])
      .map((name) => {
        const [steps, values] = own.curves[name];
        return `${name}: ${short(values[0])} at step ${short(steps[0])}, ${short(values.at(-1))} at step ${short(steps.at(-1))}`;
      })
      .join("; ");

  // Draws a chart that is in view; the others wait, so that a page of many charts is there at once.
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      entry.target.dataset.seen = entry.isIntersecting ? "yes" : "";
      if (entry.isIntersecting) paint(entry.target);
    }
  }, { rootMargin: "200px" });
  const paint = (element) => {
    if (!element.stale) return;
    element.stale = false;
    gristmill.draw(element, figure(element.chart));
  };

  const element = (chart) => {
    if (!figures.has(chart.title)) {
      const [outer, title, inner, caption] = ["figure", "h2", "div", "figcaption"].map((name) => document.createElement(name));
      title.textContent = chart.title;
      inner.className = "chart small";
      inner.setAttribute("role", "img");
      outer.append(title, inner, caption);
      place.append(outer);
      figures.set(chart.title, inner);
      watch.observe(inner);
    }
    return figures.get(chart.title);
  };

  const show = () => {
    for (const chart of own.charts) {
      const inner = element(chart);
      const said = sentence(chart);
      inner.setAttribute("aria-label", `${chart.title}. ${said}`);
      inner.nextElementSibling.textContent = said;
      Object.assign(inner, { chart, stale: true });
      if (inner.dataset.seen) paint(inner);
    }
  };

  const tell = (answer) => {
    const minute = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ");
    const what = answer.state === "done" ? "Finished" : "Newest points";
    if (answer.far || answer.state === "done") own.far = answer.far; // without new points, the step is that before
    const text = [answer.said, own.far].filter(Boolean).join(" ") + (answer.updated ? ` ${what} ${minute(answer.updated)} UTC.` : "");
    if (at("state").textContent !== text) at("state").textContent = text;
    at("marks").textContent = own.marks.map((mark) => `${mark.kind} at step ${short(mark.step)}`).join(", ") || "None.";
    const extreme = (values, better) => values.reduce((best, value, index) => (better(value, values[best]) ? index : best), 0);
    at("lines").replaceChildren(
      ...Object.entries(own.curves).filter(([name]) => !["resumed", "skipped"].includes(name)).map(([name, [steps, values]]) => {
        const [low, high] = [extreme(values, (one, two) => one < two), extreme(values, (one, two) => one > two)];
        const row = document.createElement("tr");
        const head = document.createElement("th");
        head.scope = "row";
        head.textContent = name;
        const cells = [values[0], values.at(-1), steps.at(-1), values[low], steps[low], values[high], steps[high]];
        row.append(head, ...cells.map((value) => Object.assign(document.createElement("td"), { textContent: short(value) })));
        return row;
      }),
    );
  };

  const ask = async (run, since) => {
    const address = new URL(run.address, location);
    if (since && run.attempt) {
      address.searchParams.set("attempt", run.attempt);
      address.searchParams.set("number", run.number);
    }
    const answer = await fetch(address, { headers: { accept: "application/json" } });
    const values = await answer.json();
    if (!answer.ok) throw new Error(values.error || `The server answers ${answer.status}.`);
    take(run, values);
    return values;
  };

  // Asks for new points again and again, until the task is done. A page that nobody sees asks for none.
  const follow = async () => {
    let pause = 15;
    try {
      if (!document.hidden) {
        const answer = await ask(own, answers++ % RETHIN !== 0);
        tell(answer);
        show();
        pause = answer.next_s;
      }
    } catch (error) {
      at("state").textContent = `${error.message} Trying again.`;
    }
    if (pause !== null) setTimeout(follow, (document.hidden ? 2 : pause) * 1000);
  };

  const compare = async (event) => {
    const choice = event.target.selectedOptions[0];
    if (!choice.value || others.some((run) => run.address === choice.value)) return;
    const run = { ...own, name: choice.textContent, address: choice.value, curves: {}, marks: [], charts: [], attempt: "" };
    try {
      await ask(run, false);
      if (!Object.keys(run.curves).length) throw new Error(`${run.name} has no curves of this stage.`);
      others.push(run);
    } catch (error) {
      at("state").textContent = error.message;
    }
    event.target.value = "";
    at("alone").hidden = !others.length;
    show();
  };

  const start = () => {
    Object.assign(own, { name: place.dataset.run, address: place.dataset.points });
    at("controls").hidden = false;
    at("smoothing").addEventListener("input", () => {
      at("smoothing-shown").textContent = at("smoothing").value;
      show();
    });
    at("logarithmic").addEventListener("change", show);
    at("others").addEventListener("change", compare);
    at("alone").addEventListener("click", () => {
      others.length = 0;
      at("alone").hidden = true;
      show();
    });
    follow();
  };
  start();
  return { smoothed, own, others };
})();
