// Rating by keyboard: letters go to replies, digits rank or score, and a vote is sent once however often a key is pressed.
"use strict";
(() => {
  const undo = document.querySelector("button[data-undo]");
  const form = document.getElementById("rate");
  const cards = form ? [...form.querySelectorAll(".reply")] : [];
  const letters = ["a", "b", "c", "d"].slice(0, cards.length);
  const typing = (element) => element.matches("textarea, select, input:not([type=radio]):not([type=checkbox])");
  const go = (card) => {
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  };
  const send = (action) => form.requestSubmit(form.querySelector(`button[value="${action}"]`));
  const choose = (row, key) => {
    const found = [...row.querySelectorAll("input[type=radio]")].find((one) => one.value === key);
    if (found) found.checked = true;
    return found;
  };
  const ranked = (card) => card.querySelector(".picks").querySelector("input:checked") !== null;
  // In a row of choices a digit chooses there; elsewhere it ranks the reply, and the next one without a rank follows.
  const digit = (key) => {
    const at = document.activeElement;
    const row = at.closest(".picks");
    if (row) {
      choose(row, key)?.focus();
      return;
    }
    const card = at.closest(".reply") || cards.find((one) => !ranked(one)) || cards[0];
    if (!choose(card.querySelector(".picks"), key)) return;
    const next = cards.slice(cards.indexOf(card) + 1).find((one) => !ranked(one)) || cards.find((one) => !ranked(one));
    go(next || card);
  };
  document.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (event.altKey || event.metaKey) return;
    if (event.target.matches("textarea")) {
      if (key === "escape") event.target.blur();
      if (key === "enter" && event.ctrlKey && form) send("vote");
      return;
    }
    if (event.ctrlKey || typing(event.target)) return;
    if (key === "u" && undo) undo.click();
    else if (!form) return;
    else if (letters.includes(key)) go(cards[letters.indexOf(key)]);
    else if (/^[1-5]$/.test(key)) digit(key);
    else if (key === "x") form.elements.all_bad.checked = !form.elements.all_bad.checked;
    else if (key === "t") form.elements.comment.focus();
    else if (key === "s") send("skip");
    else if (key === "enter" && !event.target.matches("a, button, summary")) send("vote");
    else return;
    event.preventDefault();
  });
  if (!form) return;
  // The server keeps a form once however often it is sent; this only spares people the second page.
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
    setTimeout(() => (sent = false), 5000);
  });
  window.addEventListener("pageshow", () => (sent = false));
  cards[0].focus({ preventScroll: true });
})();
