// A little convenience on top of pages that work without it.
"use strict";

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
