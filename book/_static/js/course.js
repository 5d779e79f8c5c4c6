// The book's own script: what the theme and the widgets leave undone. No library, no network.
(function () {
  "use strict";

  // The widgets speak MathJax 2; the book carries MathJax 3. Give them the one call they make.
  // MathJax replaces the global object as it loads, hence "after everything has loaded".
  window.addEventListener("load", function () {
    var mathjax = window.MathJax;
    if (!mathjax || !mathjax.typesetPromise || mathjax.Hub) return;
    mathjax.Hub = {
      Queue: function () {
        Array.prototype.forEach.call(arguments, function (call) {
          if (!Array.isArray(call) || call[0] !== "Typeset") return;
          var node = call[2];
          // pages are written with \(…\) and tell MathJax to leave the rest alone; labels use $…$
          if (!node.children.length && node.textContent.indexOf("$") >= 0) {
            node.textContent = node.textContent.replace(/\$([^$]+)\$/g, "\\($1\\)");
            node.classList.add("mathjax_process");
          }
          mathjax.startup.promise.then(function () { return mathjax.typesetPromise([node]); });
        });
      },
    };
  });

  function each(selector, change) {
    Array.prototype.forEach.call(document.querySelectorAll(selector), change);
  }

  // Names that screen readers can announce
  function mend() {
    // the visible words "Search Ctrl+K" must be part of the button's name
    each("button.search-button-field, button.search-button__button", function (button) {
      var words = button.textContent.replace(/\s+/g, " ").trim();
      if (words) button.removeAttribute("aria-label");
      else button.setAttribute("aria-label", "Search");
    });
    each("button.theme-switch-button", function (button) {
      button.setAttribute("aria-label", "Switch between light and dark");
    });
    each("input[type=search]", function (field) {
      if (!field.getAttribute("aria-label")) field.setAttribute("aria-label", "Search the book");
    });
    // the sidebar's mark lies outside every landmark
    each(".sidebar-primary-item > .navbar-brand", function (brand) {
      brand.parentElement.setAttribute("role", "navigation");
      brand.parentElement.setAttribute("aria-label", "Home page");
    });
    each("nav details > summary, .sidebar-primary-item details > summary", function (summary) {
      var item = summary.closest("li");
      var link = item && item.querySelector("a");
      if (link) summary.setAttribute("aria-label", "Sections of " + link.textContent.trim());
    });
    // what scrolls sideways can be reached with the keyboard
    each(".cell_output, .bd-article div.math, .bd-article .highlight pre, .pst-scrollable-table-container", function (box) {
      if (box.scrollWidth > box.clientWidth + 1 && !box.hasAttribute("tabindex")) {
        box.setAttribute("tabindex", "0");
        if (!box.getAttribute("aria-label")) {
          box.setAttribute("role", "group");
          box.setAttribute("aria-label", "Scrolls sideways");
        }
      }
    });
  }

  // Sliders get the words that stand beside them; widgets appear after loading, so watch for them
  function nameSliders() {
    each(".jupyter-widgets [role=slider], .jupyter-widgets .noUi-handle", function (handle) {
      if (handle.getAttribute("aria-label")) return;
      var box = handle.closest(".jupyter-widgets");
      var label = box && box.querySelector(".widget-label");
      var words = label && label.textContent.trim();
      handle.setAttribute("aria-label", words || "Slider");
    });
  }

  document.addEventListener("DOMContentLoaded", function () {
    mend();
    if (document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) {
      new MutationObserver(nameSliders).observe(document.body, { childList: true, subtree: true });
    }
  });
})();
