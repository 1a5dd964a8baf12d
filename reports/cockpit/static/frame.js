// Follows Airflow's theme, and has Airflow open its own pages and save files: a frame may do neither itself.
"use strict";
(() => {
  const outer = window.parent === window ? null : window.parent;
  let airflow = null;
  try {
    airflow = outer && outer.document.documentElement;
  } catch {
    airflow = null; // a page of another site shows this one
  }
  if (!airflow) return;
  const follow = () => {
    const dark = airflow.classList.contains("dark") || airflow.style.colorScheme === "dark";
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    document.dispatchEvent(new Event("theme"));
  };
  follow();
  new MutationObserver(follow).observe(airflow, { attributes: true, attributeFilter: ["class", "style", "data-theme"] });
  // Airflow's frame may save no files, but Airflow's own page may.
  const save = (address) => {
    const link = Object.assign(outer.document.createElement("a"), { href: address, download: "" });
    outer.document.body.append(link);
    link.click();
    link.remove();
  };
  document.addEventListener("click", (event) => {
    const file = event.target.closest("a[download]");
    if (file) {
      event.preventDefault();
      save(file.href);
      return;
    }
    const link = event.target.closest("a[data-airflow]");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    outer.history.pushState({}, "", link.href);
    outer.dispatchEvent(new PopStateEvent("popstate"));
  });
})();
