"use strict";
// The page reads without this script; with it, tables sort, claims filter, and the contents follow the reader.
const announced = document.getElementById("announced");

// --- tables: a click, or Enter or Space, on a column's heading: best first, the other way round, as it was ---------
const number = (text) => {
  const found = text.trim().replace(/−/g, "-").match(/^[+-]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?/i);
  return found ? parseFloat(found[0].replace(/,/g, "")) : NaN;
};
const isEmpty = (text) => ["", "–", "-"].includes(text.trim());

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], original = [...body.rows], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const label = head.textContent.trim();
    const texts = original.map((row) => row.cells[column].textContent);
    const numeric = texts.every((text) => isEmpty(text) || !isNaN(number(text))) && !texts.every(isEmpty);
    const first = numeric && label.includes("↑") ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const next = now === null ? first : now === first ? second : null;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1;
      const compare = (a, b) => {
        const [left, right] = [a, b].map((row) => row.cells[column].textContent);
        if (isEmpty(left) || isEmpty(right)) return isEmpty(left) - isEmpty(right);  // what is missing comes last
        return sign * (numeric ? number(left) - number(right) : left.localeCompare(right, "en"));
      };
      body.append(...(next ? [...original].sort(compare) : original));
      announced.textContent = next ? `Sorted by ${label}, ${next}` : "In the original order";
    });
  });
}

// --- boxes that scroll are reached by keyboard, others are passed over ---------------------------------------------
const boxes = [...document.querySelectorAll("[tabindex='0']")];
const measure = (box) => {
  const scrolls = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
  scrolls ? box.setAttribute("tabindex", "0") : box.removeAttribute("tabindex");
};
const watch = new ResizeObserver((changes) => changes.forEach((change) => measure(change.target)));
boxes.forEach((box) => watch.observe(box));

// --- claims by verdict ---------------------------------------------------------------------------------------------
const filters = [...document.querySelectorAll(".counts button")];
const claims = [...document.querySelectorAll(".claim")];
filters.forEach((button) => button.addEventListener("click", () => {
  const on = button.getAttribute("aria-pressed") !== "true";
  filters.forEach((other) => other.setAttribute("aria-pressed", String(on && other === button)));
  claims.forEach((claim) => { claim.hidden = on && claim.dataset.kind !== button.dataset.kind; });
  announced.textContent = `${claims.filter((claim) => !claim.hidden).length} of ${claims.length} claims are shown`;
}));

// --- every comparison at once, and on paper ------------------------------------------------------------------------
const compared = [...document.querySelectorAll(".compare")], unfold = document.getElementById("unfold");
const show = (on) => {
  compared.forEach((part) => { part.open = on; });
  unfold.setAttribute("aria-expanded", String(on));
  unfold.textContent = on ? "Fold every comparison" : "Open every comparison";
};
if (unfold) {
  unfold.hidden = false;
  unfold.addEventListener("click", () => show(unfold.getAttribute("aria-expanded") !== "true"));
  addEventListener("beforeprint", () => show(true));
}

// --- contents: folded on a narrow screen; the part that is read is marked ------------------------------------------
const contents = document.querySelector(".contents");
if (matchMedia("(max-width: 61.99rem)").matches) contents.open = false;
const links = new Map([...contents.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
const mark = (id) => {
  links.forEach((link) => link.removeAttribute("aria-current"));
  const link = links.get(id);
  if (link) link.setAttribute("aria-current", "true");
};
const seen = new IntersectionObserver((entries) => {
  const entering = entries.filter((entry) => entry.isIntersecting);
  if (entering.length) mark(entering[0].target.id);
}, { rootMargin: "0px 0px -75% 0px" });
document.querySelectorAll("main section[id]").forEach((section) => seen.observe(section));

// --- a link to something folded opens it; a hidden claim shows -----------------------------------------------------
const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let part = target; part; part = part.parentElement) {
    if (part.tagName === "DETAILS") part.open = true;
    part.hidden = false;
  }
  target.scrollIntoView();
};
addEventListener("hashchange", open);
if (location.hash) open();
