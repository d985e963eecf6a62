// A little convenience on top of pages that work without it.
"use strict";

// A link of which the page knows the path alone: the address before it is the one by which this browser came.
for (const pre of document.querySelectorAll("figure.copy[data-path] pre")) {
  pre.textContent = location.origin + pre.textContent;
  for (const note of document.querySelectorAll("[data-path-note]")) {
    note.textContent = `It begins with the address by which your browser reaches this server, ${location.origin}: put another in its place where theirs differs.`;
  }
}

// A button to copy what a click would only select.
if (navigator.clipboard) {
  for (const figure of document.querySelectorAll("figure.copy")) {
    const hint = figure.querySelector("figcaption span");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "linkish";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(figure.querySelector("pre").textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Press Ctrl+C to copy";
        getSelection().selectAllChildren(figure.querySelector("pre"));
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    hint.replaceWith(button);
  }
}

// A line under each chart that reads out a day: by pointer, by touch, by the arrow keys.
for (const chart of document.querySelectorAll(".plot > svg")) {
  const days = [...chart.querySelectorAll("g.day")];
  if (days.length === 0) continue;
  const line = document.createElement("p");
  const hint = "Point at a day, touch it, or use the arrow keys.";
  line.className = "reading";
  line.setAttribute("role", "status");
  line.textContent = hint;
  chart.parentElement.after(line);
  let read = -1;
  const show = (index) => {
    if (read >= 0) days[read].classList.remove("is-read");
    read = Math.max(-1, Math.min(index, days.length - 1));
    if (read >= 0) days[read].classList.add("is-read");
    line.textContent = read >= 0 ? days[read].querySelector("title").textContent : hint;
  };
  days.forEach((day, index) => {
    day.addEventListener("pointerenter", () => show(index));
    day.addEventListener("pointerdown", () => show(index));
  });
  chart.tabIndex = 0;
  chart.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: (read < 0 ? days.length : read) - 1, ArrowRight: read + 1, Home: 0, End: days.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(Math.max(0, to));
  });
}
