// Helpers for #live, the part of a page that htmx refreshes: see scribes/live.html.
"use strict";
{
  const states = () =>
    new Map([...document.querySelectorAll("#live [data-state]")].map((row) => [row.id, row]));

  let before = new Map();

  // A response without #live is another page, such as the sign-in page: load it.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.target.id !== "live") return;
    if (!event.detail.serverResponse.includes('id="live"')) {
      event.detail.shouldSwap = false;
      location.reload();
    }
    before = states();
  });

  document.addEventListener("htmx:afterSettle", () => {
    document.body.classList.remove("is-stale");
    announce();
    bindCheckboxes();
  });

  for (const failure of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
    document.addEventListener(failure, () => document.body.classList.add("is-stale"));
  }

  // Announce changes of state to screen readers, but not each step of progress.
  function announce() {
    const changed = [...states()].filter(
      ([id, row]) => before.has(id) && before.get(id).dataset.state !== row.dataset.state,
    );
    if (changed.length) {
      document.getElementById("news").textContent = changed
        .map(([, row]) => `${row.dataset.name}: ${row.dataset.state}`)
        .join(". ");
    }
  }

  // A refresh replaces the checkboxes, so the admin's script has to bind the new ones. It adds
  // listeners to the whole page, so bind only when somebody is about to use a checkbox.
  function bindCheckboxes() {
    const list = document.querySelector(".result-list-wrapper");
    const boxes = list?.querySelectorAll("tr input.action-select") ?? [];
    if (!boxes.length || !window.Actions) return;
    const live = document.getElementById("live");
    const done = new AbortController();
    for (const type of ["pointerover", "focusin"]) {
      live.addEventListener(
        type,
        () => {
          done.abort();
          window.Actions(boxes, { parent: list });
        },
        { signal: done.signal },
      );
    }
  }
}
