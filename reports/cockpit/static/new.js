// The form of a new run: mistakes are told at their lines while one types, keys are found, the plan comes without a reload.
"use strict";
(() => {
  const form = document.getElementById("new");
  const text = form.elements.overrides;
  const numbers = form.querySelector(".numbers");
  const about = document.getElementById("about");
  const key = document.getElementById("key");
  const busy = document.getElementById("busy");
  let known = null;
  let wrong = new Set();
  let asked = 0;
  let later = 0;

  const count = () => {
    const lines = text.value.split("\n").length;
    numbers.replaceChildren(
      ...Array.from({ length: lines }, (_, line) => {
        const one = document.createElement("span");
        one.textContent = line + 1;
        if (wrong.has(line)) one.className = "gone";
        return one;
      }),
    );
    numbers.scrollTop = text.scrollTop;
  };
  const goTo = (line) => {
    const lines = text.value.split("\n");
    const from = lines.slice(0, line).join("\n").length + (line ? 1 : 0);
    text.focus();
    text.setSelectionRange(from, from + (lines[line] || "").length);
  };
  const mark = (mistakes) => {
    wrong = new Set(mistakes.map((one) => one.line).filter((line) => line !== null));
    text.setAttribute("aria-invalid", wrong.size > 0);
    form.elements.crawl.setAttribute("aria-invalid", mistakes.some((one) => one.key === "crawl"));
    count();
  };
  const tell = (mistakes) => {
    const rows = mistakes.map((one) => {
      const row = document.createElement("li");
      if (one.line !== null) {
        const go = document.createElement("button");
        go.type = "button";
        go.className = "link";
        go.textContent = `line ${one.line + 1}`;
        go.addEventListener("click", () => goTo(one.line));
        row.append(go, ", ");
      }
      if (one.key) {
        const name = document.createElement("code");
        name.textContent = one.key;
        row.append(name, ": ");
      }
      row.append(one.message);
      return row;
    });
    const list = document.createElement("ul");
    list.className = "gone";
    list.append(...rows);
    document.getElementById("mistakes").replaceChildren(...(rows.length ? [list] : []));
    mark(mistakes);
  };
  const send = (address) => fetch(address, { method: "POST", body: new URLSearchParams(new FormData(form)) });
  const check = async () => {
    const mine = ++asked;
    try {
      const answer = await send(form.dataset.check);
      const told = await answer.json();
      if (mine !== asked) return;
      if (answer.ok) tell(told.mistakes);
      else tell([{ line: null, key: "", message: told.error || "The form cannot be checked now." }]);
    } catch {
      if (mine === asked) busy.textContent = "The form could not be checked: the server does not answer.";
    }
  };
  const changed = () => {
    document.getElementById("plan").classList.add("old");
    clearTimeout(later);
    later = setTimeout(check, 400);
  };
  const help = () => {
    if (!known) return;
    const line = text.value.slice(0, text.selectionStart).split("\n").length - 1;
    const name = text.value.split("\n")[line].split("=")[0].trim();
    const found = known.get(name);
    about.textContent = found ? `${name}: ${found.about || "no more is said of it"} (default ${found.default})` : "";
  };
  let loading = null;
  const load = () => (loading ||= fetchKeys());
  const fetchKeys = async () => {
    const answer = await fetch(form.dataset.keys, { headers: { accept: "application/json" } });
    known = new Map((await answer.json()).keys.map((one) => [one.name, one]));
    help();
  };
  const put = (one) => {
    const before = text.value.replace(/\s+$/, "");
    text.value = `${before}${before ? "\n" : ""}${one.name}=${one.default}`;
    goTo(text.value.split("\n").length - 1);
    count();
    help();
    changed();
  };
  // Keys whose name or meaning has every word, those named so first.
  const matching = (words) => {
    const rows = [...known.values()].map((one) => [one, `${one.name} ${one.about}`.toLowerCase()]);
    const found = rows.filter(([, said]) => words.every((word) => said.includes(word))).map(([one]) => one);
    const named = (one) => words.every((word) => one.name.includes(word));
    return [...found.filter(named), ...found.filter((one) => !named(one))];
  };
  const list = (keys) => {
    const rows = keys.map((one) => {
      const row = document.createElement("li");
      const add = document.createElement("button");
      add.type = "button";
      add.className = "link";
      add.textContent = `${one.name}=${one.default}`;
      add.addEventListener("click", () => put(one));
      row.append(add, one.about ? ` ${one.about}` : "");
      return row;
    });
    document.getElementById("found").replaceChildren(...rows);
    document.getElementById("found").hidden = !rows.length;
  };
  const find = async () => {
    await load();
    const words = key.value.toLowerCase().split(/\s+/).filter(Boolean);
    list(words.length ? matching(words).slice(0, 30) : []);
  };

  text.addEventListener("input", () => (count(), help(), changed()));
  text.addEventListener("scroll", () => (numbers.scrollTop = text.scrollTop));
  for (const kind of ["click", "keyup"]) text.addEventListener(kind, help);
  text.addEventListener("focus", load, { once: true });
  key.addEventListener("input", find);
  key.addEventListener("keydown", async (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    await find();
    const first = document.querySelector("#found button");
    if (first) first.click();
  });
  // Airflow's frame opens no windows, and another page would lose the form.
  document.getElementById("all").addEventListener("click", async (event) => {
    event.preventDefault();
    await load();
    list([...known.values()]);
  });
  form.elements.earlier.addEventListener("change", () => (form.elements.start.value = "run"));
  form.elements.recipe.addEventListener("change", () => (form.elements.start.value = "recipe"));
  form.addEventListener("change", (event) => event.target !== key && changed());
  form.addEventListener("submit", async (event) => {
    if (event.submitter && event.submitter.hasAttribute("formaction")) return; // the start leads to another page
    event.preventDefault();
    clearTimeout(later);
    const mine = ++asked; // what a check still has to say is older than this plan
    busy.textContent = "Looking at the crawl and at what is done ...";
    try {
      const page = new DOMParser().parseFromString(await (await fetch(form.action, {
        method: "POST",
        headers: { accept: "text/html" },
        body: new URLSearchParams(new FormData(form)),
      })).text(), "text/html");
      busy.textContent = "";
      if (mine !== asked) return; // one has typed on
      const lines = [...page.querySelectorAll("#mistakes li")].map((row) => ({
        line: "line" in row.dataset ? Number(row.dataset.line) : null,
        key: "",
      }));
      const made = ["mistakes", "plan"].map((name) => page.getElementById(name));
      if (made.every(Boolean)) {
        for (const one of made) document.getElementById(one.id).replaceWith(document.adoptNode(one));
        mark(lines);
      } else {
        const said = page.querySelector(".notice") || page.body;
        tell([{ line: null, key: "", message: said.textContent.trim() }]);
      }
    } catch {
      busy.textContent = "The server does not answer. Try again.";
    }
  });
  // Another DAG keeps what is typed.
  for (const link of document.querySelectorAll("a[data-carry]"))
    link.addEventListener("click", () => {
      const address = new URL(link.href);
      const start = form.elements.start.value;
      const [dag, ...run] = form.elements.earlier.value.split("/");
      const values = start === "run"
        ? { from_dag: dag, from_run: run.join("/"), overrides: text.value, recipe: form.elements.recipe.value }
        : { recipe: form.elements.recipe.value, crawl: form.elements.crawl.value, overrides: text.value };
      const own = new URLSearchParams({ dag: address.searchParams.get("dag") });
      for (const [name, value] of Object.entries(values)) if (value && value.length <= 4000) own.set(name, value);
      address.search = own;
      link.href = address.href;
    });
  count();
})();
