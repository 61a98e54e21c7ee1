"use strict";
// The link leads to the start of the site; where the browser knows the page before, there.
document.querySelector("a[data-back]")?.addEventListener("click", (event) => {
  if (history.length < 2) return;
  event.preventDefault();
  history.back();
});
