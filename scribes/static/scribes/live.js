// Around the part of a page that htmx fetches anew, #live: see scribes/live.html.
"use strict";
{
  const states = () =>
    new Map([...document.querySelectorAll("#live [data-state]")].map((row) => [row.id, row]));

  let before = new Map();

  // An answer without that part is another page, such as the one for signing in.
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

  for (const fault of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
    document.addEventListener(fault, () => document.body.classList.add("is-stale"));
  }

  // Read out to who cannot see it: what changed its state, not each step of progress.
  function announce() {
    const news = [...states()].filter(
      ([id, row]) => before.has(id) && before.get(id).dataset.state !== row.dataset.state,
    );
    if (news.length) {
      document.getElementById("news").textContent = news
        .map(([, row]) => `${row.dataset.name}: ${row.dataset.state}`)
        .join(". ");
    }
  }

  // The checkboxes are new ones. The admin's own script gets to know them when they are wanted,
  // and not each time: it listens to the whole page.
  function bindCheckboxes() {
    const list = document.querySelector(".result-list-wrapper");
    const boxes = list?.querySelectorAll("tr input.action-select") ?? [];
    if (!boxes.length || !window.Actions) return;
    const live = document.getElementById("live");
    const done = new AbortController();
    for (const wish of ["pointerover", "focusin"]) {
      live.addEventListener(
        wish,
        () => {
          done.abort();
          window.Actions(boxes, { parent: list });
        },
        { signal: done.signal },
      );
    }
  }
}
