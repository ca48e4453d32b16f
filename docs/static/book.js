// What scrolls in its own box can be reached and scrolled with the keyboard.
addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll("pre, .math, .text_html, .table-wrapper, article table")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
