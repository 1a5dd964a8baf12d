// Follows Airflow's theme, and leads Airflow to its own pages: a frame may not load them itself.
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
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow]");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    outer.history.pushState({}, "", link.href);
    outer.dispatchEvent(new PopStateEvent("popstate"));
  });
})();
