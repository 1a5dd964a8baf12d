// Moves a threshold: asks what it would keep, a moment after the slider rests, and shows the answer.
"use strict";
(() => {
  const [form, slider, limit, said, override, copy, changed] = ["try", "slider", "limit", "said", "override", "copy", "changed"].map((id) => document.getElementById(id));
  document.getElementById("setting").addEventListener("change", (event) => event.target.form.submit());
  if (!form) return;
  const choices = JSON.parse(form.dataset.choices);
  const histogram = document.getElementById("histogram");
  const figure = JSON.parse(histogram.dataset.figure);
  const nearest = (value) => choices.reduce((best, one, at) => (Math.abs(one - value) < Math.abs(choices[best] - value) ? at : best), 0);
  const asItWas = () => (copy.textContent = "Copy");
  const show = (answer) => {
    asItWas();
    said.textContent = answer.said || answer.error;
    if (answer.error) return;
    override.value = answer.override;
    changed.replaceChildren(
      ...answer.changed.map((one) => {
        const [item, link] = [document.createElement("li"), document.createElement("a")];
        link.href = one.link;
        link.textContent = one.title.slice(0, 200);
        item.append(link);
        return item;
      }),
    );
    const line = figure.layout.shapes[1];
    line.x0 = line.x1 = answer.limit;
    gristmill.draw(histogram, figure);
  };
  let waiting = 0;
  let asked = 0;
  const ask = () => {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const mine = ++asked;
      const query = new URLSearchParams({ setting: form.elements.setting.value, limit: limit.value });
      try {
        const answer = await (await fetch(`${form.dataset.answers}?${query}`)).json();
        if (mine === asked) show(answer);
      } catch {
        said.textContent = "There was no answer. Try again in a moment.";
      }
    }, 150);
  };
  document.getElementById("sliderlabel").hidden = copy.hidden = false;
  slider.value = nearest(Number(limit.value));
  slider.addEventListener("input", () => {
    limit.value = choices[slider.value];
    ask();
  });
  limit.addEventListener("input", () => {
    if (limit.value === "") return;
    slider.value = nearest(Number(limit.value));
    ask();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  copy.addEventListener("click", async () => {
    override.select();
    try {
      await navigator.clipboard.writeText(override.value);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Press Ctrl+C to copy"; // the browser allows no script to copy here; the text is selected
    }
    setTimeout(asItWas, 2000);
  });
})();
