// Draws each element with `data-figure`, Plotly's JSON, in the colours of the page's theme.
"use strict";
const gristmill = (() => {
  const figures = new Map();
  const colour = (name) => {
    const probe = document.createElement("span");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const layout = (own) => {
    const [ink, line] = [colour("ink"), colour("line")];
    const axis = (more) => ({ gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ...more });
    const axes = { xaxis: axis(own.xaxis), yaxis: axis(own.yaxis) };
    for (const name of Object.keys(own)) if (/^[xy]axis\d+$/.test(name)) axes[name] = axis(own[name]);
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, family: "system-ui, DejaVu Sans, sans-serif", size: 12 },
      colorway: ["ours", "theirs", "gone", "good", "faint"].map(colour),
      margin: { l: 40, r: 16, t: 16, b: 40 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      ...own,
      ...axes,
    };
  };
  // Plotly reads a little HTML in every text, links among it. Texts of ours have line breaks and <extra> only, so any
  // other tag came with the data and is shown as it is.
  const inert = (value) => {
    if (typeof value === "string") return value.replace(/<(?!br>|\/?extra>)/g, "&lt;");
    if (Array.isArray(value)) return value.map(inert);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, inert(one)]));
  };
  // Draws a figure in an element, in place of what is drawn there.
  const draw = (element, given) => {
    const figure = inert(given);
    figures.set(element, figure);
    if (figure.layout?.height) element.style.minHeight = "0";
    const shown = { displayModeBar: false, responsive: true };
    return Plotly.react(element, structuredClone(figure.data), layout(figure.layout || {}), shown);
  };
  const again = () => figures.forEach((figure, element) => draw(element, figure));
  document.addEventListener("theme", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  for (const element of document.querySelectorAll("[data-figure]")) draw(element, JSON.parse(element.dataset.figure));
  return { draw, colour };
})();
